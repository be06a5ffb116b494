"""A rank that has done its work ends with exit code 0, whatever gloo's threads were about to do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edldist.lifecycle import gloo_threads
from edldist.lifecycle.gloo_threads import await_gloo_threads

pytestmark = pytest.mark.timeout(240)

# Gloo's threads run when nobody else wants the only processor, so that the script overtakes them.
_RANK = """
import os, sys
import torch
import torch.distributed as dist
from edldist import losses, should_stop
rank, meeting, loop = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
torch.set_num_threads(1)
dist.all_reduce(torch.ones(1))
exec(loop)
for thread in os.listdir("/proc/self/task"):
    os.sched_setaffinity(int(thread), {min(os.sched_getaffinity(0))})
    with open(f"/proc/self/task/{thread}/comm") as name:
        if name.read().strip() == "pt_gloo_runloop":
            os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
exec(loop)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "loop",
    [
        "should_stop()\nfor _ in range(5): dist.all_reduce(torch.ones(1))",
        "for _ in range(5): should_stop()",
        "for _ in range(5): losses.gather_rows(torch.ones(1))",
        "for _ in range(5): losses.mean_count(torch.ones(1, dtype=torch.bool))",
    ],
    ids=["collectives", "should_stop", "gather_rows", "mean_count"],
)
def test_ranks_that_are_done_do_not_abort(tmp_path: Path, loop: str) -> None:
    for attempt in range(3):
        command = [sys.executable, "-c", _RANK]
        ranks = [
            subprocess.Popen(
                [*command, str(rank), str(tmp_path / f"meeting-{attempt}"), loop],
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            said = [rank.communicate(timeout=150)[1] for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        assert [rank.returncode for rank in ranks] == [0, 0], said


def _named(work) -> threading.Thread:
    """A thread that looks like one of gloo's, and has begun."""
    begun = threading.Event()

    def run() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("pt_gloo_runloop")
        begun.set()
        work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    begun.wait()
    return thread


def test_a_thread_that_still_works_is_awaited() -> None:
    done, end = [], threading.Event()

    def work() -> None:
        until = time.monotonic() + 0.2
        while time.monotonic() < until:
            pass
        done.append(True)
        end.wait()

    thread = _named(work)
    await_gloo_threads()
    assert done
    end.set()
    thread.join()


def test_a_thread_that_ends_meanwhile_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    thread = _named(end.wait)
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda place: iter([place / "1000000000", *listed(place)]))
    assert str(thread.native_id) in dict(gloo_threads._threads())
    end.set()
    thread.join()


def test_threads_that_never_rest_are_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gloo_threads, "_LONGEST_S", 0.3)
    ended: list[bool] = []

    def work() -> None:
        while not ended:
            os.getpid()

    thread = _named(work)
    began = time.monotonic()
    await_gloo_threads()
    assert time.monotonic() - began >= 0.3
    ended.append(True)
    thread.join()


def test_threads_that_sleep_hold_nobody_up() -> None:
    end = threading.Event()
    thread = _named(end.wait)
    began = time.monotonic()
    await_gloo_threads()
    assert time.monotonic() - began < 4.0
    end.set()
    thread.join()
