"""The clock of an elastic agent, when an agent is started again, and where ranks leave their notes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

from edldist_launch.agent import EXIT_CLOSED, FOLLOWED_S, SteadyClock, run_on
from edldist_launch.node import AGENT_TRIES, AgentRestarts
from edldist_launch.notes import RankNotes
from edldist_launch.torchrun import torchrun_command

HOUR_S = 3600.0


class Hands:
    """Two clocks that a test moves."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_700_000_000.0, 50.0
        self.clock = SteadyClock(self.wall - self.steady, lambda: self.wall, lambda: self.steady)

    def after(self, seconds: float, jump: float = 0.0) -> float:
        self.steady += seconds
        self.wall += seconds + jump
        return self.clock.now()


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S, 1.5 * FOLLOWED_S])
def test_jumps_of_the_wall_clock_are_ignored_until_it_is_right_again(
    jump_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    hands = Hands()
    start = hands.wall
    assert hands.after(10) == start + 10
    with caplog.at_level(logging.WARNING):
        assert hands.after(10, jump_s) == start + 20
        assert hands.after(10) == start + 30
    assert len(caplog.records) == 1 and f"jumped by {jump_s:.1f} s" in caplog.text
    assert hands.after(10, -jump_s) == start + 40


def test_a_clock_that_is_slewed_is_followed_however_far_it_gets() -> None:
    hands = Hands()
    for _ in range(100):
        assert hands.after(60, jump=FOLLOWED_S / 2) == pytest.approx(hands.wall)


def test_the_rendezvous_reads_the_clock_and_keeps_plain_times(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.elastic.rendezvous import dynamic_rendezvous

    monkeypatch.setattr(dynamic_rendezvous, "datetime", dynamic_rendezvous.datetime)
    hands = Hands()
    run_on(hands.clock)
    hands.after(5, HOUR_S)
    now = dynamic_rendezvous.datetime.now(timezone.utc)  # type: ignore[attr-defined]
    assert type(now) is datetime
    assert now.timestamp() == 1_700_000_005.0


def test_only_agents_of_several_nodes_get_the_clock() -> None:
    elastic = torchrun_command("s.py", [], nnodes="1:4", rendezvous="h:1", ahead_s=12.5)
    assert elastic[1:4] == ["-m", "edldist_launch.agent", "12.5"]
    assert torchrun_command("s.py", [])[1:4] == ["-m", "edldist_launch.agent", "alone"]


HEEDS_ONCE = """
import os, signal
from torch.distributed.elastic.multiprocessing import api
from edldist_launch.agent import heed_once
heed_once()
signal.signal(signal.SIGTERM, api._terminate_process_handler)  # as torch does when it starts ranks
try:
    os.kill(os.getpid(), signal.SIGTERM)
except api.SignalException as first:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(os.getpid(), signum)
    print("asked by", first.sigval.name)
"""


def test_an_agent_heeds_the_first_signal_and_no_other() -> None:
    done = subprocess.run([sys.executable, "-c", HEEDS_ONCE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "asked by SIGTERM\n"), done.stderr


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
        "import sys, time; from launch.notes import RankNotes; notes = RankNotes()\n"
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
