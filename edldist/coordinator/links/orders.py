"""What each teacher worker was told: whom to serve, and whom to leave.

It decides with ``assignment``, tells those workers whose links changed, and repeats what they may have
missed. It owns no socket; what it knows of its own is only what it said last, so that a fresh
coordinator needs nothing but the registrations.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from edldist.clock import Clock
from edldist.coordinator.links.assignment import StudentRank, TeacherWorker, assign
from edldist.coordinator.members.membership import Member, Membership
from edldist.labels.versions import number_of
from edldist.wire.messages import Links, Peer
from edldist.wire.transport import Sender

__all__ = ["Orders"]

ASSIGNING_SHARE = 0.1
"""Largest share of time spent on assignments while membership churns."""
LINKS_REFRESH_TTLS = 5
"""A connection that breaks may swallow ``Links``, so they are repeated after this many TTLs."""


class _Sent(NamedTuple):
    peer: Sender
    links: Links
    at: float


class Orders:
    """The standing links of all workers, and who has been told of them.

    Owned by the coordinator's main thread. Sets ``Member.links`` of every worker.

    Does not guarantee that a worker got what was sent: it is sent again in a while.

    Args:
        members: who is here.
        max_students_per_worker: bound on the students that one teacher worker serves.
        clock: the time, to bound what deciding takes.
        send: sends links to a peer, and says whether they left.
    """

    def __init__(
        self,
        members: Membership,
        max_students_per_worker: int,
        clock: Clock,
        send: Callable[[Sender, Links], bool],
    ) -> None:
        self._members = members
        self._max_students_per_worker = max_students_per_worker
        self._clock = clock
        self._send = send
        self._refresh_s = LINKS_REFRESH_TTLS * members.heartbeat_ttl_s
        self._sent: dict[str, _Sent] = {}
        self._decided_for: tuple[int, bool] | None = None
        self._not_before = float("-inf")

    def due_at(self, now: float) -> float:
        """Monotonic seconds from which on to ``decide``; infinite while all stands as decided."""
        return self._not_before if self._outdated(now) else float("inf")

    def _outdated(self, now: float) -> bool:
        return self._decided_for != (self._members.version, self._members.settled(now))

    def forget(self, worker: str) -> None:
        """A worker registers: what it was told before may never have reached it."""
        self._sent.pop(worker, None)

    def decide(self, now: float) -> None:
        """Decide the links anew and tell those workers whose links changed."""
        began = self._clock.monotonic()
        members = self._members.members
        settled = self._members.settled(now)
        self._decided_for = (self._members.version, settled)
        teachers = {i: m for i, m in members.items() if m.is_teacher}
        ranks = {i: m for i, m in members.items() if not m.is_teacher}
        several = any(rank.register.share.named for rank in ranks.values())
        students = {i: _student(i, rank, several) for i, rank in ranks.items()}
        if not settled:
            students |= _expected(teachers.values(), students)
        assigned = assign(
            {i: _worker(m) for i, m in teachers.items()},
            students,
            self._max_students_per_worker,
            balance=not self._members.inherits,
        )
        self._sent = {i: sent for i, sent in self._sent.items() if i in teachers}
        missing = frozenset(self._members.missing)
        messages: dict[tuple[frozenset[str], frozenset[str]], Links] = {}
        for member_id, member in teachers.items():
            sent = self._sent.get(member_id)
            former = member.links
            kept = former & missing if settled else former
            member.links = assigned[member_id] | kept
            released = former.union(_unconfirmed(member, sent))
            key = (member.links, released - member.links)
            if key not in messages:
                messages[key] = self._links(member, settled, released)
            links = messages[key]
            if sent is None or sent.peer != member.peer or sent.links != links:
                self._tell(member, links, now)
        ended = self._clock.monotonic()
        self._not_before = ended + (ended - began) * (1 / ASSIGNING_SHARE - 1)

    def refresh(self, member: Member, now: float) -> None:
        """Repeat a worker's links if they never left or were sent long ago."""
        sent = self._sent.get(member.register.id)
        if sent is not None and now - sent.at <= self._refresh_s:
            return
        if not self._outdated(now):
            links = self._links(member, self._members.settled(now), _unconfirmed(member, sent))
            self._tell(member, links, now)

    def _links(self, member: Member, settled: bool, former: Collection[str]) -> Links:
        known = self._members.members
        return Links(
            students=[
                Peer(id=i, address=known[i].register.address)
                for i in sorted(member.links)
                if i in known and not known[i].is_teacher
            ],
            complete=settled,
            released=sorted(i for i in former if i in known and i not in member.links),
        )

    def _tell(self, member: Member, links: Links, now: float) -> None:
        if self._send(member.peer, links):
            self._sent[member.register.id] = _Sent(member.peer, links, now)
        else:
            self._sent.pop(member.register.id, None)


def _worker(member: Member) -> TeacherWorker:
    its = member.register.fingerprint
    version = None if its is None else number_of(its.version)
    return TeacherWorker(member.register.group, member.weight, member.links, version or 0)


def _student(member_id: str, member: Member, several: bool) -> StudentRank:
    """A student among others; ``several``: jobs share workers by weights and priorities."""
    register = member.register
    job = (register.share.job or member_id) if several else ""
    oldest = {need.group: need.oldest for need in member.needs}
    return StudentRank(register.teachers, member.weight, job, oldest)


def _unconfirmed(member: Member, sent: _Sent | None) -> Collection[str]:
    """Students that a worker may still serve: it was told to leave them, or said so when it registered."""
    return member.register.links if sent is None else sent.links.released


def _expected(workers: Iterable[Member], known: Collection[str]) -> dict[str, StudentRank]:
    """Students that workers serve and that have not said a word to a fresh coordinator yet.

    They hold their places, so that a restart moves no links: most of them are about to register.
    """
    groups: dict[str, set[str]] = {}
    for worker in workers:
        for student in worker.links.difference(known):
            groups.setdefault(student, set()).add(worker.register.group)
    return {student: StudentRank(wanted) for student, wanted in groups.items()}
