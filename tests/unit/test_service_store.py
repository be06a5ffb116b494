"""A student's service and the labels that a store has kept: whose they are, and who is asked for the rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edldist.agreement import AgreementBounds
from edldist.errors import StoreError
from edldist.labels.fingerprint import Fingerprint
from edldist.labels.grammar import parse_spec
from edldist.store.label_store import LabelStore
from edldist.student.batch.batch import OpenBatch
from edldist.student.service.kept.store_use import StoreUse
from edldist.wire.messages import Goodbye, Refused
from tests.greetings import fingerprint
from tests.unit.party import Party, Worker

FIRST, SECOND = fingerprint(version="1"), fingerprint(version="2")


def of_logits(its: Fingerprint) -> Fingerprint:
    """As it is once its labels were used."""
    return fingerprint(version=its.version, outputs=["logits"])


@pytest.fixture
def use() -> StoreUse:
    return StoreUse(LabelStore(None))


def offer(party: Party, *ids: int) -> OpenBatch:
    batch = OpenBatch(None, {"x": torch.tensor(ids, dtype=torch.float32)}, len(ids))
    party.service.offer(batch)
    return batch


def labels(worker: Worker, its: Fingerprint) -> None:
    """It labels all that there is."""
    while leases := worker.pull():
        worker.label(*leases, version=its.version)


def kept(use: StoreUse, its: Fingerprint, *ids: int) -> None:
    """Labels of such samples get into the store."""
    party = Party(store=use)
    worker = party.worker("maker", fingerprint=its)
    offer(party, *ids)
    labels(worker, its)
    assert party.delivery.buffered == 1
    party.close()


def refusals(worker: Worker) -> list[Refused]:
    return [message for message in worker.greeted if isinstance(message, Refused)]


def figures(party: Party) -> tuple[Any, Any]:
    stats = party.service.stats()
    return stats.get("store_hits"), stats.get("store_misses")


def test_what_one_labelled_nobody_is_asked_for_again(party: Any, use: StoreUse) -> None:
    kept(use, FIRST, 0, 1, 2, 3)
    job = party(store=use)
    assert job.service.shelves == {} and figures(job) == (0, 0)
    worker = job.worker("w", fingerprint=FIRST)
    assert list(job.service.shelves) == ["teacher"]
    batch = offer(job, 2, 3, 7, 0)
    assert figures(job) == (3, 1)
    worker.label(*worker.pull(), samples=1, first=70, version="1")
    assert job.delivery.buffered == 1
    assert batch.labels()["teacher"]["logits"].flatten().tolist() == [2, 3, 70, 0]


def test_who_offers_a_batch_is_told_once_it_was_looked_for(party: Any, use: StoreUse) -> None:
    kept(use, FIRST, 0, 1, 2, 3)
    found: list[tuple[OpenBatch, int]] = []
    for job, told in ((party(store=use), 1), (party(), 0)):
        found.clear()
        job.worker("w", fingerprint=FIRST)
        batch = OpenBatch(None, {"x": torch.tensor([0.0, 5.0])}, 2)
        job.service.offer(batch, lambda its: found.append((its, its.lookups["teacher"].found)))
        assert found == [(batch, 1)] * told


def test_without_a_store_there_are_no_figures_of_it(party: Any) -> None:
    job = party()
    labels(job.worker("w", fingerprint=FIRST), FIRST)
    assert job.service.shelves == {} and figures(job) == (None, None)


def test_what_was_read_before_a_worker_came_is_found_when_it_comes(party: Any, use: StoreUse) -> None:
    kept(use, FIRST, 0, 1, 2, 3)
    job = party(store=use)
    offer(job, 0, 1, 2, 3)
    assert figures(job) == (0, 4) and job.delivery.buffered == 0
    worker = job.worker("w", fingerprint=FIRST)
    assert figures(job) == (4, 0) and job.delivery.buffered == 1
    assert worker.pull() == []


def test_labels_that_were_found_are_those_of_the_group_for_life(party: Any, use: StoreUse) -> None:
    kept(use, FIRST, 0, 1, 2, 3)
    job = party(store=use)
    first = job.worker("first", fingerprint=FIRST)
    offer(job, 0, 1, 2, 3)
    assert job.service.used() == {"teacher": of_logits(FIRST)}
    first.say(Goodbye(id="first", reason="done"))
    (refused,) = refusals(job.worker("second", fingerprint=SECOND))
    assert "version 2 instead of 1" in refused.reason
    assert list(job.service.shelves) == ["teacher"]
    offer(job, 3, 2, 1, 0)
    assert job.delivery.buffered == 2, "nobody needs to be here"


def test_a_worker_has_the_outputs_of_labels_that_were_found(party: Any, use: StoreUse) -> None:
    kept(use, FIRST, 0, 1, 2, 3)
    job = party(store=use)
    job.service.expect({"teacher": FIRST})
    offer(job, 0, 1, 2, 3)
    (refused,) = refusals(job.worker("w", fingerprint=fingerprint(version="1", outputs=["feature"])))
    assert "outputs feature instead of logits" in refused.reason


@pytest.mark.parametrize("agreement", [None, AgreementBounds()])
def test_labels_can_be_taken_back_where_workers_are_compared(
    party: Any, use: StoreUse, agreement: AgreementBounds | None
) -> None:
    job = party(store=use, agreement=agreement)
    worker = job.worker("w", fingerprint=FIRST)
    offer(job, 0, 1, 2, 3)
    labels(worker, FIRST)
    keep = job.service._peers.find("w").keep
    assert keep.withdraw(everything=True) == (0 if agreement is None else 4)


def test_a_group_of_which_nothing_was_used_may_be_another_one_next(party: Any, use: StoreUse) -> None:
    job = party(store=use)
    one, other = (job.worker(name, fingerprint=FIRST) for name in ("one", "other"))
    one.say(Goodbye(id="one", reason="done"))
    assert list(job.service.shelves) == ["teacher"], "the other one is here"
    other.say(Goodbye(id="other", reason="done"))
    assert job.service.shelves == {} and job.service.used() == {}
    second = job.worker("second", fingerprint=SECOND)
    assert not refusals(second)
    offer(job, 0, 1, 2, 3)
    labels(second, SECOND)
    assert job.service.used() == {"teacher": of_logits(SECOND)}


def test_found_and_labelled_the_newer_version_counts_as_used(party: Any, use: StoreUse) -> None:
    kept(use, SECOND, 0, 1, 2, 3)
    job = party(store=use, versions={"teacher": 2})
    first = job.worker("first", fingerprint=FIRST)
    offer(job, 4, 5, 6, 7)
    labels(first, FIRST)
    assert job.service.used() == {"teacher": of_logits(FIRST)}
    second = job.worker("second", fingerprint=SECOND)
    assert not refusals(second)
    offer(job, 0, 1, 2, 3)
    assert figures(job) == (4, 4) and job.service.used() == {"teacher": of_logits(SECOND)}


def test_an_older_version_that_was_found_does_not_count_beside_what_was_labelled(
    party: Any, use: StoreUse
) -> None:
    kept(use, FIRST, 0, 1, 2, 3)
    job = party(store=use, versions={"teacher": 2})
    job.worker("first", fingerprint=FIRST)
    offer(job, 0, 1, 2, 3)
    second = job.worker("second", fingerprint=SECOND)
    offer(job, 4, 5, 6, 7)
    second.label(*second.pull(), version="2")
    assert job.delivery.buffered == 2
    assert job.service.used()["teacher"].version == "2"


def test_who_goes_on_from_a_checkpoint_finds_labels_before_anybody_is_here(party: Any, use: StoreUse) -> None:
    kept(use, FIRST, 0, 1, 2, 3)
    job = party(store=use)
    job.service.expect({"teacher": FIRST})
    assert list(job.service.shelves) == ["teacher"]
    offer(job, 0, 1, 2, 3)
    assert job.delivery.buffered == 1
    assert refusals(job.worker("second", fingerprint=SECOND))


def test_labels_in_a_codec_that_is_not_asked_for_are_not_looked_for(party: Any, use: StoreUse) -> None:
    job = party(store=use, codecs={"teacher": parse_spec("dense:fp16")})
    job.service.expect({"teacher": FIRST})
    assert job.service.shelves == {}


def test_without_a_store_a_checkpoint_binds_workers_alone(party: Any) -> None:
    job = party()
    job.service.expect({"teacher": FIRST})
    job.turn()
    assert refusals(job.worker("second", fingerprint=SECOND))


@pytest.mark.parametrize("codec", ["dense", "dense:fp16"])
def test_where_all_is_in_the_store_it_has_to_be_readable(party: Any, use: StoreUse, codec: str) -> None:
    kept(use, FIRST, 0, 1, 2, 3)
    only = StoreUse(use.store, only=True)
    if codec != "dense":
        with pytest.raises(StoreError, match=r"codec 'dense' instead of 'dense:fp16'"):
            party(store=only, codecs={"teacher": parse_spec(codec)})
        return
    job = party(store=only)
    offer(job, 3, 2, 1, 0)
    assert job.delivery.buffered == 1
    (refused,) = refusals(job.worker("w", fingerprint=FIRST))
    assert "from its store alone" in refused.reason
    with pytest.raises(StoreError, match="has no labels of teacher 'teacher' for 1 of the 2 samples"):
        offer(job, 1, 9)


class Unreadable:
    """A translation from a vocabulary that only a worker could tell."""

    objection = None

    def must_ask(self, vocabulary: object) -> bool:
        return True


def test_labels_whose_tokens_nobody_can_tell_are_refused_where_no_worker_comes(
    party: Any, use: StoreUse
) -> None:
    kept(use, FIRST, 0, 1, 2, 3)
    with pytest.raises(StoreError, match="over another vocabulary .* whose tokens only a worker could tell"):
        party(store=StoreUse(use.store, only=True), translations={"teacher": Unreadable()})


# --- from one generation of a group to the next -----------------------------------------------------


def test_labels_that_are_here_are_handed_on_to_the_next_generation(party: Any, use: StoreUse) -> None:
    former = party()
    worker = former.worker("w", fingerprint=FIRST)
    offer(former, 0, 1, 2, 3)
    labels(worker, FIRST)
    handed = former.service.hand_on()
    assert handed is not None and figures(former) == (None, None), "nobody pays for it before a change"
    job = party()
    job.service.take_on(handed)
    job.service.expect({"teacher": FIRST})
    offer(job, 3, 2, 1, 0)
    assert figures(job) == (4, 0) and job.delivery.buffered == 1
    with_store = party(store=use)
    with_store.service.take_on(handed)
    with_store.service.expect({"teacher": FIRST})
    offer(with_store, 3, 2, 1, 0)
    assert figures(with_store) == (0, 4), "it has a store, where they are"


@pytest.mark.parametrize("options", [{"store": True}, {"versions": {"teacher": 2}}])
def test_nothing_is_handed_on_where_a_store_has_it_or_labels_grow_old(
    party: Any, use: StoreUse, options: dict[str, Any]
) -> None:
    job = party(**{name: use if value is True else value for name, value in options.items()})
    worker = job.worker("w", fingerprint=FIRST)
    offer(job, 0, 1, 2, 3)
    labels(worker, FIRST)
    assert job.delivery.buffered == 1 and job.service.hand_on() is None
