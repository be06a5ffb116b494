"""The coordinator's pure cores under any sequence of calls: their invariants hold between any two."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edldist.coordinator.links.link_graph import LinkGraph
from edldist.coordinator.members.membership import Action, Membership, Record, Send
from edldist.wire.messages import Goodbye, Heartbeat, Need, Refused, Unknown
from tests.unit.members import WALL, student, teacher

IDS = ("t1", "t2", "s1", "s2", "s3")
ids = st.sampled_from(IDS)
peers = st.sampled_from([f"peer-{n}".encode() for n in range(6)])
processes = st.sampled_from(["p1", "p2", "p3"])
groups = st.sampled_from(["", "g1", "g2"])
figures = st.integers(0, 1000) | st.sampled_from([None, True, "many", float("nan")])


class MembershipMachine(RuleBasedStateMachine):
    """Registrations, heartbeats, goodbyes and silences of a few members, connections and processes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.members = Membership("life", heartbeat_interval_s=1.0, heartbeat_ttl_s=3.0, now=0.0)
        self.here: set[str] = set()  # by the events alone
        self.version = 0

    def take(self, actions: list[Action], changes: bool) -> None:
        for action in actions:
            if not isinstance(action, Record) or action.event.event == "teacher_refused":
                continue
            member_id = str(action.event.fields["id"])
            _, _, what = action.event.event.partition("_")
            if what == "joined":
                assert member_id not in self.here, f"{member_id} joined twice"
                self.here.add(member_id)
            else:
                assert what in ("left", "lost") and member_id in self.here
                self.here.remove(member_id)
            assert changes
        assert self.members.version >= self.version
        self.version = self.members.version

    @rule(
        member_id=ids,
        peer=peers,
        process=processes,
        group=st.sampled_from(["", "g1", "g2"]),
        rejoin=st.booleans(),
    )
    def register(self, member_id: str, peer: bytes, process: str, group: str, rejoin: bool) -> None:
        info = {"rejoin": rejoin}
        if member_id.startswith("t"):
            message = teacher(member_id, process=process, info=info)
        else:
            message = student(member_id, process=process, group=group, info=info)
        known = self.members.members.get(member_id)
        actions = self.members.register(peer, message, self.now, WALL)
        self.take(actions, changes=True)
        refused = any(isinstance(a, Send) and isinstance(a.message, Refused) for a in actions)
        if refused:
            assert known is not None and self.members.members[member_id] is known
        else:
            member = self.members.members[member_id]
            assert (member.peer, member.register, member.last_seen) == (peer, message, self.now)

    @rule(member_id=ids, peer=peers, samples=figures, seconds=figures)
    def heartbeat(self, member_id: str, peer: bytes, samples: Any, seconds: Any) -> None:
        stats = {"samples": samples, "starved_s": seconds}
        actions = self.members.heartbeat(peer, Heartbeat(id=member_id, stats=stats), self.now)
        member = self.members.members.get(member_id)
        if member is not None and member.peer == peer:
            assert not actions and member.last_seen == self.now
        else:
            assert actions == [Send(peer, Unknown())]

    @rule(member_id=ids, peer=peers)
    def goodbye(self, member_id: str, peer: bytes) -> None:
        self.take(self.members.goodbye(peer, Goodbye(id=member_id, reason="done"), WALL), changes=True)

    @rule(peer=peers)
    def heard(self, peer: bytes) -> None:
        self.members.heard(peer, self.now)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 1.6, 40.0, 4000.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.members.tick(self.now, WALL + self.now), changes=True)
        assert all(self.now - m.last_seen < 3.0 for m in self.members.members.values())

    @rule()
    def silence(self) -> None:
        """Long enough for all, in steps in which the coordinator listens."""
        for _ in range(4):
            self.tick(1.0)
        assert not self.here

    @precondition(lambda self: self.here)
    @rule(data=st.data(), rate=st.floats(0.1, 100) | st.none())
    def work(self, data: st.DataObject, rate: float | None) -> None:
        """A member says what it could give, or take."""
        member_id = data.draw(st.sampled_from(sorted(self.here)))
        member = self.members.members[member_id]
        self.now += 0.25
        if member.is_teacher:
            beat = Heartbeat(id=member_id, capacity=rate)
        else:
            beat = Heartbeat(id=member_id, needs=[Need(group="big", hunger=rate, lacking=1, buffered=0)])
        self.members.heartbeat(member.peer, beat, self.now)

    @precondition(lambda self: self.here)
    @rule()
    def find_by_process(self) -> None:
        for process in ("p1", "p2", "p3"):
            found = {m.register.id for m in self.members.of_processes([process])}
            assert found == {i for i, m in self.members.members.items() if m.register.process == process}

    @invariant()
    def holds_together(self) -> None:
        self.members.validate()
        assert set(self.members.members) == self.here


class GraphMachine(RuleBasedStateMachine):
    """Links made at will, then solved, again and again."""

    WORKERS, STUDENTS, DEGREE = 4, 7, 3

    def __init__(self) -> None:
        super().__init__()
        self.graph = LinkGraph([64, 64, 200, 16], [64, 64, 64, 10, 300, 64, 64], self.DEGREE)

    @rule(w=st.integers(0, WORKERS - 1), s=st.integers(0, STUDENTS - 1))
    def link(self, w: int, s: int) -> None:
        if s not in self.graph.served[w]:
            self.graph.link(w, s)

    @rule(w=st.integers(0, WORKERS - 1), s=st.integers(0, STUDENTS - 1))
    def unlink(self, w: int, s: int) -> None:
        if s in self.graph.served[w]:
            self.graph._unlink(w, s)

    @rule(balance=st.booleans())
    def solve(self, balance: bool) -> None:
        self.graph.solve(balance)
        assert all(len(served) == self.DEGREE for served in self.graph.served)
        assert set().union(*self.graph.served) == set(range(self.STUDENTS))
        before = [set(served) for served in self.graph.served]
        self.graph.solve(balance)
        assert self.graph.served == before, "a solved graph moves"

    @invariant()
    def holds_together(self) -> None:
        self.graph.validate()


TestMembershipMachine = MembershipMachine.TestCase
TestMembershipMachine.settings = settings(max_examples=80, stateful_step_count=40)
TestGraphMachine = GraphMachine.TestCase
TestGraphMachine.settings = settings(max_examples=80, stateful_step_count=40)
