"""Slurm's commands as they are given, and what becomes of their answers."""

from __future__ import annotations

import getpass
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from edldist.errors import LaunchError
from edldist_launch.slurm.commands import NO_CLUSTER, SlurmCommands, clean_environment
from edldist_launch.slurm.queued import QueuedTask, parse_queue

QUEUE = """\
12|digits-1.coordinator|RUNNING|n1|None
13_0|digits-1.teacher.a|COMPLETING|n2|None
13_1|digits-1.teacher.a|PENDING||(Priority)
14_7|digits-1.student|PENDING||Nodes required for job are DOWN|DRAINED
15|digits-1.coordinator|SUSPENDED|n3|None
16_2|digits-1.student|REQUEUE_HOLD||job requeued in held state
"""


class Answers:
    """Stands for the commands: keeps what is run, and answers as it is told."""

    def __init__(self, stdout: str = "", stderr: str = "", code: int = 0) -> None:
        self.answer = (stdout, stderr, code)
        self.commands: list[list[str]] = []
        self.environment: Mapping[str, str] = {}
        self.error: Exception | None = None

    def __call__(
        self, command: Sequence[str], environment: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        self.commands.append(list(command))
        self.environment = environment
        if self.error is not None:
            raise self.error
        stdout, stderr, code = self.answer
        return subprocess.CompletedProcess(command, code, stdout, stderr)


def test_the_queue_is_read_with_its_phases() -> None:
    tasks = parse_queue(QUEUE.splitlines())
    assert [task.phase for task in tasks] == [
        *("running", "leaving", "pending", "pending", "running", "pending")
    ]
    assert tasks[1] == QueuedTask("13_0", "digits-1.teacher.a", 0, "COMPLETING", "n2")
    assert tasks[0].index is None and tasks[3].index == 7
    assert tasks[2].reason == "(Priority)" and tasks[3].reason == "Nodes required for job are DOWN|DRAINED"
    assert parse_queue(["", "  "]) == []


@pytest.mark.parametrize("line", ["slurm_load_jobs error", "x|a|b|c|d", "1_x|a|b|c|d", "1|a|b|c"])
def test_what_is_no_line_of_the_queue_is_said_as_it_is(line: str) -> None:
    with pytest.raises(LaunchError, match="which is no line of"):
        parse_queue([line])


def test_a_script_is_queued_with_its_options() -> None:
    run = Answers("17;cluster\n")
    assert SlurmCommands(run, {}).submit(Path("/o/a b.sh"), "--hold", "--array=0-3") == "17"
    assert run.commands == [["sbatch", "--parsable", "--hold", "--array=0-3", "/o/a b.sh"]]


def test_a_script_that_is_only_tried_is_told_of_in_slurms_words() -> None:
    run = Answers(stderr="sbatch: Job 17 to start at 2026-01-01T00:00:00 on nodes n1\n")
    said = SlurmCommands(run, {}).try_out(Path("/o/a.sh"), "--array=0")
    assert said == "Job 17 to start at 2026-01-01T00:00:00 on nodes n1"
    assert run.commands == [["sbatch", "--test-only", "--array=0", "/o/a.sh"]]


def test_an_answer_without_an_id_is_no_submission() -> None:
    with pytest.raises(LaunchError, match="'queued!' instead of a job's id"):
        SlurmCommands(Answers("queued!"), {}).submit(Path("a"))


def test_only_this_jobs_of_this_user_are_asked_for() -> None:
    run = Answers(QUEUE)
    assert len(SlurmCommands(run, {}).queue(["a", "b"])) == 6
    (command,) = run.commands
    assert command[:5] == ["squeue", "--noheader", "--array", "--user", getpass.getuser()]
    assert command[5:] == ["--name", "a,b", "--format=%i|%j|%T|%N|%r"]


def test_processes_are_asked_through_their_scripts_and_jobs_cancelled_by_many_at_once() -> None:
    run = Answers()
    slurm = SlurmCommands(run, {})
    slurm.ask(["1_0", "1_1"])
    slurm.cancel([])
    slurm.cancel([str(number) for number in range(1100)])
    assert run.commands[0] == ["scancel", "--batch", "--signal=USR2", "1_0", "1_1"]
    assert [len(command) for command in run.commands[1:]] == [501, 501, 101]


def test_who_has_ended_meanwhile_needs_no_end() -> None:
    gone = "scancel: error: Kill job error on job id 7: Invalid job id specified\n"
    SlurmCommands(Answers(stderr=gone, code=1), {}).cancel(["7"])
    other = gone + "scancel: error: Kill job error on job id 8: Access/permission denied\n"
    with pytest.raises(LaunchError, match="scancel: Kill job error .*; .*Access/permission denied"):
        SlurmCommands(Answers(stderr=other, code=1), {}).cancel(["7", "8"])


@pytest.mark.parametrize(("code", "gone"), [(229, True), (225, True), (1, False)])
def test_scancel_may_say_only_by_its_exit_code_that_a_task_has_ended(code: int, gone: bool) -> None:
    slurm = SlurmCommands(Answers(code=code), {})
    if gone:
        slurm.cancel(["14_0"])
        with pytest.raises(LaunchError, match=f"exit code {code}"):
            slurm.release("14_0")
    else:
        with pytest.raises(LaunchError, match="scancel: exit code 1"):
            slurm.cancel(["14_0"])


def test_a_refusal_is_passed_on_in_slurms_own_words() -> None:
    words = (
        "sbatch: error: invalid partition specified: nope\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n"
    )
    with pytest.raises(LaunchError) as caught:
        SlurmCommands(Answers(stderr=words, code=1), {}).submit(Path("a"))
    assert str(caught.value) == (
        "sbatch: invalid partition specified: nope; "
        "Batch job submission failed: Invalid partition name specified"
    )
    for said in (
        "fatal: Could not establish a configuration source",
        "error: Unable to contact slurm controller",
    ):
        with pytest.raises(LaunchError, match=f"{said.partition(': ')[2]}.* \\({re.escape(NO_CLUSTER)}\\)$"):
            SlurmCommands(Answers(stderr=f"squeue: {said}\n", code=1), {}).queue(["a"])
    with pytest.raises(LaunchError, match="scontrol: exit code 3"):
        SlurmCommands(Answers(code=3), {}).release("1")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (FileNotFoundError("sbatch"), "there is no sbatch here: .* login node"),
        (PermissionError(13, "Permission denied"), "cannot run sbatch: Permission denied"),
        (subprocess.TimeoutExpired("sbatch", 60), "sbatch was not answered by .* within 60 s"),
    ],
)
def test_a_command_that_cannot_be_had_is_named(error: Exception, says: str) -> None:
    run = Answers()
    run.error = error
    with pytest.raises(LaunchError, match=says):
        SlurmCommands(run, {}).submit(Path("a"))


def test_no_variable_overrules_a_script_or_tells_of_another_host() -> None:
    mine = {"PATH": "/bin", "SLURM_CONF": "/etc/s.conf", "HOME": "/h", "EDLDIST_LOG_LEVEL": "debug"}
    others = {
        **{"SBATCH_PARTITION": "x", "SLURM_JOB_ID": "7", "SLURM_MEM_PER_NODE": "1", "SLURMD_NODENAME": "n"},
        **{"EDLDIST_ADVERTISE": "10.0.0.1", "EDLDIST_COORDINATOR": "tcp://a:1"},
    }
    assert clean_environment(mine | others) == mine | {"PYTHONUNBUFFERED": "1"}
