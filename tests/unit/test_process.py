"""A process is told by a name of its own, and the supervisor of a node kills by that name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from edldist.observe.health import Health
from edldist.wire.messages import NodeStatus
from edldist.wire.process import PROCESS_VARIABLE, process_id
from edldist_launch.node.notes import RankNotes
from edldist_launch.node.ranks import NodeRanks
from edldist_launch.node.watch import NodeWatch
from edldist_launch.process.tie import start_ticks, tied_command

SHOW = "from edldist.wire.process import process_id; print(process_id())"


def name_in(environment: dict[str, str], *command: str) -> str:
    found = subprocess.run(command, env=os.environ | environment, capture_output=True, check=True, text=True)
    return found.stdout.strip()


def test_the_name_is_the_same_for_a_life_and_another_in_another_process() -> None:
    assert process_id() == process_id()
    names = {process_id(), *(name_in({}, sys.executable, "-c", SHOW) for _ in range(2))}
    assert len(names) == 3 and {len(name) for name in names} == {32}


def test_a_forked_child_has_a_name_of_its_own_whoever_held_the_lock() -> None:
    """Run in a process of its own, which forks while another of its threads asks again and again."""
    script = """
import os, threading
from edldist.wire.process import process_id
parent, end = process_id(), threading.Event()
threading.Thread(target=lambda: [process_id() for _ in iter(end.is_set, True)]).start()
names = []
for _ in range(20):
    out, into = os.pipe()
    if os.fork() == 0:
        os.write(into, process_id().encode())
        os._exit(0)
    os.wait()
    names.append(os.read(out, 64).decode())
end.set()
assert process_id() == parent
print(len({parent, *names}))
"""
    assert name_in({}, sys.executable, "-W", "ignore::DeprecationWarning", "-c", script) == "21"


def test_a_name_that_was_handed_out_is_for_that_process_only(tmp_path: Path) -> None:
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SHOW!r}])"
    command = tied_command(
        [sys.executable, "-c", f"{SHOW}; sys = __import__('sys'); sys.stdout.flush(); {inner}"],
        parent=os.getpid(),
        notes=str(tmp_path / "notes"),
    )
    own, child = name_in({PROCESS_VARIABLE: f"inherited@{os.getpid()}"}, *command).split()
    kind, name, _, ticks = (tmp_path / "notes").read_text().split()
    assert (kind, name) == ("start", own) and int(ticks) > 0
    assert child not in (own, "inherited") and len(child) == 32


class Rank:
    """An agent (this test's process plays it) with one rank, seen by its node's supervisor."""

    def __init__(self, notes: RankNotes) -> None:
        command = tied_command([sys.executable, "-c", "input()"], parent=os.getpid(), notes=notes.path)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)
        while not notes.read().endswith("\n"):
            assert self.process.poll() is None
        self.name = notes.read().split()[1]

    def ends_well(self) -> bool:
        """Whether nobody killed it: it ends when it is told to."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return self.process.wait(20) == 0

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


class Answers:
    """A coordinator that tells a node of losses, those of other nodes too."""

    def __init__(self) -> None:
        self.lost: list[str] = []

    def node(self, processes: Collection[str], since: int, timeout_s: float) -> NodeStatus:
        return NodeStatus(incarnation="i", ranks=[], lost=list(self.lost), seq=0)

    def close(self) -> None:
        pass


class Agent:
    """This very process, in the place of an agent's."""

    pid = os.getpid()


@pytest.fixture
def notes() -> Iterator[RankNotes]:
    with RankNotes() as made:
        yield made


@pytest.fixture
def rank(notes: RankNotes) -> Iterator[Rank]:
    made = Rank(notes)
    yield made
    made.end()


def look(notes: RankNotes, lost: str) -> None:
    """One look of a supervisor that has looked before, at a process that was lost since."""
    watch, health = NodeWatch(1, 3), Health({})
    node = NodeRanks(Agent(), "tcp://127.0.0.1:9", watch, notes, 0.0, 9.0, health)  # type: ignore[arg-type]
    node._client.close()
    answers = node._client = Answers()  # type: ignore[assignment]
    node._look()
    answers.lost = [lost]
    node._look()


def test_a_frozen_rank_is_killed_whatever_its_container_calls_host_and_pid(
    notes: RankNotes, rank: Rank
) -> None:
    look(notes, rank.name)
    assert rank.process.wait(10) == -9


def test_a_namesake_of_another_container_costs_no_rank_its_life(notes: RankNotes, rank: Rank) -> None:
    """The same host name and the same process id, and frozen: it is not ours."""
    look(notes, "of another container")
    assert rank.ends_well()


def test_a_process_that_was_given_a_rank_s_id_is_left_alone(notes: RankNotes, rank: Rank) -> None:
    pid, ticks = rank.process.pid, start_ticks(rank.process.pid)
    watched = RankNotes()
    with watched, open(watched.path, "a", encoding="utf-8") as book:
        book.write(f"start former {pid} {ticks - 1}\n")
        book.flush()
        look(watched, "former")
    assert rank.ends_well()


def test_names_are_made_once_by_threads_that_ask_at_the_same_time() -> None:
    script = """
import threading
from edldist.wire.process import process_id
barrier, names = threading.Barrier(8), []
def ask():
    barrier.wait()
    names.append(process_id())
threads = [threading.Thread(target=ask) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(names), len(set(names)))
"""
    assert name_in({}, sys.executable, "-c", script) == "8 1"
