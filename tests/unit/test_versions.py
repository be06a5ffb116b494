"""Versions of one teacher that follow each other: which are taken, and what becomes of older labels."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.coordinator.members.fingerprints import GroupFingerprints
from edldist.errors import ConfigError
from edldist.labels.fingerprint import Fingerprint
from edldist.labels.standard import Standard
from edldist.labels.versions import Versions, number_of
from edldist.student.batch.teacher_inputs import VERSION
from edldist.student.queue.flow import Flow
from edldist.student.queue.queue import LabelQueue
from edldist.student.queue.wanted import Wanted
from edldist.student.service.delivery import Delivery
from edldist.student.teachers.asked_teachers import AskedTeachers
from edldist.student.teachers.known_teachers import KnownTeachers
from edldist.wire.messages import Register
from tests.greetings import fingerprint
from tests.unit.members import WALL, make, student, teacher
from tests.unit.test_delivery import Desk


def of(version: int | str, **fields: Any) -> Fingerprint:
    return fingerprint(version=str(version), **{"weights": f"w{version}"} | fields)


@pytest.mark.parametrize("text", ["", "v2", "1.5", "-1", "007", "٣", " 1", "1e3", str(2**63), "9" * 40])
def test_what_is_no_whole_number_is_no_version_that_others_follow(text: str) -> None:
    assert number_of(text) is None
    assert "no whole number" in (Versions(1).objection(of(text)) or "")


@pytest.mark.parametrize("number", [0, 1, 20260101, 2**63 - 1])
def test_whole_numbers_are_versions(number: int) -> None:
    assert number_of(str(number)) == number


@given(seen=st.lists(st.integers(0, 12), max_size=30), most=st.integers(1, 4))
def test_the_newest_so_many_are_taken_in_whatever_order_they_come(seen: list[int], most: int) -> None:
    versions = Versions(most)
    for number in seen:
        versions.see(of(number))
    newest = sorted(set(seen))[-most:]
    for number in range(13):
        newer = sum(each > number for each in newest)
        assert versions.is_stale(str(number)) == (newer >= most)
    assert versions.oldest == (newest[0] if len(newest) == most else 0)


def test_a_version_has_one_set_of_weights() -> None:
    versions = Versions(2)
    versions.see(of(3))
    assert versions.objection(of(3)) is None and versions.objection(of(4)) is None
    said = versions.objection(of(3, weights="other"))
    assert said == "version 3 with weights other instead of w3"


# --- a student ----------------------------------------------------------------------------------------


def test_workers_of_a_newer_version_are_taken_beside_the_old_and_then_older_ones_are_not() -> None:
    standard = Standard("t", versions=2)
    assert standard.admit("a", of(1)) is None
    assert standard.admit("b", of(2)) is None and not standard.is_stale("1")
    assert standard.admit("c", of(3)) is None
    assert standard.is_stale("1") and standard.oldest_version == 2
    misfit = standard.admit("d", of(1))
    assert misfit is not None and not misfit.incompatible
    assert misfit.reason == (
        "worker d of teacher 't' has version 1, and labels are taken of the 2 newest only, 3, 2 "
        "(versions=2 of the student's DistillLoader or LabelRequests)"
    )


@pytest.mark.parametrize(
    ("its", "says"),
    [
        (of(2, model="another:model"), "model another:model instead of"),
        (of(2, codec="dense:fp16"), "codec dense:fp16 instead of"),
        (of(1, weights="other"), "weights other instead of w1"),
    ],
)
def test_nothing_but_version_and_weights_may_change(its: Fingerprint, says: str) -> None:
    standard = Standard("t", versions=5)
    assert standard.admit("a", of(1)) is None
    misfit = standard.admit("b", its)
    assert misfit is not None and misfit.incompatible and says in misfit.reason


def test_a_version_that_is_no_number_is_refused_with_what_to_do() -> None:
    misfit = Standard("t", versions=1).admit("a", of("v2"))
    assert (
        misfit is not None and "version v2, which is no whole number: give --model-version" in misfit.reason
    )


def test_labels_are_of_the_version_with_which_their_worker_has_greeted() -> None:
    standard = Standard("t", versions=2)
    standard.admit("a", of(1))
    standard.admit("b", of(2))
    standard.fix(["logits"])
    assert standard.objection("b", "2", ["logits"], "2") is None
    assert standard.objection("a", "1", ["logits"], "1") is None
    misfit = standard.objection("a", "2", ["logits"], "1")
    assert misfit is not None and "version 2 instead of 1" in misfit.reason
    misfit = standard.objection("b", "2", ["features"], "2")
    assert misfit is not None and "outputs features instead of logits" in misfit.reason


def test_without_versions_another_one_is_refused_as_ever() -> None:
    standard = Standard("t")
    standard.admit("a", of(1))
    misfit = standard.admit("b", of(2))
    assert misfit is not None and "version 2 instead of 1" in misfit.reason


def test_a_version_that_was_started_by_mistake_and_labelled_nothing_is_forgotten() -> None:
    standard = Standard("t", versions=1)
    standard.admit("a", of(99))
    standard.deserted()
    assert standard.admit("b", of(5)) is None


def test_a_run_that_goes_on_takes_no_version_older_than_its_checkpoint_allows() -> None:
    standard = Standard("t", versions=1)
    standard.expect(of(5, outputs=["logits"]))
    assert standard.admit("a", of(4)) is not None
    assert standard.admit("a", of(5)) is None and standard.admit("b", of(6)) is None
    standard.deserted()
    assert standard.admit("a", of(4)) is not None


def test_what_was_used_last_is_the_newest() -> None:
    standard = Standard("t", versions=3)
    standard.admit("a", of(1))
    standard.fix(["logits"])
    standard.used_of(of(3))
    standard.used_of(of(2))
    assert standard.fingerprint == of(3, outputs=["logits"])


def test_a_checkpoint_records_the_newest_version_that_was_used(caplog: pytest.LogCaptureFixture) -> None:
    known = KnownTeachers(["t", "u"], by_rank=False, extend=False, rolling=["t"])
    known.consumed({"t": of(1), "u": of(1)})
    assert not known.complete
    known.consumed({"t": of(2), "u": of(1)})
    state = known.shared_state()
    assert {name: each["version"] for name, each in state["teachers"].items()} == {"t": "2", "u": "1"}
    assert known.read(state)["t"] == of(2)
    assert "not the one that labelled" not in caplog.text


# --- the coordinator ------------------------------------------------------------------------------------


def registered(worker: str, its: Fingerprint) -> Register:
    return teacher(worker, process=f"p-{worker}", fingerprint=its)


def test_another_version_joins_a_group_only_where_its_students_take_several() -> None:
    groups = GroupFingerprints()
    groups.joined(registered("a", of(1)))
    newer = registered("b", of(2))
    assert "version 2 instead of 1" in (groups.objection(newer) or "")
    assert groups.objection(newer, lambda: True) is None
    groups.joined(newer)
    for its, says in (
        (of(2, weights="other"), "weights other instead of w2"),
        (of(3, model="another:model"), "model another:model"),
        (of("", weights="w1"), "version (none) instead of"),
    ):
        assert says in (groups.objection(registered("c", its), lambda: True) or "")
    groups.left(registered("a", of(1)))
    assert groups.objection(registered("c", of(2))) is None
    groups.left(newer)
    assert not groups.groups


def test_every_student_that_wants_the_group_has_to_take_several() -> None:
    members = make()
    members.register(b"a", registered("a", of(1)), 0.0, WALL)

    def joins(worker: str, its: Fingerprint, **fields: Any) -> bool:
        message = teacher(worker, process=f"p-{worker}", fingerprint=its, **fields)
        members.register(worker.encode(), message, 1.0, WALL)
        return worker in members.members

    assert not joins("b", of(2))  # nobody takes any
    assert joins("c", of(3), info={"rejoin": True})  # a former coordinator had let it in
    members.register(b"s", student("s", process="p-s", teachers=["big"], rolling=["big"]), 1.0, WALL)
    assert joins("b", of(2))
    members.register(b"r", student("r", process="p-r", teachers=["big"]), 1.0, WALL)
    assert not joins("d", of(4)) and not joins("e", of(4), info={"rejoin": True})


# --- older labels ---------------------------------------------------------------------------------------


def test_labels_that_are_asked_for_again_wait_in_their_place() -> None:
    queue = LabelQueue(["t"])
    queue.join("a", "t")
    for _ in range(3):
        queue.offer(4, 10)
    first, *rest = queue.lease("a", 8, 0.0)
    queue.complete(first.lease, 0.0)
    queue.grow(0, 32)
    assert queue.ready() and queue.nbytes == 62
    assert queue.ask_again(0, "t", Wanted.whole(4), 32) == 4
    queue.validate(0.0)
    assert not queue.ready() and queue.nbytes == 30
    assert queue.ask_again(1, "t", Wanted.whole(4), 0) == 0  # leased: its answer is late now
    queue.validate(0.0)
    assert all(queue.find(grant.lease, "a", 0.0) is None for grant in rest)
    again = queue.lease("a", 100, 0.0)
    assert [(g.batch, g.start, g.stop) for g in again] == [(0, 0, 4), (1, 0, 4), (2, 0, 4)]


def test_a_batch_that_was_given_up_is_not_asked_for_again() -> None:
    queue = LabelQueue(["t"])
    queue.join("a", "t")
    queue.offer(4, 10)
    queue.stall(0)
    assert queue.ask_again(0, "t", Wanted.whole(4), 0) is None
    queue.validate(0.0)


def test_older_labels_are_asked_for_again_whenever_a_newer_worker_comes() -> None:
    """One of version 3 came and went, an old one was taken after all, and then the newer one is back."""
    desk = Desk()
    desk.delivery = Delivery(("t",), Flow(), desk.clock, 1, 1 << 20, False, rolling=("t",))
    desk.delivery.join("new", "t", forgiven=False)
    desk.delivery.retire("t", 3)
    desk.delivery.leave("new")
    desk.delivery.join("old", "t", forgiven=False)
    desk.offer(4)
    desk.label("old", *desk.lease("old"), version="1")
    assert desk.delivery.buffered == 1
    desk.delivery.leave("old")
    desk.delivery.retire("t", 3)
    assert desk.delivery.buffered == 0 and desk.delivery.stats()["stale"] == 4
    desk.delivery.join("new", "t", forgiven=False)
    desk.label("new", *desk.lease("new"), version="3")
    desk.delivery.retire("t", 3)
    assert desk.delivery.buffered == 1 and desk.delivery.stats()["stale"] == 4
    packed = desk.delivery.deliver().labels()["t"]
    assert packed[VERSION].tolist() == [3] * 4


# --- what may be asked for ------------------------------------------------------------------------------


@pytest.mark.parametrize("versions", [0, -1, 1.5, True, "newest", {"a": 0}, {"a": None}, {"a": "2"}])
def test_numbers_of_versions_that_cannot_be_are_refused(versions: Any) -> None:
    with pytest.raises(ConfigError, match="use how many of the newest versions are taken"):
        AskedTeachers.of(("a", "b"), versions=versions)


def test_versions_of_no_teacher_and_with_deterministic_are_refused() -> None:
    with pytest.raises(ConfigError, match="there is no teacher 'c'"):
        AskedTeachers.of(("a", "b"), versions={"c": 2})
    with pytest.raises(ConfigError, match="a matter of timing"):
        AskedTeachers.of("a", versions=2, deterministic=True)
    assert AskedTeachers.of(("a", "b"), versions={"b": 2}).versions == {"b": 2}
    assert AskedTeachers.of(("a", "b"), versions=1).versions == {"a": 1, "b": 1}
