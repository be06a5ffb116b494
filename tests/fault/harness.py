"""Real processes of one job, and faults for them.

Everything is started by ``FaultJob`` and ended by it: each process leads a session of its own, is
tied to the test's life, and is killed with its session at the end. Faults are sent to exactly the
processes that a ``Role`` holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from edldist.wire.messages import Event, Report, Status
from edldist.wire.query import StatusClient
from edldist_launch.process.tie import tied_command

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
EDLDIST = [sys.executable, str(ROOT / "launch" / "__main__.py")]


def wait_for(what: str, check: Callable[[], T], timeout_s: float = 90.0) -> T:
    """Poll until ``check`` returns something true; fails with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(0.01)


def flags(options: Mapping[str, object]) -> list[str]:
    """The words of a command line that give these options."""
    return [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]


@dataclass
class Role:
    """One started process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def send(self, signum: int) -> None:
        """Signal the process; the fault has fired only if it was there to be hit."""
        assert self.alive, f"{self.name} was gone before signal {signum}:\n{self.tail()}"
        os.kill(self.pid, signum)

    def kill(self) -> None:
        """kill -9, and the process is reaped when this returns."""
        self.send(signal.SIGKILL)
        self.process.wait(10)

    def tree(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def ranks(self) -> list[psutil.Process]:
        """The training processes below a student node."""
        found = []
        for process in self.tree():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if any(part.endswith("train.py") for part in command) and "-u" in command[1:2]:
                    found.append(process)
        return found

    def kill_tree(self) -> None:
        """The node is gone: agent, ranks and all, at once."""
        victims = self.tree()
        self.kill()
        for victim in victims:
            with contextlib.suppress(psutil.Error):
                victim.kill()

    def wait(self, timeout_s: float) -> int:
        return self.process.wait(timeout_s)

    def tail(self, lines: int = 40) -> str:
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join(text[-lines:])


def all_records(query: Callable[[int], Status]) -> list[Event | Report]:
    """Every record that a coordinator holds; it tells some thousands at a time, of those after a number."""
    found: list[Event | Report] = []
    status = query(0)
    incarnation = status.incarnation
    while status.records:
        found += status.records
        status = query(status.seq)
        if status.incarnation != incarnation:  # it was started anew, and so are its numbers
            return all_records(query)
    return found


@dataclass
class FaultJob:
    """Coordinator, teachers and students in one folder.

    Attributes:
        moving: every coordinator listens somewhere else, and members find it by its address file.
        trainer: the student's script, in this folder.
        keys: folder of the keys that all roles have.
    """

    folder: Path
    model: str = "tests.fault.teachers:faulty"
    pass_s: float = 0.01
    heartbeat_interval_s: float = 0.5
    heartbeat_ttl_s: float = 1.5
    deterministic: bool = False
    task_size: int | None = None
    checkpoint_every: int = 10
    moving: bool = False
    trainer: str = "train.py"
    keys: Path | None = None
    roles: list[Role] = field(default_factory=list)
    address: str = ""

    def __post_init__(self) -> None:
        self.output = self.folder / "out"
        self.faults = self.folder / "faults"
        for place in (self.output, self.faults, self.folder / "logs"):
            place.mkdir(parents=True, exist_ok=True)

    # --- starting ---------------------------------------------------------------------------

    def coordinator(self, env: dict[str, str] | None = None) -> Role:
        """Start a coordinator; a second one listens where the first one did, unless it moves."""
        ready = self.folder / "coordinator.json"
        ready.unlink(missing_ok=True)
        bind = "tcp://127.0.0.1:0" if self.moving or not self.address else self.address
        role = self._start(
            "coordinator",
            *("coordinator", "--bind", bind, "--http", "127.0.0.1:0"),
            *("--heartbeat-interval-s", str(self.heartbeat_interval_s)),
            *("--heartbeat-ttl-s", str(self.heartbeat_ttl_s), "--address-file", str(ready)),
            env=env,
        )
        wait_for("the coordinator to listen", lambda: ready.exists() or not role.alive)
        assert role.alive, role.tail()
        self.address = json.loads(ready.read_text())["address"]
        return role

    @property
    def place(self) -> str:
        """What members are told of the coordinator."""
        return f"file:{self.folder / 'coordinator.json'}" if self.moving else self.address

    def teacher(
        self, name: str, *, batch_size: int = 10, env: dict[str, str] | None = None, **options: object
    ) -> Role:
        return self._start(
            name,
            *("teacher", "--coordinator", self.place, "--id", name, "--batch-size", str(batch_size)),
            *("--model", self.model, *flags(options)),
            env={"OMP_NUM_THREADS": "1"} | (env or {}),
        )

    def student(
        self,
        name: str = "student",
        *,
        nnodes: str = "1",
        nproc: int = 1,
        run_id: str = "edldist",
        output: Path | None = None,
        env: dict[str, str] | None = None,
        **args: object,
    ) -> Role:
        """Start a student node; ``args`` are flags of its script."""
        settings = {
            "EDLDIST_OUTPUT": str(output or self.output),
            "EDLDIST_CHECKPOINT_EVERY_STEPS": str(self.checkpoint_every),
            "OMP_NUM_THREADS": "1",
        }
        if self.deterministic:
            settings["EDLDIST_DETERMINISTIC"] = "1"
        if self.task_size is not None:
            settings["EDLDIST_TASK_SIZE"] = str(self.task_size)
        (output or self.output).mkdir(exist_ok=True)
        return self._start(
            name,
            *("student", "--coordinator", self.place, "--nnodes", nnodes, "--nproc-per-node", str(nproc)),
            *("--run-id", run_id),
            *(str(ROOT / "tests" / "fault" / self.trainer), *flags(args)),
            env=settings | (env or {}),
        )

    def script(
        self,
        name: str = "student",
        *,
        output: Path | None = None,
        env: dict[str, str] | None = None,
        **args: object,
    ) -> Role:
        """Start one rank without torchrun around it: the role *is* the training process."""
        output = output or self.output
        output.mkdir(exist_ok=True)
        settings = {
            "EDLDIST_COORDINATOR": self.place,
            "EDLDIST_OUTPUT": str(output),
            "EDLDIST_CHECKPOINT_EVERY_STEPS": str(self.checkpoint_every),
            "EDLDIST_DETERMINISTIC": str(int(self.deterministic)),
            "OMP_NUM_THREADS": "1",
        } | ({} if self.task_size is None else {"EDLDIST_TASK_SIZE": str(self.task_size)})
        return self._start(
            name,
            *("-u", str(ROOT / "tests" / "fault" / self.trainer), *flags(args)),
            env=settings | (env or {}),
            program=[sys.executable],
        )

    def _start(
        self, name: str, *command: str, env: dict[str, str] | None = None, program: list[str] | None = None
    ) -> Role:
        log = self.folder / "logs" / f"{name}.log"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")},
            "PYTHONPATH": str(ROOT),
            "EDLDIST_FAULTS": str(self.faults),
            "EDLDIST_TEST_PASS_S": str(self.pass_s),
            "PYTHONUNBUFFERED": "1",
            **({} if self.keys is None else {"EDLDIST_KEYS": str(self.keys)}),
            **(env or {}),
        }
        with log.open("ab") as out:
            process = subprocess.Popen(
                tied_command([*(program or EDLDIST), *command], parent=os.getpid(), signum=signal.SIGKILL),
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=ROOT,
                start_new_session=True,
            )
        role = Role(name, process, log)
        self.roles.append(role)
        return role

    # --- faults that a model acts on ------------------------------------------------------------

    def ask(self, fault: str) -> None:
        """Ask the next forward pass of any ``faulty`` teacher for a fault."""
        (self.faults / f"{fault}.fired").unlink(missing_ok=True)
        (self.faults / fault).touch()

    def fired(self, fault: str) -> bool:
        return (self.faults / f"{fault}.fired").exists()

    def await_fired(self, fault: str, timeout_s: float = 30.0) -> None:
        wait_for(f"fault {fault!r} to fire", lambda: self.fired(fault), timeout_s)

    def culprit(self, fault: str, timeout_s: float = 30.0) -> Role:
        """The teacher worker that acted on a request, as soon as it does."""
        note = self.faults / f"{fault}.fired"
        wait_for(f"fault {fault!r} to fire", lambda: note.exists() and note.read_text(), timeout_s)
        pid = int(note.read_text())
        return next(role for role in self.roles if role.pid == pid)

    @contextlib.contextmanager
    def computing(self) -> Iterator[Role]:
        """A teacher worker in the midst of a forward pass, which ends with the block."""
        over = self.faults / "pause.over"
        over.unlink(missing_ok=True)
        self.ask("pause")
        try:
            yield self.culprit("pause")
        finally:
            over.touch()

    # --- seeing ---------------------------------------------------------------------------------

    def steps(self, output: Path | None = None) -> list[dict]:
        """Every step that any rank took, in time, redone ones too."""
        found = []
        for book in (output or self.output).glob("steps-rank*.jsonl"):
            for line in book.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):  # killed in mid-write
                    found.append(json.loads(line))
        return sorted(found, key=lambda record: record["t"])

    def await_step(self, step: int, timeout_s: float = 60.0, output: Path | None = None) -> None:
        def reached() -> bool:
            students = [r for r in self.roles if "student" in r.name]
            dead = [r for r in students if not r.alive and r.process.returncode not in (0, -9, 143)]
            assert not dead, f"{dead[0].name} ended with {dead[0].process.returncode}:\n{dead[0].tail()}"
            return any(record.get("step", 0) >= step for record in self.steps(output))

        wait_for(f"step {step}", reached, timeout_s)

    def status(self, since: int = 0) -> Status:
        with contextlib.closing(StatusClient(self.address)) as client:
            return client.query(since, timeout_s=10.0)

    def events(self, name: str) -> list[Event]:
        """All of a name that the coordinator holds, in the order in which they came."""
        return [each for each in all_records(self.status) if isinstance(each, Event) and each.event == name]

    def teachers_here(self) -> list[str]:
        return [m.id for m in self.status().members if m.role == "teacher"]

    def await_serving(self, count: int, timeout_s: float = 60.0) -> None:
        """Wait until ``count`` workers are registered."""
        wait_for(f"{count} workers", lambda: len(self.teachers_here()) >= count, timeout_s)

    def finish(self, student: Role, timeout_s: float = 120.0, output: Path | None = None) -> dict:
        """Wait for the student's end and return what it wrote down."""
        code = student.wait(timeout_s)
        assert code == 0, f"the student ended with {code}:\n{student.tail()}"
        return json.loads(((output or self.output) / "done.json").read_text())

    def longest_gap(self, output: Path | None = None, since: float = 0.0, until: float = 1e12) -> float:
        """Longest time between two steps, from the first to the last, or within some unix times."""
        times = [record["t"] for record in self.steps(output) if since <= record["t"] <= until]
        return max((b - a for a, b in zip(times, times[1:], strict=False)), default=0.0)

    def close(self) -> None:
        for role in self.roles:
            victims = role.tree()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(role.pid, signal.SIGKILL)
            role.process.wait(10)
            for victim in victims:
                with contextlib.suppress(psutil.Error):
                    victim.kill()


def assert_exact(done: dict, samples: int, batch_size: int, epochs: int = 1) -> None:
    """The surviving model saw every sample once an epoch, in as many steps as a quiet run takes."""
    assert done["counts"] == [epochs]
    assert done["step"] == epochs * -(-samples // batch_size)


@contextlib.contextmanager
def fault_job(folder: Path, **options: object) -> Iterator[FaultJob]:
    job = FaultJob(folder, **options)  # type: ignore[arg-type]
    try:
        yield job
    finally:
        job.close()
