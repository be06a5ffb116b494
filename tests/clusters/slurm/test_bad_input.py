"""What a real Slurm refuses, or does not live to answer: its own words, and nothing left behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edldist.errors import EdlDistError, LaunchError
from edldist_launch.job.on_slurm import submit_to_slurm
from edldist_launch.slurm.backend import SlurmBackend
from edldist_launch.slurm.commands import SlurmCommands
from edldist_launch.slurm.layout import Layout
from tests.clusters.slurm.cluster import Cluster
from tests.fault.harness import wait_for

pytestmark = pytest.mark.timeout(300)

JOB = """
name: toy
teachers: [{name: t, model: "models:teacher"}]
student: {script: student.py}
slurm: {poll_s: 0.5}
"""


class Submitter:
    """A person with a job folder."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.job, self.output = folder / "job.yaml", folder / "out" / "toy"
        self.job.write_text(JOB)
        (folder / "models.py").write_text("def teacher():\n    return lambda x: x\n")
        (folder / "student.py").write_text("import time\ntime.sleep(600)\n")

    def submit(self, *overrides: str, slurm: SlurmCommands | None = None, dry_run: bool = False) -> None:
        slurm = slurm or self.cluster.slurm()
        submit_to_slurm(self.job, overrides, self.output, slurm=slurm, dry_run=dry_run)

    def queue(self) -> list[str]:
        """Names of its jobs that Slurm has."""
        token = (
            Layout("toy", self.output).queue_name("student", "student").rpartition(".")[0].rpartition("-")[2]
        )
        names = self.cluster.run("squeue", "-h", "-a", "-o", "%j").splitlines()
        return [name for name in names if f"-{token}." in name]


@pytest.fixture
def person(cluster: Cluster, tmp_path: Path) -> Submitter:
    return Submitter(cluster, tmp_path)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("slurm.partition=nowhere", "coordinator: sbatch: invalid partition specified: nowhere; Batch job"),
        ("slurm.teachers={t: {constraint: gold}}", "t: sbatch: .*: Invalid feature specification"),
        ("slurm.student.constraint=fast&slow", "student: sbatch: .*node configuration is not available"),
        ("slurm.student.gres=tpu:1", r"student: sbatch: .*Invalid generic resource \(gres\) specification"),
        ("slurm.student.gres=accel:9", "student: sbatch: .*node configuration is not available"),
        ("slurm.student.reservation=friday", "student: sbatch: .*reservation"),
        ("slurm.student.options=[--exclusve]", "student: sbatch: unrecognized option '--exclusve'"),
    ],
)
def test_what_slurm_refuses_is_said_of_whom_in_its_words(person: Submitter, override: str, says: str) -> None:
    with pytest.raises(LaunchError, match=f"^{says}"):
        person.submit(override)
    assert not person.output.parent.exists() and person.queue() == []
    with pytest.raises(LaunchError, match=f"^{says.partition(':')[0]}: sbatch: "):
        person.submit(override, dry_run=True)
    assert not person.output.parent.exists() and person.queue() == []


def test_what_slurm_would_take_is_tried_and_not_queued(
    person: Submitter, capsys: pytest.CaptureFixture[str]
) -> None:
    person.submit(dry_run=True)
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(": Job ")[0] for line in told] == ["coordinator", "t", "student"]
    assert all(" to start at " in line for line in told)
    assert not person.output.parent.exists() and person.queue() == []


def test_of_two_submissions_at_once_one_gets_through(person: Submitter) -> None:
    refused: list[EdlDistError] = []

    def submit() -> None:
        try:
            person.submit()
        except EdlDistError as exc:
            refused.append(exc)

    both = [threading.Thread(target=submit) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(refused) == 1 and str(person.output) in str(refused[0])
    roles = sorted(name.partition(".")[2] for name in person.queue())
    assert roles[:1] == ["coordinator"] and set(roles) == {"coordinator", "student", "teacher.t"}
    assert (roles.count("student"), roles.count("teacher.t")) == (1, 1)
    SlurmBackend(person.output, slurm=person.cluster.slurm()).stop(0.0)
    assert person.queue() == []


def test_a_run_on_this_machine_leaves_a_queued_job_its_folder(person: Submitter) -> None:
    person.submit()
    queue, record = person.queue(), (person.output / "submission.json").read_bytes()
    for how in ([], ["--detach"]):
        run = f"{sys.executable} -m edldist_launch run {person.job} --output out/toy".split() + how
        done = subprocess.run(
            [*person.cluster.machines["ctl"].place, "env", f"--chdir={person.job.parent}", *run],
            env=person.cluster.environment,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 1
        assert "error: a job runs in out/toy (toy, on slurm): stop it first" in done.stderr
    # Its coordinator may have begun meanwhile, and have queued the one that would take its place.
    assert {*person.queue()} == {*queue} and (person.output / "submission.json").read_bytes() == record
    SlurmBackend(person.output, slurm=person.cluster.slurm()).stop(0.0)
    assert person.queue() == []


def test_what_a_preparation_that_fails_leaves_in_the_queue_is_nothing(person: Submitter) -> None:
    (person.job.parent / "prepare.py").write_text("raise SystemExit(3)\n")
    person.submit("prepare.script=prepare.py")
    backend = SlurmBackend(person.output, slurm=person.cluster.slurm())
    wait_for("the end of its jobs", lambda: not person.queue(), 60.0)
    state = backend.state()
    assert (state.phase, state.reason) == ("failed", "the preparation failed (exit code 3)")
    began = {path.name for path in (person.output / "logs").iterdir()}
    assert began == {"slurm", "prepare"}


@pytest.mark.slow
def test_a_controller_that_vanishes_in_mid_submit_leaves_nothing_that_starts_or_stays(
    person: Submitter,
) -> None:
    slurm = person.cluster.slurm()
    submit = slurm.submit

    def vanish(script: Path, *options: str) -> str:
        if script.stem == "student":
            person.cluster.stop_controller()
        return submit(script, *options)

    slurm.submit = vanish  # type: ignore[method-assign]
    with pytest.raises(LaunchError, match="^student: sbatch: .*Jobs of it may be left in the queue, on hold"):
        person.submit(slurm=slurm)
    with pytest.raises(LaunchError, match="squeue: .*contact slurm controller"):
        person.submit()
    person.cluster.start_controller()
    person.cluster.await_hosts()
    person.submit()
    state = SlurmBackend(person.output, slurm=person.cluster.slurm()).state
    wait_for("the job", lambda: state().phase == "running", 60)
    roles = sorted(name.partition(".")[2] for name in person.queue())
    assert roles in (["coordinator"] * count + ["student", "teacher.t"] for count in (1, 2)), "one waits"
    SlurmBackend(person.output, slurm=person.cluster.slurm()).stop(0.0)
    assert person.queue() == []


def test_a_name_may_be_as_long_as_names_are(person: Submitter) -> None:
    person.submit(f"name={'a.b_c-' * 16}")
    SlurmBackend(person.output, slurm=person.cluster.slurm()).stop(0.0)
    assert person.queue() == []
