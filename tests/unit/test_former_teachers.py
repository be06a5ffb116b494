"""A student that goes on from a checkpoint, and workers that are, or are not, those that labelled for it."""

from __future__ import annotations

from edldist.wire.messages import Labels, Pull, Refused, Tasks
from tests.greetings import FINGERPRINT, fingerprint
from tests.unit.party import result


def test_workers_that_are_none_of_a_checkpoint_label_nothing_that_is_read_after_its_restore(party):
    """The restore comes between a lease and its labels."""
    party = party()
    other = party.worker("other")
    party.offer(4, 4)
    (before,) = other.pull(4)
    party.service.expect({"teacher": fingerprint(weights="former")})
    party.delivery.clear()
    party.offer(4)
    other.link.send(Pull(seq=7, room=4), [])
    other.link.send(*labels_of(before))
    party.turn()
    (refused,) = [message for message in other.hear() if isinstance(message, Refused)]
    assert not refused.incompatible and "weights (none) instead of former" in refused.reason
    assert "weights (none) instead of former" in party.service.missing_teachers()["teacher"]
    assert party.delivery.buffered == 0 and party.service.used() == {}

    right = party.worker("right", fingerprint=fingerprint(weights="former"))
    right.label(*right.pull(4))
    assert party.delivery.buffered == 1
    assert party.service.used() == {"teacher": fingerprint(weights="former", outputs=["logits"])}


def test_a_restore_in_mid_turn_holds_from_the_next_message_on(party, monkeypatch):
    party = party()
    other = party.worker("other")
    serve = party.service._on_pull

    def restored_meanwhile(*pull) -> None:
        serve(*pull)
        party.service.expect({"teacher": fingerprint(weights="former")})
        party.delivery.clear()
        party.offer(4)

    monkeypatch.setattr(party.service, "_on_pull", restored_meanwhile)
    for seq in (1, 2):
        other.link.send(Pull(seq=seq, room=4), [])
    party.turn()
    assert [type(message) for message in other.hear()].count(Tasks) == 0
    assert party.service.teachers() == 0


def test_a_worker_that_says_nothing_is_told_at_once(party):
    party = party()
    idle = party.worker("idle")
    party.service.expect({"teacher": fingerprint(weights="former")})
    party.turn()
    assert [type(message) for message in idle.hear()] == [Refused]
    assert party.service.teachers() == 0


def test_workers_that_fit_a_checkpoint_stay(party):
    party = party()
    worker = party.worker("w")
    party.service.expect({"teacher": FINGERPRINT})
    party.offer(4)
    worker.label(*worker.pull(4))
    assert party.delivery.buffered == 1 and party.service.teachers() == 1


def labels_of(lease: int) -> tuple[Labels, list[bytes]]:
    its, frame = result(lease)
    return Labels(results=[its], pull=None), [frame]


def test_a_restored_group_s_workers_are_judged_and_no_others(party):
    job = party(teachers=("law", "code"))
    workers = [job.worker(name, teacher=name) for name in ("law", "code")]
    job.service.expect({"law": fingerprint(weights="former")})
    job.turn()
    assert job.service.teachers() == 1
    assert [bool(worker.hear()) for worker in workers] == [True, False]
