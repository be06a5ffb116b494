"""Checkpoints of running jobs: killed in mid-write, damaged, out of space, in use, of something else."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edldist.wire.messages import Event
from tests.fault.books import STEADY, Plan, assert_as_quiet, hurry, last_step, quiet_run, redone
from tests.fault.harness import FaultJob, Role, fault_job, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

PLAN = Plan(samples=40_000, batch_size=400)
"""Its state is larger than everything else that a rank writes: a limit on file sizes hits it alone."""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return quiet_run(tmp_path_factory.mktemp("quiet"), PLAN, task_size=200)


@contextlib.contextmanager
def job_of(tmp_path: Path, checkpoint_every: int) -> Iterator[FaultJob]:
    options = {"model": STEADY, "deterministic": True, "task_size": 200, "pass_s": 0.0}
    with fault_job(tmp_path, checkpoint_every=checkpoint_every, **options) as job:
        job.coordinator()
        job.teacher("t-0", batch_size=200)
        yield job


def events_since(job: FaultJob, name: str, t: float) -> list[Event]:
    return [event for event in job.events(name) if event.t > t]


def steps_of(events: list[Event]) -> list[int]:
    return [int(event.fields["step"] or 0) for event in events]


# --- killed and damaged ------------------------------------------------------------------------------


def newest(folder: Path) -> list[Path]:
    """The whole checkpoints, newest first."""
    return sorted((p for p in folder.glob("step-*") if "." not in p.name), reverse=True)


def flip_a_bit(checkpoint: Path) -> None:
    file = max(checkpoint.iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


def truncate(checkpoint: Path) -> None:
    file = checkpoint / "state.json"
    os.truncate(file, file.stat().st_size // 2)


def lose_a_file(checkpoint: Path) -> None:
    (checkpoint / "rng-00000.json").unlink()


def kill_while_saving(role: Role, folder: Path, chance: random.Random) -> Path:
    """Kill a rank at a random moment of a save; the draft that it leaves."""
    while True:
        draft = wait_for("a save to begin", lambda: next(iter(folder.glob("step-*.partial-*")), None))
        files = chance.randrange(5)
        with contextlib.suppress(FileNotFoundError):
            while len(os.listdir(draft)) < files and draft.exists():
                pass
        role.send(signal.SIGSTOP)  # look whether the moment was met before the blow falls
        if draft.exists():
            role.kill()
            return draft
        role.send(signal.SIGCONT)  # this save was quicker


def test_a_rank_killed_while_saving_and_a_damaged_checkpoint_cost_only_steps(
    tmp_path: Path, quiet: dict
) -> None:
    chance = random.Random(7)
    with job_of(tmp_path, checkpoint_every=1) as job:
        folder = job.output / "checkpoints"
        role = job.script("student-0", **PLAN.args(job, step_s=0.01))
        for number, damage in enumerate((flip_a_bit, truncate, lose_a_file), start=1):
            job.await_step(last_step(job) + 4)
            draft = kill_while_saving(role, folder, chance)
            assert draft.exists()
            damaged, before = newest(folder)[:2]
            damage(damaged)
            killed = time.time()

            role = job.script(f"student-{number}", **PLAN.args(job, step_s=0.01))
            restored = wait_for("a restore", lambda k=killed: events_since(job, "checkpoint_restored", k))
            assert steps_of(restored) == [int(before.name[5:])]
            reported = wait_for("a report", lambda k=killed: events_since(job, "checkpoint_damaged", k))
            assert steps_of(reported) == [int(damaged.name[5:])]
            assert not draft.exists()
        hurry(job)
        done = job.finish(role)
        assert redone(job) >= 3
        assert_as_quiet(job, done, PLAN, quiet, bitwise=True)


# --- no space ------------------------------------------------------------------------------------------


class Tmpfs:
    """The checkpoints are on a small file system that fills up."""

    def __init__(self, job: FaultJob) -> None:
        self.folder = job.output / "checkpoints"
        self.folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")

    def fail(self, role: Role) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))

    def heal(self, role: Role) -> None:
        (self.folder / "filler").unlink()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=False)


class Limited:
    """No file may grow beyond what a rank writes besides its checkpoints."""

    def __init__(self, job: FaultJob) -> None:
        pass

    def fail(self, role: Role) -> None:
        resource.prlimit(role.pid, resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))

    def heal(self, role: Role) -> None:
        resource.prlimit(role.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def close(self) -> None:
        pass


class Unwritable:
    """The directory is gone for a while, and nobody may make another one. Holds for root too."""

    def __init__(self, job: FaultJob) -> None:
        self.folder = job.output / "checkpoints"
        self.aside = job.output / "aside"

    def fail(self, role: Role) -> None:
        self.folder.rename(self.aside)
        self.folder.touch()

    def heal(self, role: Role) -> None:
        self.folder.unlink()
        self.aside.rename(self.folder)

    def close(self) -> None:
        pass


WORDS = {
    Tmpfs: os.strerror(errno.ENOSPC),
    Limited: os.strerror(errno.EFBIG),
    Unwritable: os.strerror(errno.EEXIST),
}


@pytest.mark.parametrize("kind", [Tmpfs, Limited, Unwritable])
def test_training_goes_on_without_space_and_the_next_interval_saves_again(
    tmp_path: Path, quiet: dict, kind: Callable[[FaultJob], Tmpfs | Limited | Unwritable]
) -> None:
    with job_of(tmp_path, checkpoint_every=5) as job, contextlib.closing(kind(job)) as disk:
        role = job.script(**PLAN.args(job, step_s=0.05))
        wait_for("a checkpoint", lambda: job.events("checkpoint_saved"), 60)
        disk.fail(role)
        failed = wait_for("failures", lambda: (e := job.events("checkpoint_failed"))[1:] and e)
        assert WORDS[kind] in str(failed[0].fields["reason"])  # type: ignore[index]
        disk.heal(role)
        healed = time.time()

        saved = wait_for("a checkpoint", lambda: events_since(job, "checkpoint_saved", healed))
        first = steps_of(saved)[0]
        failures = steps_of(job.events("checkpoint_failed"))
        assert failures == list(range(failures[0], first, 5)), "one report for each attempt"
        assert first - failures[-1] == 5
        hurry(job)
        done = job.finish(role)
        assert redone(job) == 0
        assert_as_quiet(job, done, PLAN, quiet, bitwise=True)


# --- another's, and unusable ----------------------------------------------------------------------------

OTHER = """
import edldist, torch
from torch.utils.data import DataLoader
from tests.fault.train import Ids, Ledger

loader = edldist.DistillLoader(
    DataLoader(Ids({samples}), batch_sampler=edldist.ElasticSampler({samples}, {batch_size})),
    inputs=("id", "x"),
)
model = torch.nn.Sequential(torch.nn.Linear(4, 2, dtype=torch.float64))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
state = {{"model": model, "optimizer": optimizer, "ledger": Ledger({samples})}}
if {with_loader}:
    state["loader"] = loader
step = edldist.Checkpointer().restore(state)
print("went on from", step)
"""


def refused(job: FaultJob, name: str, env: dict[str, str], **options: object) -> str:
    """Run another script on the job's checkpoints, under a supervisor; what it says when it is refused."""
    script = job.folder / f"{name}.py"
    script.write_text(OTHER.format(**PLAN._asdict(), **options))
    env = {"EDLDIST_OUTPUT": str(job.output), "EDLDIST_JOB": "first", "OMP_NUM_THREADS": "1"} | env
    role = job._start(name, "student", "--coordinator", job.address, str(script), env=env)
    assert role.wait(60) == 1, role.tail()
    log = role.log.read_text()
    assert "went on from" not in log
    return log


def test_checkpoints_of_another_job_or_model_and_states_without_position_are_refused(tmp_path: Path) -> None:
    with job_of(tmp_path, checkpoint_every=5) as job:
        env = {"EDLDIST_JOB": "first"}
        first = job.script(env=env, **PLAN.args(job, step_s=0.3))
        job.await_step(6)

        # In use: a second run of the very same job.
        second = job.script("student-second", env=env, **PLAN.args(job))
        assert second.wait(60) == 1
        log = second.log.read_text()
        assert "is in use by another job" in log and f"pid {first.pid} " in log
        assert {record["pid"] for record in job.steps()} == {first.pid}
        hurry(job)
        job.finish(first)

        log = refused(job, "model", {}, with_loader=True)
        assert "does not fit this state" in log and "0.weight" in log
        assert "a restart would not help, giving up" in log
        assert log.count("Traceback") <= 4, "it was restarted again and again"

        log = refused(job, "position", {}, with_loader=False)
        assert "lacks the DistillLoader" in log and "a restart would not help" in log

        log = refused(job, "job", {"EDLDIST_JOB": "second"}, with_loader=True)
        assert "belongs to job 'first'" in log and "'second'" in log

        (tmp_path / "file").touch()
        log = refused(job, "place", {"EDLDIST_OUTPUT": str(tmp_path / "file")}, with_loader=True)
        assert "cannot be used" in log and "a restart would not help" in log
