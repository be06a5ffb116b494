"""Job scripts: their text, line by line, and what they do when a process is told to leave.

The expected texts lie in ``slurm_scripts``; nothing but a person changes them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from edldist.config import dump_job, load_job
from edldist.errors import ConfigError
from edldist_launch.plan.plan import Plan
from edldist_launch.slurm.layout import Layout
from edldist_launch.slurm.script import Surroundings, render_script
from tests.unit.jobs import FULL, MINIMAL

SCRIPTS = Path(__file__).with_name("slurm_scripts")
WHERE = Surroundings("/home/me/jobs", {"PYTHONUNBUFFERED": "1"}, "/home/me/jobs")
RESOURCES = [
    "teachers.0.resources={cpus: 8, memory: 64GiB, gpus: 1, gpu_type: a100}",
    "student.resources={cpus: 16, memory: 256GiB, gpus: 4}",
    "student.nproc_per_node=gpu",
]


def plan(folder: Path, text: str = MINIMAL, *overrides: str, output: str = "/shared/out/digits") -> Plan:
    (folder / "job.yaml").write_text(text)
    job = load_job(folder / "job.yaml", overrides)
    return Plan(job, Path("/home/me/jobs"), Path(output), ("/opt/edldist/bin/edldist",))


def rendered(made: Plan, role: str) -> str:
    return render_script(made, made.role(role), WHERE)


def options(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]


@pytest.mark.parametrize(
    ("role", "file"),
    [
        ("prepare", "prepare.sh"),
        ("coordinator", "coordinator.sh"),
        ("big", "teacher.big.sh"),
        ("small", "teacher.small.sh"),
        ("student", "student.sh"),
    ],
)
def test_the_scripts_of_a_full_job_are_these(tmp_path: Path, role: str, file: str) -> None:
    made = plan(tmp_path, FULL, *RESOURCES, output="/shared/out/full run")
    assert rendered(made, role) == (SCRIPTS / "full" / file).read_text()


@pytest.mark.parametrize("role", ["coordinator", "teacher", "student"])
def test_the_scripts_of_the_least_job_are_these(tmp_path: Path, role: str) -> None:
    name = "teacher.teacher" if role == "teacher" else role
    assert rendered(plan(tmp_path), role) == (SCRIPTS / "minimal" / f"{name}.sh").read_text()


def test_jobs_of_one_name_in_two_folders_have_two_names_in_the_queue(tmp_path: Path) -> None:
    one, other = (plan(tmp_path, output=f"/shared/{folder}") for folder in ("a", "b"))
    names = {Layout.of(each).queue_name("coordinator", "coordinator") for each in (one, other)}
    assert len(names) == 2 and all(name.startswith("digits-") for name in names)


def test_what_a_role_says_counts_more_than_what_the_job_says(tmp_path: Path) -> None:
    section = "slurm={partition: spot, nice: 5, setup: [one], coordinator: {partition: steady, setup: []}}"
    made = plan(tmp_path, MINIMAL, section)
    coordinator, worker = rendered(made, "coordinator"), rendered(made, "teacher")
    assert {"--partition=steady", "--nice=5"} < set(options(coordinator)) and "\none\n" not in coordinator
    assert {"--partition=spot", "--nice=5"} < set(options(worker)) and "\none\n" in worker


def test_a_role_may_do_without_what_the_whole_job_has(tmp_path: Path) -> None:
    keys = {
        **{"partition": "spot", "account": "lab", "qos": "low", "reservation": "r", "constraint": "a100"},
        **{"gres": "'accel:fast:1'", "time_limit": "'1:00:00'", "python": "/opt/python"},
    }
    whole = ", ".join(f"{key}: {value}" for key, value in keys.items())
    none = ", ".join(f"{key}: ''" for key in keys)
    section = f"slurm={{{whole}, options: [--exclusive], student: {{{none}, options: [], nice: 0}}}}"
    made = plan(tmp_path, MINIMAL, section)
    names = {"time" if key == "time_limit" else key for key in keys} - {"python"} | {"exclusive", "nice"}
    student, worker = rendered(made, "student"), rendered(made, "teacher")
    of_worker = {each.partition("=")[0].removeprefix("--") for each in options(worker)}
    of_student = {each.partition("=")[0].removeprefix("--") for each in options(student)}
    assert names - of_worker == {"nice"} and not names & of_student
    assert "/opt/python" in worker and "/opt/python" not in student
    (tmp_path / "dumped.yaml").write_text(dump_job(made.job))
    assert load_job(tmp_path / "dumped.yaml") == made.job


def test_devices_of_a_role_and_of_the_cluster_are_asked_for_together(tmp_path: Path) -> None:
    resources = "teachers.0.resources={gpus: 2}"
    assert "--gres=gpu:2" in options(rendered(plan(tmp_path, MINIMAL, resources), "teacher"))
    section = "slurm={gres: 'accel:fast:1'}"
    both = rendered(plan(tmp_path, MINIMAL, resources, section), "teacher")
    assert "--gres=gpu:2,accel:fast:1" in options(both)


@pytest.mark.parametrize("output", ['/shared/a"b', "/shared/a\\b", "/shared/a\nb"])
def test_a_folder_that_slurm_cannot_be_told_of_is_refused(tmp_path: Path, output: str) -> None:
    with pytest.raises(ConfigError, match="--output: .* use another name"):
        rendered(plan(tmp_path, output=output), "teacher")


def test_a_percent_sign_in_the_folder_is_not_one_of_slurms_own(tmp_path: Path) -> None:
    said = options(rendered(plan(tmp_path, output="/shared/50%j"), "student"))
    assert "--output=/shared/50%%j/logs/slurm/%x-%A_%a.log" in said


# --- running them -----------------------------------------------------------------------------------

FAKES = {
    "srun": """
trap 'echo USR1 >> "$FAKES/heard"; told=1' USR1
echo "$@" >> "$FAKES/steps"
[ "$*" = "--ntasks=1 --input=none true" ] && exit
echo "$@" > "$FAKES/command"
echo training
: > "$FAKES/started"
while [ -z "${told-}" ] && [ ! -e "$FAKES/end" ] && [ ! -e "$FAKES/told" ]; do sleep 0.02; done
exit "$(cat "$FAKES/code")"
""",
    "scontrol": """
echo "$@" >> "$FAKES/calls"
[ "$1" = show ] && echo "JobId=1 Restarts=$(cat "$FAKES/restarts") Requeue=1"
[ "$1" = requeue ] && [ ! -e "$FAKES/requeues" ] && exit 1
exit 0
""",
    "scancel": """
[ -e "$FAKES/silent" ] && exit 1
echo "$@" >> "$FAKES/heard"
: > "$FAKES/told"
""",
    "sleep": """
[ "$1" = 60 ] || exec /bin/sleep "$@"
: > "$FAKES/slept"
""",
}


WAITS = 'wait() { : > "$FAKES/waits"; builtin wait "$1"; }\n'
"""In front of a script: says when it has come so far that it waits for its step."""


class Running:
    """A script that runs under a Slurm of four commands."""

    def __init__(
        self, folder: Path, role: str = "student", code: int = 143, restarts: int = 0, before: str = WAITS
    ) -> None:
        self.folder = folder
        self.output = folder / "out"
        (self.output / "slurm" / "ended").mkdir(parents=True, exist_ok=True)
        fakes = folder / "fakes"
        fakes.mkdir()
        for name, text in FAKES.items():
            (fakes / name).write_text(f"#!/bin/bash\n{text}")
            (fakes / name).chmod(0o755)
        self.say("code", str(code))
        self.say("restarts", str(restarts))
        self.say("requeues", "")
        made = plan(folder, MINIMAL, output=str(self.output))
        self.process_name = f"{role}-3"
        environment = {
            **{"PATH": f"{fakes}:{os.environ['PATH']}", "FAKES": str(fakes), "SLURM_JOB_ID": "7"},
            **{"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3", "EDLDIST_OUTPUT": "/elsewhere"},
            "SLURM_RESTART_COUNT": str(restarts),
        }
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.said = ""
        self.script = subprocess.Popen(
            ["bash", "-c", before + rendered(made, role)], env=environment, **pipes, text=True
        )

    def say(self, name: str, text: str) -> None:
        (self.folder / "fakes" / name).write_text(text)

    def heard(self, name: str) -> str:
        path = self.folder / "fakes" / name
        return path.read_text() if path.exists() else ""

    def until(self, check: Callable[[], object]) -> None:
        deadline = time.monotonic() + 30
        while not check():
            assert time.monotonic() < deadline and self.script.poll() is None, self.script.stderr
            time.sleep(0.01)

    def started(self) -> Running:
        fakes = self.folder / "fakes"
        self.until(lambda: (fakes / "started").exists() and (fakes / "waits").exists())
        return self

    def ends(self) -> int:
        self.said, trouble = self.script.communicate(timeout=30)
        assert trouble == ""
        return self.script.returncode

    @property
    def left(self) -> str:
        """The exit code that it left behind."""
        path = self.output / "slurm" / "ended" / self.process_name
        return path.read_text().strip() if path.exists() else ""


def test_a_process_that_ends_by_itself_leaves_its_code_and_its_log(tmp_path: Path) -> None:
    running = Running(tmp_path, code=1).started()
    running.say("end", "")
    assert running.ends() == 1 and running.left == "1"
    assert "requeue" not in running.heard("calls")
    assert (running.output / "logs" / "student-3" / "0" / "log").read_text() == "training\n"
    assert "student-3, attempt 0: job 5_3 on " in running.said and "exit code 1" in running.said


def test_each_attempt_has_a_folder_of_its_own(tmp_path: Path) -> None:
    for earlier in ("0", "1", "7"):
        (tmp_path / "out" / "logs" / "student-3" / earlier).mkdir(parents=True)
    running = Running(tmp_path, code=0).started()
    running.say("end", "")
    assert running.ends() == 0
    logs = running.output / "logs" / "student-3"
    assert sorted(path.name for path in logs.iterdir()) == ["0", "1", "2", "7"]
    assert (logs / "2" / "log").exists() and "attempt 2: " in running.said


def test_told_of_a_time_limit_it_tells_its_process_and_is_queued_again(tmp_path: Path) -> None:
    running = Running(tmp_path).started()
    running.script.send_signal(signal.SIGUSR1)
    assert running.ends() == 143
    assert running.heard("heard") == "--signal=TERM 5_3\n"
    assert "requeue 5_3" in running.heard("calls"), "one task, and not its array"
    assert running.left == "" and (tmp_path / "fakes" / "slept").exists()


def test_a_preempted_process_that_was_told_by_slurm_is_queued_again(tmp_path: Path) -> None:
    running = Running(tmp_path).started()
    running.say("end", "")  # Slurm tells steps alone: the script only sees it leave
    assert running.ends() == 143
    assert "requeue 5_3" in running.heard("calls") and running.left == ""


def test_one_that_had_finished_when_it_was_told_is_done(tmp_path: Path) -> None:
    running = Running(tmp_path, code=0).started()
    running.script.send_signal(signal.SIGUSR1)
    assert running.ends() == 0 and running.left == "0"
    assert "requeue" not in running.heard("calls")


@pytest.mark.parametrize("then", [None, signal.SIGUSR1])
def test_told_to_leave_for_good_it_stays_away(tmp_path: Path, then: signal.Signals | None) -> None:
    running = Running(tmp_path).started()
    running.script.send_signal(signal.SIGUSR2)
    if then is not None:  # a preemption comes on top
        running.until(lambda: running.heard("heard"))
        running.script.send_signal(then)
    assert running.ends() == 143 and running.left == "143"
    assert running.heard("heard").startswith("--signal=TERM 5_3\n")
    assert "requeue" not in running.heard("calls")


@pytest.mark.parametrize("code", [0, 1, 143])
def test_its_exit_code_is_known_whatever_bash_says_after_several_signals(tmp_path: Path, code: int) -> None:
    # Of a child that ended while signals were answered, `wait` said -1 or 138 in one of a hundred tries.
    lies = WAITS.replace('$1";', '$1"; return 255;')
    running = Running(tmp_path, code=code, before=lies).started()
    running.script.send_signal(signal.SIGUSR2)
    running.script.send_signal(signal.SIGUSR1)
    assert running.ends() == code and running.left == str(code)


def test_told_just_when_it_has_started_it_is_told_once(tmp_path: Path) -> None:
    after = 'builtin read "$@" || return; [ -n "${sent-}" ] || { sent=1; kill -USR1 $$; }'
    running = Running(tmp_path, before=f"read() {{ {after}; }}\n")
    assert running.ends() == 143
    assert running.heard("heard") == "--signal=TERM 5_3\n"


def test_a_process_that_is_killed_with_all_around_it_has_been_killed(tmp_path: Path) -> None:
    running = Running(tmp_path).started()
    for process in psutil.Process(running.script.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a sleep of the fake, which is over
            process.kill()
    running.script.communicate(timeout=30)
    assert running.script.returncode == 137 and running.left == "137"


def test_a_process_is_told_also_while_slurm_does_not_answer(tmp_path: Path) -> None:
    running = Running(tmp_path).started()
    running.say("silent", "")
    running.script.send_signal(signal.SIGUSR2)
    assert running.ends() == 143 and running.heard("heard") == "USR1\n"


def test_when_slurm_ends_the_job_it_tells_nobody_twice_and_requeues_nothing(tmp_path: Path) -> None:
    running = Running(tmp_path).started()
    running.script.send_signal(signal.SIGTERM)  # which its process got from Slurm, too
    running.say("end", "")
    assert running.ends() == 143 and running.left == "143"
    assert running.heard("heard") == "" and "requeue" not in running.heard("calls")


def test_where_slurm_does_not_requeue_it_the_code_says_what_happened(tmp_path: Path) -> None:
    running = Running(tmp_path).started()
    (tmp_path / "fakes" / "requeues").unlink()
    running.script.send_signal(signal.SIGUSR1)
    assert running.ends() == 143 and running.left == "143"


def test_on_a_host_that_was_written_off_it_touches_nothing_of_its_successor(tmp_path: Path) -> None:
    running = Running(tmp_path).started()
    running.say("restarts", "1")
    running.script.send_signal(signal.SIGUSR1)
    assert running.ends() == 143
    assert "requeue" not in running.heard("calls") and running.left == ""


@pytest.mark.parametrize("restarts", [0, 1, 2, 5])
def test_the_steps_of_two_attempts_in_a_row_have_different_numbers(tmp_path: Path, restarts: int) -> None:
    running = Running(tmp_path, code=0, restarts=restarts).started()
    running.say("end", "")
    running.ends()
    assert len(running.heard("steps").splitlines()) == 1 + restarts % 2


def test_what_it_left_behind_before_is_forgotten_when_it_starts(tmp_path: Path) -> None:
    ended = tmp_path / "out" / "slurm" / "ended"
    ended.mkdir(parents=True)
    (ended / "student-3").write_text("1\n")
    running = Running(tmp_path, code=0).started()
    assert running.left == ""
    running.say("end", "")
    running.ends()


def test_its_process_is_called_by_its_task_and_finds_no_variable_of_the_submitter(tmp_path: Path) -> None:
    running = Running(tmp_path, "teacher", code=0).started()
    running.say("end", "")
    running.ends()
    command = running.heard("command")
    assert command.startswith("--ntasks=1 --input=none /opt/edldist/bin/edldist teacher ")
    assert (
        " --id teacher-3 --attempt 0 " in command
        and f"file:{running.output}/slurm/coordinator.json" in command
    )
