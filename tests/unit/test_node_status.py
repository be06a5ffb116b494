"""A node asks about its own ranks, and is answered with these alone, whatever the size of the job."""

from __future__ import annotations

import pytest

from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.server import Coordinator
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import Heartbeat, NodeQuery, NodeStatus, Register, encode
from tests.unit.members import student, teacher

WALL = 1_700_000_000.0


def coordinator(members: int = 0) -> Coordinator:
    """With the two ranks of one node, and so many others."""
    made = Coordinator(CoordinatorOptions(http=None), MemoryTransport())
    for number in range(2):
        join(made, student(f"own-{number}", process=f"p-{number}"))
    for number in range(members):
        join(made, student(f"s-{number}", process=f"q-{number}", teachers=["big"]))
        join(made, teacher(f"t-{number}", process=f"w-{number}"))
    return made


def join(made: Coordinator, register: Register) -> None:
    peer = register.id.encode()
    made._act(made._members.register(peer, register, 0.0, WALL))
    stats = {"batches": 7, "epoch": 1, "epoch_samples": 640, "starved_s": 0.25}
    made._members.heartbeat(peer, Heartbeat(id=register.id, stats=stats), 0.0)


@pytest.fixture(autouse=True)
def unconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Coordinator, "_send", lambda *args: True)


def ask(made: Coordinator, since: int = 0, processes: tuple[str, ...] = ("p-0", "p-1")) -> NodeStatus:
    return made._view.of_node(NodeQuery(processes=list(processes), since=since))


def test_the_answer_does_not_grow_with_the_job() -> None:
    alone, crowded = coordinator(), coordinator(members=500)
    small, large = ask(alone), ask(crowded)
    assert large.ranks == small.ranks and [rank.process for rank in small.ranks] == ["p-0", "p-1"]
    assert small.ranks[0].stats["epoch_samples"] == 640
    assert len(encode(large)) <= len(encode(small)) + 8 < 500
    assert len(encode(crowded._view.whole(0.0, 0))) > 100_000  # what was fetched twice a second


def test_only_what_was_lost_since_is_told_and_only_of_these_ranks() -> None:
    made = coordinator(members=3)
    before = ask(made).seq
    for now in (1.0, 2.0, 3.0, 4.0):
        for member_id in set(made._members.members) - {"own-1", "s-0"}:
            made._members.heartbeat(member_id.encode(), Heartbeat(id=member_id), now)
        made._act(made._members.tick(now, WALL + now))
    after = ask(made, before)
    assert after.lost == ["p-1"] and [rank.process for rank in after.ranks] == ["p-0"]
    assert after.seq > before and ask(made, after.seq).lost == []
    assert ask(made, before, ("p-0",)).lost == []
    assert ask(made, after.seq + 1_000).lost == []  # numbered by a former coordinator


def test_loaders_of_one_process_are_told_apart_and_workers_are_none_of_its_ranks() -> None:
    made = coordinator()
    join(made, student("own-2", process="p-0"))
    join(made, teacher("t", process="p-0"))
    assert [rank.process for rank in ask(made, processes=("p-0", "p-9")).ranks] == ["p-0", "p-0"]
    assert ask(made, processes=()).ranks == []
