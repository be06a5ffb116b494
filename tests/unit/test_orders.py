"""Workers are told whom to serve, and told again what may have been lost on its way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from edldist.clock import FakeClock
from edldist.coordinator.links import orders as orders_module
from edldist.coordinator.links.orders import LINKS_REFRESH_TTLS, Orders
from edldist.coordinator.members.membership import Membership
from edldist.wire.messages import Goodbye, Heartbeat, JobShare, Links, Need, Peer, Register
from tests.greetings import fingerprint

TTL_S = 3.0
S1, S2 = (Peer(id=name, address=f"tcp://here:{name}") for name in ("s1", "s2"))


class Desk:
    """Orders of a coordinator that has settled, with one worker; ``reached`` is what left for whom."""

    def __init__(self, most: int = 16, *, settled: bool = True) -> None:
        self.clock = FakeClock(100.0)
        self.members = Membership("life", 1.0, TTL_S, self.now - 2 * TTL_S if settled else self.now)
        self.reached: list[tuple[bytes, Links]] = []
        self.reachable = True
        self.orders = Orders(self.members, most, self.clock, self._send)
        if settled:
            self.teacher("t1")

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def _send(self, peer: bytes, links: Links) -> bool:
        if self.reachable:
            self.reached.append((peer, links))
        return self.reachable

    def teacher(
        self,
        name: str,
        peer: bytes | None = None,
        links: Sequence[str] = (),
        version: str = "",
        teachers: Sequence[str] = (),
    ) -> None:
        its = fingerprint(version=version)
        own = {"id": name, "process": f"p-{name}", "fingerprint": its, "links": list(links)}
        self._join(Register(role="teacher", group="big", host="h", pid=1, teachers=teachers, **own), peer)

    def student(self, peer: Peer, **fields: Any) -> None:
        who = {"id": peer.id, "process": peer.id, "address": peer.address}
        self._join(Register(role="student", teachers=["big"], **who, **fields))

    def _join(self, register: Register, peer: bytes | None = None) -> None:
        self.orders.forget(register.id)
        self.members.register(peer or register.id.encode(), register, self.now, 0.0)

    def decided(self) -> list[tuple[bytes, Links]]:
        """What is told because of a decision."""
        self.reached.clear()
        self.orders.decide(self.now)
        return list(self.reached)

    def refreshed(self, name: str = "t1") -> list[tuple[bytes, Links]]:
        """What is told because of a worker's heartbeat."""
        self.reached.clear()
        self.orders.refresh(self.members.members[name], self.now)
        return list(self.reached)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_decision_is_due_when_someone_comes_and_not_before(desk: Desk) -> None:
    assert desk.orders.due_at(desk.now) <= desk.now
    desk.decided()
    assert desk.orders.due_at(desk.now) == float("inf")
    desk.student(S1)
    assert desk.orders.due_at(desk.now) <= desk.now


def test_only_those_whose_links_changed_are_told() -> None:
    desk = Desk(most=1)
    desk.student(S1)
    assert desk.decided() == [(b"t1", Links(students=[S1], complete=True))]
    desk.teacher("t2")
    desk.student(S2)
    assert desk.decided() == [(b"t2", Links(students=[S2], complete=True))]


def test_a_heartbeat_brings_links_again_only_after_a_while(desk: Desk) -> None:
    desk.student(S1)
    told = desk.decided()
    desk.clock.advance(LINKS_REFRESH_TTLS * TTL_S)
    assert desk.refreshed() == []
    desk.clock.advance(0.1)
    assert desk.refreshed() == told
    assert desk.refreshed() == []


def test_links_that_never_left_go_with_the_next_heartbeat(desk: Desk) -> None:
    desk.student(S1)
    desk.reachable = False
    assert desk.decided() == []
    assert desk.refreshed() == []
    desk.reachable = True
    assert desk.refreshed() == [(b"t1", Links(students=[S1], complete=True))]


def test_what_a_decision_is_about_to_change_is_not_repeated(desk: Desk) -> None:
    desk.decided()
    desk.clock.advance(LINKS_REFRESH_TTLS * TTL_S + 1)
    desk.student(S1)
    assert desk.refreshed() == []


@pytest.mark.parametrize("peer", [b"t1", b"t1-elsewhere"])
def test_a_worker_that_registers_again_is_told_again(desk: Desk, peer: bytes) -> None:
    desk.student(S1)
    desk.decided()
    desk.teacher("t1", peer)
    assert desk.decided() == [(peer, Links(students=[S1], complete=True))]


def test_repeated_links_still_name_those_who_were_released() -> None:
    desk = Desk(most=1)
    for student in (S1, S2):
        desk.student(student)
    desk.decided()
    desk.teacher("t2")
    first = dict(desk.decided())[b"t1"]
    assert len(first.students) == len(first.released) == 1
    desk.clock.advance(LINKS_REFRESH_TTLS * TTL_S + 1)
    assert desk.refreshed() == [(b"t1", first)]


def test_a_rank_that_says_that_it_takes_newer_labels_alone_gets_a_worker_that_has_them() -> None:
    desk = Desk(most=1)
    desk.members.goodbye(b"t1", Goodbye(id="t1"), 0.0)
    for student in (S1, S2):
        desk.student(student, rolling=["big"])
    for name, version in (("t1", "1"), ("t2", "2")):
        desk.teacher(name, version=version)
    before = {peer: links.students for peer, links in desk.decided()}
    assert sorted(before) == [b"t1", b"t2"] and before[b"t1"] != before[b"t2"]
    (old,) = before[b"t1"]
    need = Need(group="big", hunger=None, lacking=0, buffered=0, oldest=2)
    desk.members.heartbeat(old.id.encode(), Heartbeat(id=old.id, needs=[need]), desk.now)
    assert desk.orders.due_at(desk.now) <= desk.now
    after = {peer: links for peer, links in desk.decided()}
    assert old in after[b"t2"].students
    assert old not in after[b"t1"].students and after[b"t1"].released == [old.id]
    desk.members.heartbeat(old.id.encode(), Heartbeat(id=old.id, needs=[need]), desk.now)
    assert desk.orders.due_at(desk.now) == float("inf"), "what was said before moves nothing"


def test_a_worker_whose_version_is_no_number_is_older_than_any_that_has_one() -> None:
    desk = Desk(most=1)
    desk.members.goodbye(b"t1", Goodbye(id="t1"), 0.0)
    for student in (S1, S2):
        desk.student(student, rolling=["big"])
        need = Need(group="big", hunger=None, lacking=0, buffered=0, oldest=1)
        desk.members.heartbeat(student.id.encode(), Heartbeat(id=student.id, needs=[need]), desk.now)
    for name, version in (("t1", "main"), ("t2", "1")):
        desk.teacher(name, version=version)
    assert {peer: links.students for peer, links in desk.decided()} == {b"t1": [], b"t2": [S1, S2]}


def test_a_worker_that_names_teachers_takes_no_place_of_a_student() -> None:
    desk = Desk(most=1)
    desk.teacher("a", teachers=["big"])
    desk.student(S1)
    served = Links(students=[S1], complete=True)
    assert desk.decided() == [(b"t1", served), (b"a", served)]


@pytest.mark.parametrize("named", [True, False])
def test_past_the_bound_each_worker_serves_each_job_where_jobs_have_weights(named: bool) -> None:
    desk = Desk(most=2)
    desk.teacher("t2")
    desk.teacher("t3")
    for number in range(4):
        job = "b" if number == 3 else "a"
        share = JobShare(job=job, weight=1 if named and job == "b" else None)
        desk.student(Peer(id=f"{job}{number}", address=f"tcp://here:{number}"), share=share)
    links = {peer: {student.id[0] for student in told.students} for peer, told in desk.decided()}
    everywhere = all(jobs == {"a", "b"} for jobs in links.values())
    assert everywhere == named, "one weight is enough: the lone rank of b has half of all three workers"


def test_deciding_takes_a_bounded_share_of_the_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*args: object, balance: bool) -> dict[str, frozenset[str]]:
        desk.clock.advance(0.5)
        return {"t1": frozenset()}

    monkeypatch.setattr(orders_module, "assign", slow)
    desk.decided()
    desk.student(S1)
    assert desk.orders.due_at(desk.now) == pytest.approx(desk.now + 4.5)


def test_a_fresh_coordinator_leaves_links_to_students_that_it_has_not_heard_yet() -> None:
    desk = Desk(most=1, settled=False)
    desk.teacher("t1", links=["s1"])
    desk.teacher("t2")
    desk.student(S2)
    assert dict(desk.decided()) == {
        b"t1": Links(students=[], complete=False),
        b"t2": Links(students=[S2], complete=False),
    }
    assert desk.members.members["t1"].links == {"s1"}
    desk.student(S1)
    assert desk.decided() == [(b"t1", Links(students=[S1], complete=False))]
    assert desk.refreshed("t2") == []
    desk.clock.advance(4 * TTL_S)
    assert dict(desk.decided())[b"t1"] == Links(students=[S1], complete=True)


def test_before_it_has_settled_nobody_is_left_and_then_those_who_need_not_be_served() -> None:
    desk = Desk(most=1, settled=False)
    desk.teacher("t1", links=["s1", "s2"])
    desk.teacher("t2")
    for student in (S1, S2):
        desk.student(student)
    desk.decided()
    assert desk.members.members["t1"].links == {"s1", "s2"}
    desk.clock.advance(4 * TTL_S)
    told = dict(desk.decided())[b"t1"]
    assert len(told.students) == 1 and told.complete
    assert told.released == [peer.id for peer in (S1, S2) if peer not in told.students]


def test_a_student_that_fell_silent_keeps_its_worker_and_one_that_left_does_not(desk: Desk) -> None:
    for student in (S1, S2):
        desk.student(student)
    desk.decided()
    desk.members.goodbye(b"s2", Goodbye(id="s2"), 0.0)
    for _ in range(8):
        desk.clock.advance(TTL_S / 4)
        desk.members.heard(b"t1", desk.now)
        desk.members.tick(desk.now, 0.0)
    assert set(desk.members.members) == {"t1"} and set(desk.members.missing) == {"s1"}
    assert desk.decided() == [(b"t1", Links(students=[], complete=True))]
    assert desk.members.members["t1"].links == {"s1"}, "cut off from here, it may be served all the same"


def test_links_that_were_weighed_by_unknown_rates_are_not_moved_to_balance_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    balances: list[bool] = []
    monkeypatch.setattr(
        orders_module, "assign", lambda *args, balance: balances.append(balance) or {"t1": frozenset()}
    )
    desk.orders.decide(desk.now)
    desk.members.inherits = True
    desk.orders.decide(desk.now)
    assert balances == [True, False]


def test_who_is_reached_elsewhere_is_told_there(desk: Desk) -> None:
    desk.student(S1)
    told = desk.decided()
    assert desk.decided() == []
    desk.members.register(b"t1-elsewhere", desk.members.members["t1"].register, desk.now, 0.0)
    assert desk.decided() == [(b"t1-elsewhere", told[0][1])]


def test_what_workers_were_told_is_forgotten_with_them(desk: Desk) -> None:
    desk.decided()
    desk.members.goodbye(b"t1", Goodbye(id="t1"), 0.0)
    desk.decided()
    assert desk.orders._sent == {}


def test_students_are_named_in_order_however_they_came() -> None:
    desk, names = Desk(most=16), [f"s{n:02}" for n in range(12)]
    for name in reversed(names):
        desk.student(Peer(id=name, address=f"tcp://here:{name}"))
    ((_, told),) = desk.decided()
    assert [peer.id for peer in told.students] == names
    desk.orders._max_students_per_worker = 1
    for n in range(2, 13):
        desk.teacher(f"t{n:02}")
    released = dict(desk.decided())[b"t1"].released
    assert len(released) == 11 and released == sorted(released)


def test_a_change_that_never_left_goes_with_the_next_heartbeat(desk: Desk) -> None:
    desk.student(S1)
    desk.decided()
    desk.student(S2)
    desk.reachable = False
    assert desk.decided() == []
    desk.reachable = True
    assert desk.refreshed() == [(b"t1", Links(students=[S1, S2], complete=True))]
