"""When an agent is started again, and where ranks leave their notes."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edldist_launch.node.agent import EXIT_CLOSED
from edldist_launch.node.notes import RankNotes
from edldist_launch.node.watch import AGENT_TRIES, AgentRestarts

IN_FORKS = """
import os, sys

def in_forks(run, cases):
    for case in cases:  # torch is imported once for all of them
        sys.stdout.flush()
        if not (fork := os.fork()):
            try:
                print(*case, run(*case))
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.waitpid(fork, 0)
"""

HEEDS_ONCE = (
    IN_FORKS
    + """
import itertools, signal
from torch.distributed.elastic.multiprocessing import api
from edldist.signals import ASKING
from edldist_launch.node.agent import heed_once

def first_heeded(name, when):
    heed_once()
    if when == "ready":
        for signum in ASKING:
            signal.signal(signum, api._terminate_process_handler)  # as torch does when it starts ranks
    try:
        os.kill(os.getpid(), getattr(signal, name))
    except api.SignalException as first:
        for signum in ASKING:
            os.kill(os.getpid(), signum)
        return first.sigval.name

in_forks(first_heeded, itertools.product(["SIGTERM", "SIGUSR1", "SIGINT"], ["ready", "before"]))
"""
)


def test_an_agent_heeds_the_first_signal_and_no_other_and_ranks_are_asked_by_sigterm() -> None:
    done = subprocess.run([sys.executable, "-c", HEEDS_ONCE], capture_output=True, text=True)
    cases = itertools.product(["SIGTERM", "SIGUSR1", "SIGINT"], ["ready", "before"])
    assert done.stdout.splitlines() == [f"{name} {when} SIGTERM" for name, when in cases], done.stderr


LOST = (
    IN_FORKS
    + """
import signal
from torch.distributed.elastic.multiprocessing import api
from torch.distributed.elastic.multiprocessing.tail_log import TailLog
from edldist_launch.node.agent import ask_first, heed_once
from edldist_launch.node.rendezvous import LoneRendezvous

class Killed:
    def __init__(self, signum):
        self.signum = signum

    def result(self):
        os.kill(os.getpid(), self.signum)

def heeded_later(name):
    node = ask_first(LoneRendezvous("run"), heed_once())
    node.next_rendezvous()
    follower = TailLog("ranks", {}, sys.stderr)
    follower._futs = [Killed(getattr(signal, name))]
    follower.stop()
    try:
        node.next_rendezvous()
    except api.SignalException as again:
        return again.sigval.name

in_forks(heeded_later, [["SIGTERM"], ["SIGUSR1"]])
"""
)


@pytest.mark.slow
def test_a_signal_that_torch_takes_for_a_fault_of_its_own_is_not_lost() -> None:
    """It comes while the logs of ranks that failed are followed to their end, before they start again."""
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["SIGTERM SIGTERM", "SIGUSR1 SIGTERM"], done.stderr
    assert "error in log tailer" in done.stderr


@pytest.mark.parametrize("code", [0, 2, EXIT_CLOSED])
def test_an_agent_that_is_done_or_cannot_start_is_not_started_again(code: int) -> None:
    assert AgentRestarts().ended(code, (0, 0)) is None


@pytest.mark.parametrize("code", [1, -9])
def test_an_agent_that_ends_by_itself_is_started_again_ever_later_and_not_for_ever(code: int) -> None:
    restarts = AgentRestarts()
    delays = [restarts.ended(code, (0, 100)) for _ in range(AGENT_TRIES + 1)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, None]


def test_ranks_that_come_further_refill_the_tries() -> None:
    restarts = AgentRestarts()
    for progress in range(50):
        assert restarts.ended(1, (0, progress)) == 1.0
    assert restarts.ended(1, (0, 49)) == 2.0


def test_notes_are_read_as_they_come_and_leave_no_file(tmp_path: Path) -> None:
    with RankNotes() as notes:
        assert notes.read() == ""
        code = f"open({notes.path!r}, 'a').write('7\\n'); open({notes.path!r}, 'a').write('7 why\\n')"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert notes.read() == "7\n7 why\n"
    with pytest.raises(OSError):
        Path(notes.path).read_text()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs files in memory")
def test_notes_vanish_with_a_killed_supervisor(tmp_path: Path) -> None:
    code = (
        "import sys, time; from edldist_launch.node.notes import RankNotes; notes = RankNotes()\n"
        "open(notes.path, 'a').write('7\\n'); print(notes.path, flush=True); time.sleep(60)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as owner:
        assert owner.stdout is not None
        path = owner.stdout.readline().decode().strip()
        assert Path(path).read_text() == "7\n"
        owner.send_signal(signal.SIGKILL)
        owner.wait(10)
    assert not os.path.exists(path)
    assert os.listdir(tmp_path) == []
