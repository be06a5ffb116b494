"""``edldist run`` as a process: real coordinator, stand-ins for teachers and students.

Every process that a test signals is one that its own run recorded in its events.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edldist.signals import INSIST_AFTER_S
from edldist.wire.query import query_status
from edldist_launch.local.placement import read_placement
from edldist_launch.plan.commands import own_command
from tests.integration.launching import (
    IGNORE_TERM,
    SAVE_ON_TERM,
    Start,
    all_up,
    events,
    folder,
    pids,
    result,
    running,
    start,
    until,
    until_ready,
)

__all__ = ["folder", "start"]  # fixtures

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(autouse=True)
def in_the_foreground() -> Iterator[None]:
    """Jobs heed a terminal, even if these tests run in the background or under nohup, which ignore it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    former_hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, former)
    signal.signal(signal.SIGHUP, former_hangup)


def test_a_completed_job_leaves_its_record_and_no_process(start: Start, folder: Path) -> None:
    job = start(student="import os; print(os.environ['EDLDIST_COORDINATOR'], os.environ['EDLDIST_OUTPUT'])")
    output, _ = job.communicate()
    assert job.returncode == 0, output
    written = result(folder)
    assert (written["status"], written["job"]) == ("completed", "toy")
    assert list(written) == [
        *("status", "job", "steps", "epochs", "samples", "wall_s", "samples_per_s"),
        *(
            "skipped_samples",
            "missed_samples",
            "left_out_samples",
            "spikes",
            "rollbacks",
            "found_samples",
            "coalesced_samples",
            "retracted_labels",
            "doubtful_labels",
            "starved_s",
            "backpressure_s",
            "worker_s",
            "metrics",
            "teachers",
            "tasks",
            "student_restarts",
        ),
    ]
    log = (folder / "out" / "logs" / "student-0.log").read_text()
    assert "tcp://127.0.0.1:" in log
    assert str(folder / "out") in log
    assert not any(running(pid) for pid in pids(folder))
    assert "in out: result.json" in output


def test_a_failing_student_fails_the_job_and_shows_its_last_words(start: Start, folder: Path) -> None:
    job = start(student="raise ValueError('my own trouble')")
    output, _ = job.communicate()
    assert job.returncode == 1
    assert "ValueError: my own trouble" in output
    assert output.endswith("\nerror: the student failed (exit code 1): ValueError: my own trouble\n")
    assert result(folder)["status"] == "failed"
    assert result(folder)["reason"] == "the student failed (exit code 1): ValueError: my own trouble"
    assert not any(running(pid) for pid in pids(folder))


def test_a_teacher_that_cannot_work_fails_the_job_at_once(start: Start, folder: Path) -> None:
    job = start(teacher="import sys; print('error: no such model'); sys.exit(2)")
    output, _ = job.communicate()
    assert job.returncode == 1
    assert output.splitlines()[-1].endswith("cannot work (exit code 2): no such model")
    assert result(folder)["status"] == "failed"
    assert output.splitlines()[-1] == f"error: {result(folder)['reason']}"
    assert not any(running(pid) for pid in pids(folder))


def test_a_teacher_that_dies_by_a_signal_before_it_ever_joins_is_given_up(start: Start, folder: Path) -> None:
    job = start(teacher="import os; print('no room', flush=True); os.kill(os.getpid(), 9)")
    output, _ = job.communicate()
    assert job.returncode == 1
    assert "no room" in output
    assert "cannot work (killed by SIGKILL; it never joined the job in 2 starts)" in output
    assert result(folder)["status"] == "failed"
    assert events(folder, "teacher_restarted") and not any(running(pid) for pid in pids(folder))


ONE_OF_TWO = """
import os, sys, time
try:
    os.close(os.open("taken", os.O_CREAT | os.O_EXCL))
except FileExistsError:
    print("error: this card is broken"); sys.exit(2)
time.sleep(60)
"""


@pytest.mark.parametrize(("least", "code"), [("", 1), ("min_replicas: 1, ", 0)])
def test_a_job_goes_on_without_a_worker_that_cannot_work_if_it_may(
    start: Start, folder: Path, least: str, code: int
) -> None:
    text = (folder / "job.yaml").read_text()
    (folder / "job.yaml").write_text(text.replace("replicas: 2", f"{least}replicas: 2"))
    student = "import pathlib, time\nwhile not pathlib.Path('enough').exists(): time.sleep(0.05)"
    job = start(teacher=ONE_OF_TWO, student=student)
    until(lambda: events(folder, "teacher_hopeless"))
    (folder / "enough").touch()
    output, _ = job.communicate()
    assert job.returncode == code, output
    if code:
        assert "cannot work (exit code 2): this card is broken" in output.splitlines()[-1]
    else:
        said = "teacher teacher goes on with 1 of 2 workers (min_replicas: 1): this card is broken"
        assert said in output
        assert [(event["left"], event["teacher"]) for event in events(folder, "teacher_given_up")] == [
            (1, "teacher")
        ]


def test_a_crashed_teacher_is_restarted_under_a_new_id(start: Start, folder: Path) -> None:
    job = start()
    until(all_up(folder))
    victim = events(folder, "teacher_started")[0]
    os.kill(victim["pid"], signal.SIGKILL)
    (back,) = until(lambda: events(folder, "teacher_restarted"))
    assert back["id"] == f"{victim['id']}.r1"
    assert events(folder, "teacher_crashed")[0]["code"] == -signal.SIGKILL
    job.send_signal(signal.SIGTERM)
    job.communicate()
    assert not running(back["pid"])


def test_a_killed_coordinator_comes_back_at_the_same_address(start: Start, folder: Path) -> None:
    start()
    until(lambda: events(folder, "coordinator_started"))
    first = events(folder, "coordinator_started")[0]
    os.kill(first["pid"], signal.SIGKILL)
    until(lambda: len(events(folder, "coordinator_started")) == 2)
    second = events(folder, "coordinator_started")[1]
    assert second["address"] == first["address"]
    assert second["incarnation"] != first["incarnation"]
    assert query_status(second["address"]).incarnation == second["incarnation"]


@pytest.mark.slow
def test_a_killed_coordinator_is_started_again_and_again_while_its_port_is_taken(
    start: Start, folder: Path
) -> None:
    start()
    until(all_up(folder))
    first = events(folder, "coordinator_started")[0]
    host, _, port = first["address"].removeprefix("tcp://").rpartition(":")
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        os.kill(first["pid"], signal.SIGKILL)
        until(lambda: _listens(squatter, host, int(port)))
        until(lambda: any(event["code"] == 2 for event in _coordinator_ends(folder)))
    until(lambda: len(events(folder, "coordinator_started")) == 2)
    assert events(folder, "coordinator_hopeless") == []


def _listens(squatter: socket.socket, host: str, port: int) -> bool:
    try:
        squatter.bind((host, port))
    except OSError:
        return False
    squatter.listen()
    return True


def _coordinator_ends(folder: Path) -> list[dict[str, Any]]:
    return events(folder, "coordinator_crashed") + events(folder, "coordinator_hopeless")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_job_lets_the_student_save_and_leaves_nothing(
    start: Start, folder: Path, signum: signal.Signals
) -> None:
    job = start(student=SAVE_ON_TERM)
    log = until_ready(folder)
    job.send_signal(signum)
    output, _ = job.communicate()
    assert job.returncode == 130, output
    assert result(folder)["status"] == "interrupted"
    assert log.read_text().endswith("saved\n")
    assert not any(running(pid) for pid in pids(folder))


def test_a_background_job_ignores_ctrl_c_and_ends_everything_on_sigterm(start: Start, folder: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what a shell does for jobs that it starts with &
    job = start(student=SAVE_ON_TERM)
    log = until_ready(folder)
    job.send_signal(signal.SIGINT)
    job.send_signal(signal.SIGTERM)  # would be the second, and kill the student before it has saved
    output, _ = job.communicate()
    assert job.returncode == 130, output
    assert log.read_text().endswith("saved\n")
    assert not any(running(pid) for pid in pids(folder))


def test_a_second_ctrl_c_does_not_wait_for_the_student(start: Start, folder: Path) -> None:
    job = start(student=IGNORE_TERM)
    until_ready(folder)
    begun = time.monotonic()
    job.send_signal(signal.SIGINT)
    until(lambda: _said_stopping(job))
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(INSIST_AFTER_S)
    job.send_signal(signal.SIGINT)  # as a person does, who sees that nothing happens
    job.communicate()
    assert job.returncode == 130
    assert time.monotonic() - begun < 20
    assert not any(running(pid) for pid in pids(folder))


def _said_stopping(job: subprocess.Popen[str]) -> bool:
    assert job.stdout is not None
    return "stopping" in job.stdout.readline()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_wish_that_is_repeated_at_once_is_one_wish(
    start: Start, folder: Path, signum: signal.Signals
) -> None:
    """Slurm sends SIGTERM twice within 10 ms at a time limit; some wrappers double a Ctrl-C."""
    job = start(student=SAVE_ON_TERM)
    log = until_ready(folder)
    for _ in range(3):
        job.send_signal(signum)
        time.sleep(0.005)
    output, _ = job.communicate()
    assert job.returncode == 130, output
    assert log.read_text().endswith("saved\n")
    assert "no checkpoint was saved: the same command starts from the beginning" in output


def test_a_killed_launcher_leaves_nothing_behind(start: Start, folder: Path) -> None:
    job = start()
    until(lambda: len(pids(folder)) == 4)
    children = pids(folder)
    assert all(running(pid) for pid in children)
    job.kill()
    job.wait()
    until(lambda: not any(running(pid) for pid in children))


def test_a_run_after_a_kill_goes_on_in_the_same_folder(start: Start, folder: Path) -> None:
    job = start()
    until(all_up(folder))
    job.kill()
    job.wait()
    again = start(student="pass")
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert len(events(folder, "job_started")) == 2
    assert result(folder)["status"] == "completed"


def test_a_finished_run_stands_until_somebody_says_what_is_wanted(start: Start, folder: Path) -> None:
    def run(*options: str) -> tuple[int, str]:
        job = start(student="print('trained')", env={"BEGINNING": " ".join(options)})
        output, _ = job.communicate()
        return job.returncode, output

    assert run()[0] == 0
    first = (folder / "out" / "result.json").read_bytes()
    code, output = run()
    assert code == 0
    assert "out holds this job's finished run: nothing was started" in output and "completed" in output
    assert (folder / "out" / "result.json").read_bytes() == first
    assert len(events(folder, "job_started")) == 1
    text = (folder / "job.yaml").read_text()
    (folder / "job.yaml").write_text(text.replace("script: s.py", "script: s.py, args: [--lr, 1]"))
    code, output = run()
    assert code == 2 and "student.args[0]: not given -> --lr" in output
    assert (folder / "out" / "result.json").read_bytes() == first
    code, output = run("extend")
    assert code == 0 and "changed since then: student.args[0]: not given -> --lr" in output
    assert [event["difference"] for event in events(folder, "job_changed")][1].endswith("-> 1")
    code, output = run("fresh")
    assert code == 0 and "the earlier run of out is in out/earlier-1 now" in output
    assert len(events(folder, "job_started")) == 1


def test_the_job_file_is_not_replaced_by_the_resolved_job(start: Start, folder: Path) -> None:
    text = (folder / "job.yaml").read_text()
    job = start(env={"OUTPUT": "."})
    output, _ = job.communicate()
    assert job.returncode == 2 and "--output . is the folder of the job file" in output
    assert (folder / "job.yaml").read_text() == text


@pytest.mark.slow
def test_weights_that_the_preparation_makes_beside_the_job_file_are_found(
    start: Start, folder: Path, tmp_path: Path
) -> None:
    jobs, here = folder / "jobs", folder
    jobs.mkdir()
    (jobs / "prepare.py").write_text("from pathlib import Path; Path(__file__).with_name('w.pt').touch()")
    (here / "job.yaml").replace(jobs / "job.yaml")
    (jobs / "job.yaml").write_text(
        "name: toy\nteachers: [{model: 'a:b', weights: w.pt}]\nstudent: {script: s.py}\n"
        "prepare: {script: prepare.py}\n"
    )
    job = start(student="pass", env={"JOB": "jobs/job.yaml"})
    output, _ = job.communicate()
    assert job.returncode == 0, output
    assert f"weights: {jobs / 'w.pt'}\n" in (folder / "out" / "job.yaml").read_text()
    (jobs / "prepare.py").write_text("pass")
    (jobs / "w.pt").unlink()
    job = start(student="pass", env={"JOB": "jobs/job.yaml", "BEGINNING": "fresh"})
    output, _ = job.communicate()
    assert job.returncode == 1 and "teachers[0].weights: no such file or folder: w.pt (looked from" in output


@pytest.mark.parametrize(
    ("code", "status", "exit_code"), [("print('made it')", "completed", 0), ("1/0", "failed", 1)]
)
def test_preparation_comes_first_is_shown_and_may_fail_the_job(
    start: Start, folder: Path, code: str, status: str, exit_code: int
) -> None:
    with (folder / "job.yaml").open("a") as job_file:
        job_file.write("prepare: {script: prepare.py}\n")
    (folder / "prepare.py").write_text(f"import os; print(os.environ['EDLDIST_OUTPUT'])\n{code}\n")
    job = start(student="pass")
    output, _ = job.communicate()
    assert job.returncode == exit_code, output
    assert result(folder)["status"] == status
    assert str(folder / "out") in output
    assert ("made it" if exit_code == 0 else "ZeroDivisionError") in output
    assert "EDLDIST" not in (folder / "out" / "logs" / "prepare.log").read_text()
    assert bool(events(folder, "student_started")) == (exit_code == 0)


def test_a_job_that_is_being_prepared_says_so_to_whoever_asks(start: Start, folder: Path) -> None:
    with (folder / "job.yaml").open("a") as job_file:
        job_file.write("prepare: {script: prepare.py}\n")
    (folder / "prepare.py").write_text(
        "import os, pathlib, time\n"
        "state = pathlib.Path(os.environ['EDLDIST_OUTPUT'], 'state.json')\n"
        "deadline = time.monotonic() + 60\n"
        'while f\'"engine_id": "{os.getpid()}"\' not in (text := state.read_text()):\n'
        "    assert time.monotonic() < deadline, text\n"
        "    time.sleep(0.01)\n"
        "(state.parent / 'seen.json').write_text(text)\n"
    )
    job = start(student="pass")
    output, _ = job.communicate()
    assert job.returncode == 0, output
    seen = json.loads((folder / "out" / "seen.json").read_text())
    assert (seen["phase"], seen["reason"]) == ("pending", "it is being prepared")
    assert [process["phase"] for process in seen["roles"][0]["processes"]] == ["running"]
    last = read_placement(folder / "out")
    assert last is not None and last.role("prepare").processes[0].phase == "succeeded"


def run_whole(folder: Path) -> subprocess.CompletedProcess[str]:
    """The whole real command line, to its end."""
    command = own_command("run", "job.yaml", "--output", "out")
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=150)


@pytest.mark.slow
def test_workers_whose_weights_differ_fail_the_job_with_both_sides_named(folder: Path) -> None:
    """The whole real command line, up to the second worker's refusal."""
    (folder / "a.py").write_text(
        "import torch\ndef b():\n    torch.seed()\n    return torch.nn.Linear(4, 3)\n"
    )
    (folder / "s.py").write_text("import time; time.sleep(60)\n")
    done = run_whole(folder)
    assert done.returncode == 1
    assert "is not the teacher whose name it serves under" in done.stderr
    assert re.search("weights [0-9a-f]{32} instead of [0-9a-f]{32}", done.stderr)
    assert [event["code"] for event in events(folder, "teacher_hopeless")] == [3]
    assert not any(running(pid) for pid in pids(folder))


def test_a_model_that_raises_shows_its_own_traceback(folder: Path) -> None:
    """The whole real command line, up to the teacher's failure."""
    (folder / "a.py").write_text("def b():\n    raise ValueError('my own model')\n")
    (folder / "s.py").write_text("import time; time.sleep(60)\n")
    done = run_whole(folder)
    assert done.returncode == 1
    assert "ValueError: my own model" in done.stderr
    assert "error: teacher worker teacher-" in done.stderr
    assert not any(running(pid) for pid in pids(folder))


@pytest.mark.slow
def test_a_script_that_wants_another_teacher_ends_the_job_at_once(start: Start, folder: Path) -> None:
    (folder / "s.py").write_text(
        "import torch, edldist\n"
        "for _ in edldist.DistillLoader([torch.ones(4, 2)], inputs=lambda b: {'x': b}, teacher='bert'):\n"
        "    pass\n"
    )
    job = start(student="")
    output, _ = job.communicate()
    assert job.returncode == 1
    assert output.splitlines()[-1] == (
        "error: the script wants labels of teacher 'bert', the job has 'teacher': give the loader "
        "teacher='teacher', or a teacher of the job file name: bert"
    )
    assert result(folder)["status"] == "failed"


@pytest.mark.slow
def test_a_job_elsewhere_finds_the_modules_beside_its_file(tmp_path: Path) -> None:
    here, jobs = tmp_path / "here", tmp_path / "jobs"
    for place in (here, jobs):
        place.mkdir()
    (jobs / "beside.py").write_text("def teacher():\n    return lambda x: x\n")
    (here / "common.py").write_text("BATCHES = 3\n")
    (jobs / "script.py").write_text(
        "import torch, edldist, beside, common\n"
        "data = [torch.ones(4, 2)] * common.BATCHES\n"
        "with edldist.DistillLoader(data, inputs=lambda batch: {'x': batch}) as loader:\n"
        "    for batch, labels in loader:\n"
        "        assert torch.equal(labels['logits'], batch)\n"
    )
    (jobs / "prepare.py").write_text("import beside, common\n")
    (jobs / "job.yaml").write_text(
        "name: elsewhere\nteachers: [{model: 'beside:teacher'}]\n"
        "student: {script: script.py}\nprepare: {script: prepare.py}\n"
    )
    done = subprocess.run(
        own_command("run", str(jobs / "job.yaml"), "--output", str(tmp_path / "out")),
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert result(tmp_path)["samples"] == 12
