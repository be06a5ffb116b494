"""Commands that are asked to stop, at whatever moment, end soon, with the code and the word for that."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM, SIGUSR1, SIGUSR2

import psutil
import pytest

from edldist.grace import STUDENT_S
from tests.integration.commands import WITHIN_S, edldist, student
from tests.integration.launching import Start, folder, result, start, until
from tests.integration.launching import running as running_process
from tests.integration.members import Running

__all__ = ["folder", "start"]  # fixtures

pytestmark = pytest.mark.timeout(240)

SOON_S = STUDENT_S - 5
"""Nobody waits for who will not come; most of it is a busy machine's."""
NOTHING_SAVED = "asked to stop before the script called edldist.should_stop(): nothing was saved for it"


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    """Children are to heed signals that this process may ignore (under nohup)."""
    former = {number: signal.signal(number, signal.SIG_DFL) for number in (SIGUSR1, SIGUSR2, signal.SIGHUP)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def ask(process: subprocess.Popen[str], number: int = SIGTERM) -> tuple[int, str]:
    """Ask twice within milliseconds, as Slurm does; exit code, and what was said."""
    for _ in range(2):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        time.sleep(0.005)
    began = time.monotonic()
    said = process.communicate(timeout=WITHIN_S)[0]
    assert time.monotonic() - began < SOON_S, said
    return process.returncode, said


def heeds(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def await_file(path: Path) -> None:
    until(path.exists, WITHIN_S)


def below(process: subprocess.Popen[str], *words: str) -> list[psutil.Process]:
    """Processes that this one started whose commands have all these words, as arguments or their ends."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            command = child.cmdline()
            if all(any(part.endswith(word) for part in command) for word in words):
                found.append(child)
    return found


# --- a coordinator -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [SIGTERM, SIGUSR1, SIGUSR2, signal.SIGHUP])
def test_a_coordinator_ends_as_one_that_is_to_be_started_again(tmp_path: Path, number: int) -> None:
    ready = tmp_path / "ready"
    options = ("--bind", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", "--address-file", str(ready))
    with edldist("coordinator", *options) as coordinator:
        await_file(ready)
        code, said = ask(coordinator, number)
    assert code == 143, said
    assert "Traceback" not in said


# --- a student node ------------------------------------------------------------------------------------


def script(folder: Path, body: str) -> str:
    """A training script that touches the file ``up-RANK`` where the body says ``up()``."""
    path = folder / "script.py"
    path.write_text(
        "import os, sys, time\n"
        f"def up(): open({str(folder)!r} + '/up-' + os.environ['RANK'], 'w').close()\n"
        f"{body}"
    )
    return str(path)


@pytest.mark.parametrize("number", [SIGTERM, pytest.param(SIGUSR1, marks=pytest.mark.slow)])
def test_a_script_that_still_prepares_is_ended_at_once_and_that_is_said(tmp_path: Path, number: int) -> None:
    path = script(tmp_path, "up()\ntime.sleep(600)\n")
    with student("tcp://127.0.0.1:9", path) as node:
        await_file(tmp_path / "up-0")
        code, said = ask(node, number)
    assert code == 143, said
    assert NOTHING_SAVED in said and "Traceback" not in said


@pytest.mark.slow
def test_a_script_that_waits_for_other_ranks_is_ended_at_once_too(tmp_path: Path) -> None:
    """In ``init_process_group``, where no handler of Python's would ever run."""
    body = "import torch.distributed as d\nif os.environ['RANK'] == '1': up(); time.sleep(600)\n"
    path = script(tmp_path, f"{body}up(); d.init_process_group('gloo')\n")
    with student("tcp://127.0.0.1:9", "--nproc-per-node", "2", path) as node:
        await_file(tmp_path / "up-0")
        await_file(tmp_path / "up-1")
        code, said = ask(node)
    assert code == 143, said
    assert NOTHING_SAVED in said


@pytest.mark.slow
def test_nobody_waits_for_the_whole_grace_where_only_some_ranks_would_save(tmp_path: Path) -> None:
    """One is in its first should_stop(), the other has not come so far: there will be no checkpoint."""
    body = (
        "import torch.distributed as d\nimport edldist\nd.init_process_group('gloo')\n"
        "if os.environ['RANK'] == '1': up(); time.sleep(600)\n"
        "up(); edldist.should_stop()\n"
    )
    with student("tcp://127.0.0.1:9", "--nproc-per-node", "2", script(tmp_path, body)) as node:
        await_file(tmp_path / "up-0")
        await_file(tmp_path / "up-1")
        time.sleep(1.0)  # it is about to wait for the other
        code, said = ask(node)
    assert code == 143, said
    assert "nothing was saved for this stop" in said


SAVES = """
import edldist
while not edldist.should_stop():
    up()
    time.sleep(0.01)
print("saved", flush=True)
"""


@pytest.mark.slow
def test_a_rank_that_was_asked_alone_has_not_finished_its_script(tmp_path: Path) -> None:
    """Its exit code is 0, and its node would take that for the end of the run."""
    with student("tcp://127.0.0.1:9", script(tmp_path, SAVES)) as node:
        await_file(tmp_path / "up-0")
        (rank,) = below(node, "script.py", "-u")[-1:]
        rank.send_signal(SIGTERM)
        said = node.communicate(timeout=WITHIN_S)[0]
    assert node.returncode == 143, said
    assert "saved" in said and "nothing was saved" not in said


def test_a_tree_that_is_warned_in_any_order_saves(tmp_path: Path) -> None:
    with student("tcp://127.0.0.1:9", script(tmp_path, SAVES)) as node:
        await_file(tmp_path / "up-0")
        for process in reversed([psutil.Process(node.pid), *below(node)]):
            with contextlib.suppress(psutil.Error):
                process.send_signal(SIGUSR1)
            time.sleep(0.05)
        code, said = ask(node, SIGTERM)
    assert code == 143, said
    assert "saved" in said and "starting them again" not in said


@pytest.mark.slow
def test_a_script_whose_work_is_done_when_it_is_asked_has_finished(tmp_path: Path) -> None:
    with student("tcp://127.0.0.1:9", script(tmp_path, "import edldist\nedldist.should_stop()\n")) as node:
        said = node.communicate(timeout=WITHIN_S)[0]
    assert node.returncode == 0, said


def test_a_node_that_looks_for_a_coordinator_leaves(tmp_path: Path) -> None:
    with student("tcp://127.0.0.1:9", "--nnodes", "2", script(tmp_path, "")) as node:
        until(lambda: heeds(node.pid, SIGUSR2), WITHIN_S)
        code, said = ask(node, SIGUSR2)
    assert code == 143, said
    assert "Traceback" not in said


def test_a_node_that_waits_for_others_says_that_it_goes(tmp_path: Path, running: Running) -> None:
    """Its agent has no ranks yet, and torch's would have no handlers before it has."""
    with student(running.address, "--nnodes", "2", script(tmp_path, "")) as node:
        until(lambda: running.coordinator._rendezvous._runs, WITHIN_S)
        (run,) = running.coordinator._rendezvous._runs.values()
        until(lambda: run.nodes, 10)
        code, said = ask(node)
        until(lambda: not run.nodes, 5)
    assert code == 143, said
    assert "Traceback" not in said and "is gone: silent" not in said


# --- a whole job ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [(SIGTERM,), (SIGUSR1, SIGTERM)], ids=["term", "usr1, term"])
def test_a_job_that_is_asked_to_stop_while_it_prepares_was_interrupted(
    start: Start, folder: Path, numbers: tuple[int, ...]
) -> None:
    """The preparation is told first, and is gone before its parent has heard of it."""
    (folder / "prepare.py").write_text("print('up', flush=True)\nimport time\ntime.sleep(600)\n")
    with (folder / "job.yaml").open("a") as job_file:
        job_file.write("prepare: {script: prepare.py}\n")
    job = start()
    log = folder / "out" / "logs" / "prepare.log"
    until(lambda: log.exists() and log.read_text().endswith("up\n"), WITHIN_S)
    (preparing,) = below(job, "prepare.py")
    preparing.send_signal(numbers[0])
    until(lambda: not running_process(preparing.pid), 10)
    for number in numbers:
        job.send_signal(number)
    output, _ = job.communicate(timeout=WITHIN_S)
    assert job.returncode == 130, output
    assert "stopped while preparing" in output
    assert result(folder)["status"] == "interrupted"


def test_a_job_whose_students_were_all_asked_to_stop_was_interrupted(start: Start, folder: Path) -> None:
    job = start(student="import sys, time; print('up', flush=True); time.sleep(600)")
    log = folder / "out" / "logs" / "student-0.log"
    until(lambda: log.exists() and log.read_text().endswith("up\n"), WITHIN_S)
    events = [json.loads(line) for line in (folder / "out" / "events.jsonl").read_text().splitlines()]
    (pid,) = [event["pid"] for event in events if event["event"] == "student_started"]
    os.kill(pid, SIGTERM)
    output, _ = job.communicate(timeout=WITHIN_S)
    assert job.returncode == 130, output
    assert "left, as it was asked to" in output and "every student node was asked to leave" in output


@pytest.mark.slow
def test_a_job_that_leaves_is_over_before_it_is_killed(start: Start, folder: Path) -> None:
    """Though nobody in it does as it is asked."""
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('up', flush=True); time.sleep(600)"
    )
    with (folder / "job.yaml").open("a") as job_file:
        job_file.write("grace: {drain_s: 1, student_s: 3, kill_s: 30}\n")
    job = start(teacher=stubborn, student=stubborn)

    def up() -> bool:
        logs = [log for log in (folder / "out" / "logs").glob("*-*.log") if "coordinator" not in log.name]
        return len(logs) == 3 and all(log.read_text().endswith("up\n") for log in logs)

    until(up, WITHIN_S)
    job.send_signal(SIGTERM)
    began = time.monotonic()
    output, _ = job.communicate(timeout=WITHIN_S)
    took_s = time.monotonic() - began
    assert job.returncode == 130, output
    assert 4.0 <= took_s < 30.0, output
    assert result(folder)["status"] == "interrupted"
