"""Who is here: registrations, heartbeats and losses as a pure state machine.

It owns no sockets and reads no clock: messages and readings of the time go in, actions come out.
It does not decide who serves whom (``assignment``) and remembers nothing across restarts: a fresh
coordinator is told everything again by those who are here.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edldist.coordinator.members.fingerprints import GroupFingerprints
from edldist.coordinator.members.lives import Lives
from edldist.coordinator.members.member_events import joined, left, lost, refused, rejoins
from edldist.coordinator.members.rates import RecentRate, differs
from edldist.coordinator.members.refusals import Refusals
from edldist.wire.messages import (
    Event,
    Goodbye,
    Heartbeat,
    Message,
    Need,
    Refused,
    Register,
    Registered,
    Regroup,
    Scalar,
    StageTimes,
    TeachersHere,
    Unknown,
    Vouch,
)
from edldist.wire.transport import Sender

__all__ = ["Action", "Member", "Membership", "Record", "Send"]

MAX_SETTLES = 10
"""A fresh coordinator waits this many settling times at most for those who keep coming back."""
WEIGH_S = 30.0
"""Clear changes in what members give and want move links at most so often."""
MISSING_S = 3600.0
"""How long a lost student's links are remembered, in case it was only cut off."""

MOST_GROUPS_TOLD = 64


@dataclass(frozen=True)
class Send:
    """Send a message to a peer."""

    peer: Sender
    message: Message


@dataclass(frozen=True)
class Record:
    """Something that belongs into ``events.jsonl``."""

    event: Event


Action = Send | Record


@dataclass
class Member:
    """One registered process.

    Attributes:
        peer: where the hub reaches it.
        register: its latest registration.
        joined_at: monotonic seconds of its first registration here.
        last_seen: monotonic seconds of its last message.
        stats: the figures of its last heartbeat.
        stages: how long what it does has taken, by its last heartbeat.
        stages_before: the same when it came here, if that was not when it started.
        links: ids of the students that a teacher worker serves, as far as known here; missing ones too.
        capacity, needs, starved: what its last heartbeat said that it could give or take; see ``Heartbeat``.
        recent: samples per second that it gave or took in the last seconds.
        weight: its rate, as it was when it last counted for who serves whom; NaN if it never did.
        beat_at: monotonic seconds of its last heartbeat.
        answered_at: monotonic seconds at which the server last answered a heartbeat of it.
        owner: the name of the key that it registered with; empty without keys.
    """

    peer: Sender
    register: Register
    joined_at: float
    last_seen: float
    stats: dict[str, Scalar] = field(default_factory=dict)
    stages: Sequence[StageTimes] = ()
    stages_before: Sequence[StageTimes] | None = ()
    links: frozenset[str] = frozenset()
    capacity: float | None = None
    needs: Sequence[Need] = ()
    starved: float | None = None
    recent: RecentRate = field(default_factory=RecentRate)
    weight: float = math.nan
    beat_at: float = -math.inf
    answered_at: float = float("-inf")
    owner: str = ""

    @property
    def is_teacher(self) -> bool:
        return self.register.role == "teacher"

    @property
    def rate(self) -> float:
        """Samples per second that a teacher worker could give; or a student take, of the group of which it
        takes most. NaN if that is not known."""
        if self.is_teacher:
            return math.nan if self.capacity is None else self.capacity
        return max((need.hunger for need in self.needs if need.hunger is not None), default=math.nan)


class Membership:
    """Knows every live member, and for how long each has been silent.

    Owned by the coordinator's main thread. A message costs O(1) and a tick costs O(losses),
    because members are kept in the order in which they were last heard.

    Does not guarantee that a listed member lives: it was heard within ``heartbeat_ttl_s``.

    Args:
        incarnation: name of this coordinator's life, told to every member.
        heartbeat_interval_s: how often members are to be heard.
        heartbeat_ttl_s: silence after which a member counts as lost.
        now: monotonic seconds at the start.
    """

    def __init__(
        self, incarnation: str, heartbeat_interval_s: float, heartbeat_ttl_s: float, now: float
    ) -> None:
        self.incarnation = incarnation
        self.heartbeat_interval_s = heartbeat_interval_s
        self.heartbeat_ttl_s = heartbeat_ttl_s
        self.version = 0
        """Grows with everything that may change who should serve whom."""
        # Invariant: the member that was heard last comes last.
        self._members: OrderedDict[str, Member] = OrderedDict()
        # Invariant: both name every member, by its peer and by its process, and nobody else.
        self._ids: dict[Sender, str] = {}
        self._processes: dict[str, set[str]] = {}
        self._fingerprints = GroupFingerprints()
        self.refusals = Refusals()
        """Who was refused, and why."""
        self.lives = Lives()
        """What is left of members that are gone."""
        # Invariant: no member is in here; who was missed first comes first.
        self._missing: dict[str, float] = {}
        self.inherits = False
        """Whether links of a former coordinator stand here that were weighed by rates not known here yet."""
        # Invariant: true if any member's rate clearly differs from its weight.
        self._weights_changed = False
        self._weigh_at = now + WEIGH_S
        self._last_tick = now
        self._deaf_until = float("-inf")
        self._settle_s = max(heartbeat_ttl_s, 2 * heartbeat_interval_s)
        self._settled_at = now + self._settle_s
        self._settled_by = now + MAX_SETTLES * self._settle_s

    @property
    def members(self) -> Mapping[str, Member]:
        """All members by id, the longest silent first."""
        return self._members

    def validate(self) -> None:
        """Check what holds between any two calls, for tests."""
        assert self._ids == {member.peer: i for i, member in self._members.items()}
        processes: dict[str, set[str]] = {}
        for member_id, member in self._members.items():
            assert member.register.id == member_id
            processes.setdefault(member.register.process, set()).add(member_id)
        assert self._processes == processes
        self._fingerprints.validate(each.register for each in self._members.values() if each.is_teacher)
        heard = [member.last_seen for member in self._members.values()]
        assert heard == sorted(heard), "members are not in the order in which they were heard"
        assert not self._missing.keys() & self._members.keys(), "a member is missed"
        assert list(self._missing.values()) == sorted(self._missing.values())
        changed = any(differs(member.rate, member.weight) for member in self._members.values())
        assert self._weights_changed or not changed, "a change of rates would go unnoticed"

    def of_processes(self, processes: Iterable[str]) -> list[Member]:
        """The members that belong to any of these processes, in the order of their ids."""
        ids = {member_id for name in processes for member_id in self._processes.get(name, ())}
        return [self._members[member_id] for member_id in sorted(ids)]

    @property
    def missing(self) -> Collection[str]:
        """Students that fell silent: dead, or only cut off from here and served all the same."""
        return self._missing.keys()

    def settled(self, now: float) -> bool:
        """Whether everyone who is here had time to say so; until then order no disconnects."""
        return now >= self._settled_at

    def register(
        self, peer: Sender, message: Register, now: float, wall: float, owner: str = ""
    ) -> list[Action]:
        """Take in a member, or the same one again.

        The same process replaces its former record without an event.

        Args:
            peer: the sender.
            message: its registration.
            now: monotonic seconds.
            wall: unix seconds, for records and to compare clocks.
            owner: the name of the key that it proved to have. While a member lives, only that key's own take
                its id.
        """
        reason = self._objection(message)
        if reason is not None:
            self.refusals.add(message, reason, now)
            return [Send(peer, Refused(reason=reason))]
        reason = self._held(message, owner, now)
        if reason is not None:
            return [Send(peer, Refused(reason=reason, held_for_s=self.heartbeat_ttl_s))]
        giving_way: list[Member] = []
        if message.role == "teacher":
            reason = self._fingerprints.objection(message, lambda: self._rolls(message))
            if reason is not None and rejoins(message):
                those = self._fingerprints.giving_way(message, self._rolls(message))
                giving_way = [self._members[member_id] for member_id in those]
        if reason is not None and not giving_way:
            return self._refuse(peer, message, reason, now, wall)
        why = f"worker {message.id} was there before it"
        gone = [self._leave(each.register.id, why, wall) for each in giving_way]
        actions = [*self._take_in(peer, message, now, wall), *gone]
        self._members[message.id].owner = owner
        for each in giving_way:
            reason = self._fingerprints.objection(each.register) or ""
            actions += self._refuse(each.peer, each.register, reason, now, wall)
        return actions

    def _refuse(self, peer: Sender, message: Register, reason: str, now: float, wall: float) -> list[Action]:
        """Tell a worker that it does not belong to its group."""
        self.refusals.add(message, reason, now)
        refusal = Refused(reason=reason, incompatible=True)
        return [Send(peer, refusal), Record(refused(message, reason, wall))]

    def _take_in(self, peer: Sender, message: Register, now: float, wall: float) -> list[Action]:
        actions: list[Action] = []
        known = self._members.get(message.id)
        if known is not None and known.register.process != message.process:
            if now - known.last_seen < self.heartbeat_ttl_s:
                actions.append(self._leave(message.id, "its next start took its place", wall))
            else:  # not ticked away yet: its successor is quicker than the tick
                actions.append(self._lose(message.id, now, wall))
            known = None
        former = self._ids.get(peer)
        if former is not None and former != message.id:
            actions.append(self._leave(former, f"its connection registered as {message.id}", wall))
        actions.insert(
            0,
            Send(
                peer,
                Registered(
                    incarnation=self.incarnation,
                    heartbeat_interval_s=self.heartbeat_interval_s,
                    heartbeat_ttl_s=self.heartbeat_ttl_s,
                    wall_s=wall,
                    asked_wall_s=message.wall_s,
                ),
            ),
        )
        self.version += 1
        self._missing.pop(message.id, None)
        self.refusals.let_in(message.id)
        if known is not None:
            if known.peer != peer:
                del self._ids[known.peer]
            provisional = self._fingerprints.is_provisional(message.id)
            self._fingerprints.left(known.register)
            self._fingerprints.joined(message, provisional)
            known.peer = peer
            known.register = message
            self._ids[peer] = message.id
            self._touch(message.id, now)
            return actions
        links = frozenset(message.links) if message.role == "teacher" else frozenset()
        member = Member(peer, message, joined_at=now, last_seen=now, links=links)
        member.stages_before = None if rejoins(message) else ()
        self._members[message.id] = member
        self.lives.joined(message, rejoins(message))
        self._processes.setdefault(message.process, set()).add(message.id)
        self._fingerprints.joined(message, provisional=not (rejoins(message) or self.settled(now)))
        self._ids[peer] = message.id
        if now < self._settled_at and rejoins(message):
            self.inherits = True
            # More of a former coordinator's members are still on their way.
            self._settled_at = max(self._settled_at, min(now + self._settle_s, self._settled_by))
        actions.append(Record(joined(message, wall)))
        return actions

    def heard(self, peer: Sender, now: float) -> None:
        """Count any message of a peer as a sign of life."""
        member_id = self._ids.get(peer)
        if member_id is not None:
            self._touch(member_id, now)

    def vouched(self, peer: Sender, message: Vouch, now: float) -> None:
        """Count what a process says beside a member as a sign of the member's life."""
        member = self._members.get(message.id)
        if member is None or member.register.process != message.process or member.peer.key != peer.key:
            return
        self._touch(message.id, now)

    def heartbeat(self, peer: Sender, message: Heartbeat, now: float) -> list[Action]:
        """Note a member's figures; a stranger is told to register."""
        if self._ids.get(peer) != message.id:
            return [Send(peer, Unknown())]
        member = self._members[message.id]
        member.stats, member.stages, member.beat_at = message.stats, message.stages, now
        if member.stages_before is None:
            member.stages_before = message.stages
        if [need.oldest for need in member.needs] != [need.oldest for need in message.needs]:
            self.version += 1
        member.capacity, member.needs, member.starved = message.capacity, message.needs, message.starved
        self._weights_changed |= differs(member.rate, member.weight)
        member.recent.see(member.stats.get("samples"), now)
        self._touch(message.id, now)
        here = self._fingerprints.groups
        if here and not all(name in here for name in member.register.teachers):
            return [Send(peer, TeachersHere(groups=sorted(here)[:MOST_GROUPS_TOLD]))]
        return []

    def goodbye(self, peer: Sender, message: Goodbye, wall: float) -> list[Action]:
        """Forget a member that leaves on purpose; a stranger's goodbye means nothing."""
        if self._ids.get(peer) != message.id:
            return []
        return [self._leave(message.id, message.reason, wall)]

    def hung_up(self, until: float) -> None:
        """This side ended all connections: until then members link up again, and silence does not count."""
        self._deaf_until = until

    def tick(self, now: float, wall: float) -> list[Action]:
        """Forget members that have been silent for ``heartbeat_ttl_s``.

        Silence counts only while this side listened: after a stop of the coordinator itself
        (suspended, starved of CPU) its members' heartbeats still wait in its own socket.
        """
        away_s = now - self._last_tick
        self._last_tick = now
        if self.settled(now):
            self._fingerprints.settle()
        if away_s > self.heartbeat_ttl_s / 2 or now < self._deaf_until:
            for member in self._members.values():
                member.last_seen = min(now, member.last_seen + away_s)
        if (self._weights_changed or self.inherits) and now >= self._weigh_at:
            self._weigh(now)
        while self._missing and now - next(iter(self._missing.values())) > MISSING_S:
            del self._missing[next(iter(self._missing))]
        silent = [i for i, m in self._silent_for(self.heartbeat_ttl_s, now)]
        if not silent:
            return []
        # Most members gone quiet at once: more likely this side lost its network than that all
        # died. Whoever still serves a student is left alone until everyone had time to return.
        quiet = len(self._silent_for(self.heartbeat_ttl_s / 2, now))
        if quiet > 1 and 2 * quiet > len(self._members):
            self._settled_at = now + self._settle_s
        actions: list[Action] = []
        for member_id in silent:
            group = self._members[member_id].register.group
            actions.append(self._lose(member_id, now, wall))
            actions += self._regroup(group, member_id)
        return actions

    def _weigh(self, now: float) -> None:
        """Let all rates count as they are now. Seldom, since links move with them."""
        self._weights_changed = self.inherits = False
        self._weigh_at = now + WEIGH_S
        for member in self._members.values():
            member.weight = member.rate
        self.version += 1

    def _regroup(self, group: str, lost: str) -> list[Action]:
        """Tell the ranks that train with a lost one: their collectives may wait for it for ever."""
        reason = f"rank {lost} has been silent for {self.heartbeat_ttl_s:g} s"
        order = Regroup(generation=group, lost=lost, reason=reason)
        return [
            Send(member.peer, order)
            for member in self._members.values()
            if group and not member.is_teacher and member.register.group == group
        ]

    def _silent_for(self, seconds: float, now: float) -> list[tuple[str, Member]]:
        silent = []
        for member_id, member in self._members.items():
            if now - member.last_seen < seconds:
                break
            silent.append((member_id, member))
        return silent

    def _rolls(self, message: Register) -> bool:
        """Whether a worker may be of another version than those of its group that are here.

        All students that want the group have to take several. A worker that comes back to a fresh coordinator
        had been let in beside the others by the one before.
        """
        students = [m.register for m in self._members.values() if message.group in m.register.teachers]
        if not students:
            return rejoins(message)
        return all(message.group in student.rolling for student in students)

    def _objection(self, message: Register) -> str | None:
        """Why a registration cannot be taken, or None."""
        if not message.id:
            return "a registration needs an id; it has none"
        if message.role == "teacher" and not message.group:
            return f"teacher worker {message.id} names no teacher group; give it one with --name"
        if message.role == "student" and not message.address:
            return f"student {message.id} names no address at which teacher workers reach it"
        if message.role == "student" and not all(message.teachers):
            return f"student {message.id} wants a teacher with an empty name: {list(message.teachers)}"
        if strange := {each.teacher for each in message.degrade}.difference(message.teachers):
            return f"student {message.id} may be degraded to teacher {min(strange)!r}, which it does not name"
        if message.role == "student" and not message.teachers:
            return f"student {message.id} names no teacher; give the loader teacher=NAME"
        return None

    def _held(self, message: Register, owner: str, now: float) -> str | None:
        """Which other process has the id of a registration; None if none that lives, or it gives way."""
        known = self._members.get(message.id)
        if known is None:
            return None
        same = known.owner == owner  # what a process with another key says of itself is no reason to give way
        if same and known.register.process == message.process:
            return None
        if same and message.attempt > known.register.attempt:
            return None  # as of a host that was cut off, and is back before its successor is here
        silent_s = now - known.last_seen
        if silent_s >= self.heartbeat_ttl_s:
            return None
        host = known.register.host or "an unnamed host"
        return (
            f"id {message.id} is held by pid {known.register.pid} on {host}, heard "
            f"{silent_s:.1f} s ago; start with another id, or stop that process and wait "
            f"{self.heartbeat_ttl_s:g} s (heartbeat_ttl_s)"
        )

    def _touch(self, member_id: str, now: float) -> None:
        self._members[member_id].last_seen = now
        self._members.move_to_end(member_id)

    def _leave(self, member_id: str, reason: str, wall: float) -> Record:
        member = self._remove(member_id)
        return Record(left(member.register, member.stats, reason, wall))

    def _lose(self, member_id: str, now: float, wall: float) -> Record:
        member = self._remove(member_id)
        if not member.is_teacher:
            self._missing[member_id] = now
        return Record(lost(member.register, member.stats, now - member.last_seen, wall))

    def _remove(self, member_id: str) -> Member:
        member = self._members.pop(member_id)
        del self._ids[member.peer]
        of_process = self._processes[member.register.process]
        of_process.remove(member_id)
        if not of_process:
            del self._processes[member.register.process]
        self._fingerprints.left(member.register)
        self.lives.left(
            member.register, member.stats, member.stages, member.stages_before or (), member.last_seen
        )
        self.version += 1
        return member
