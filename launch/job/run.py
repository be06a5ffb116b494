"""``edldist run``: one whole job on this machine, from the job file to the result."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edldist.clock import Clock, SystemClock
from edldist.config import JobConfig, ReplicaRange, TeacherConfig
from edldist.errors import ConfigError
from edldist.wire.query import StatusClient
from edldist_launch.job.paths import check_weights, resolve_paths
from edldist_launch.job.resolve import resolve_job, spare_the_job_file
from edldist_launch.job.workers import Workers
from edldist_launch.local.child import Child, describe_exit, end_children
from edldist_launch.local.fleet import Change, Fleet
from edldist_launch.local.last_words import own_error
from edldist_launch.machine.cpu_shares import limit_threads
from edldist_launch.node.student import GRACE_S
from edldist_launch.plan import commands
from edldist_launch.plan.plan import Plan
from edldist_launch.process.exits import EXIT_FAILED, EXIT_INCOMPATIBLE, EXIT_INTERRUPTED, EXIT_USAGE
from edldist_launch.process.importing import add_to_environment
from edldist_launch.process.interrupts import Interrupts
from edldist_launch.record.earlier import Beginning, differences
from edldist_launch.record.folder import OUTPUTS, JobFolder, open_default_folder
from edldist_launch.view.console import PlainConsole, near
from edldist_launch.view.observers import Observers
from edldist_launch.view.progress import show_finished

__all__ = ["JobRun", "run_job"]

TICK_S = 0.25
COORDINATOR_START_S = 30.0
STATUS_TIMEOUT_S = 0.5
STUDENT_GRACE_S = GRACE_S + 5.0  # a node gives its ranks that long, and must be able to kill those that stay
TEACHER_GRACE_S = 10.0
COORDINATOR_GRACE_S = 5.0
EXIT_CODES = {"completed": 0, "failed": EXIT_FAILED, "interrupted": EXIT_INTERRUPTED}
TEACHER_FINAL_CODES = (EXIT_INCOMPATIBLE,)
TEACHER_UNREADY_STARTS = 5
STUDENT_FINAL_CODES = (EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED)


class _Stopped(Exception):
    """The job ends before its students do.

    Args:
        status: failed or interrupted.
        reason: why; for an interrupted job what to do next is added to it.
        child: whose last words say more.
    """

    def __init__(self, status: str, reason: str = "", child: Child | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.child = child


def run_job(
    job_path: Path, overrides: Sequence[str], output: Path | None, beginning: Beginning = "resume"
) -> int:
    """Run a job to its end and return the exit code (0 completed, 1 failed, 130 interrupted).

    Args:
        job_path: the job file.
        overrides: ``key=value``, see ``load_job``.
        output: the folder for everything written; None for the default of this job.
        beginning: what becomes of an earlier run in that folder.

    Raises:
        ConfigError: the job file, a script's path or the output folder is wrong, or this machine has no room
            for so many processes; nothing was started.
    """
    job = resolve_job(job_path, overrides)
    if output is not None:
        spare_the_job_file(job_path, output)
        folder = JobFolder(output, job, beginning)
    else:
        folder = open_default_folder(OUTPUTS, job, beginning)
    with folder, Interrupts() as interrupts:
        console = PlainConsole()
        if folder.finished is not None:
            show_finished(console, folder.path, folder.finished)
            return EXIT_CODES["completed"]
        return JobRun(job, job_path.absolute().parent, folder, interrupts, console).run()


class JobRun:
    """One run of one job. Main thread only; nothing of it outlives the process.

    Args:
        beside: the folder of the job file, from which models and scripts may import.
    """

    def __init__(
        self,
        job: JobConfig,
        beside: Path,
        folder: JobFolder,
        interrupts: Interrupts,
        console: PlainConsole,
        clock: Clock | None = None,
    ) -> None:
        self._plan = Plan(job, beside, folder.path)
        self._folder = folder
        self._interrupts = interrupts
        self._clock = clock or SystemClock()
        self._address = ""
        self._http = "127.0.0.1:0"
        self._client: StatusClient | None = None
        self._student_began: float | None = None
        self._next_look = 0.0
        self._environment = commands.inherited_environment(os.environ)
        self._workers = Workers(job)
        self._given_up: list[str] = []
        self._coordinator = Fleet(self._make_coordinator, ["0"], keep=True)
        self._teachers = Fleet(
            self._make_teacher,
            self._workers.names,
            final=TEACHER_FINAL_CODES,
            unready_starts=TEACHER_UNREADY_STARTS,
        )
        nodes = [str(number) for number in range(self._plan.role("student").replicas.initial)]
        self._students = Fleet(self._make_student, nodes, final=STUDENT_FINAL_CODES)
        self._observers = Observers(job.name, folder, console, len(self._workers), self._clock)

    @property
    def _job(self) -> JobConfig:
        return self._plan.job

    def run(self) -> int:
        """Prepare, start, watch, end, and account for it."""
        self._observers.event("job_started", job=self._job.name, pid=os.getpid())
        self._say_of_earlier()
        status, reason, last_words = "failed", "the launcher itself failed", ""
        try:
            self._prepare()
            self._find_weights()
            with self._observers:
                self._start()
                self._watch()
            status, reason = "completed", ""
        except _Stopped as stop:
            status, reason = stop.status, str(stop)
            if stop.child is not None:
                output = stop.child.output()
                last_words = f"--- the last lines of {stop.child.log_path}:\n{output}\n---"
                reason = ": ".join(part for part in (reason, own_error(output)) if part)
        finally:
            self._end_everything()
            if status == "interrupted":
                reason = "; ".join(part for part in (reason, self._how_to_go_on()) if part)
            trained_s = self._now() - self._student_began if self._student_began is not None else 0.0
            self._observers.finish(status, reason, trained_s, last_words)
        return EXIT_CODES[status]

    # --- starting ---------------------------------------------------------------------------

    def _say_of_earlier(self) -> None:
        """Which folder this is, where nobody named it, and what it holds that this run goes on with."""
        folder, earlier = self._folder, self._folder.earlier
        if folder.set_aside is not None:
            self._observers.say(f"the earlier run of {near(folder.path)} is in {near(folder.set_aside)} now")
        if earlier is None:
            self._observers.say(f"output: {near(folder.path)}")
            return
        step = earlier.checkpoint
        where = (
            f"the checkpoint of step {step}" if step is not None else "the beginning: no checkpoint was saved"
        )
        self._observers.say(f"output: {near(folder.path)}, where an earlier run is gone on with from {where}")
        for difference in differences(earlier.job, self._job):
            self._observers.event("job_changed", difference=difference)
            self._observers.say(f"changed since then: {difference}", "yellow")

    def _find_weights(self) -> None:
        """The preparation may have made weights beside the job file, where nobody looked before."""
        if self._job.prepare is None:
            return
        try:
            job = resolve_paths(self._job, self._plan.beside / "job.yaml")
            check_weights(job, self._plan.beside)
        except ConfigError as exc:
            raise _Stopped("failed", str(exc)) from exc
        self._plan, self._workers = replace(self._plan, job=job), Workers(job)
        self._observers.job(job)

    def _prepare(self) -> None:
        """Run the job's own preparation and show what it prints."""
        prepare = self._job.prepare
        if prepare is None:
            return
        environment = self._environment | {"EDLDIST_OUTPUT": str(self._folder.path)}
        add_to_environment(environment, os.getcwd(), str(self._plan.beside))
        command = commands.prepare_command(sys.executable, prepare)
        child = Child("prepare", command, environment, self._folder.log_path("prepare"))
        self._observers.say(f"preparing: {near(Path(prepare.script))}")
        child.start()
        self._observers.event("prepare_started", pid=child.pid)
        try:
            shown = child.log_start
            while child.running and not self._interrupts.count:
                shown += self._show_output(child, shown)
                time.sleep(0.05)
            if self._interrupts.count:
                self._end([child], TEACHER_GRACE_S)
            self._show_output(child, shown)
        finally:
            child.kill()
        if self._interrupts.count:
            raise _Stopped("interrupted", "stopped while preparing")
        code = child.poll() or 0
        self._observers.event("prepare_finished", code=code)
        if code != 0:
            said = own_error(child.output())
            script = near(Path(prepare.script))
            raise _Stopped(
                "failed",
                f"{script} failed ({describe_exit(code)}){f': {said}' if said else ''}",
            )

    def _show_output(self, child: Child, start: int) -> int:
        """Show what a child's log holds from byte ``start`` on; how much that was."""
        output = child.read_log(start)
        if output:
            self._observers.echo(output)
        return len(output)

    def _start(self) -> None:
        """Coordinator, then teachers and students at the same time."""
        ranks = self._plan.role("student").replicas.initial * self._job.student.ranks
        threads = limit_threads(self._environment, len(self._workers) + ranks)
        if threads is not None:
            self._observers.event("threads", omp_num_threads=threads)
            self._observers.say(
                f"{threads} CPU thread(s) for each of {len(self._workers)} teacher workers and {ranks} "
                "student ranks (set OMP_NUM_THREADS to choose)"
            )
        for teacher in self._job.teachers:
            self._say_of_replicas(teacher)
        self._forget_address_file()
        self._coordinator.start(self._now())
        self._await_coordinator()
        self._client = StatusClient(self._address)
        for change in self._teachers.start(self._now()):
            self._observers.event("teacher_started", id=change.child.id, pid=change.child.pid)
        for change in self._students.start(self._now()):
            self._observers.event("student_started", id=change.child.id, pid=change.child.pid)
        self._student_began = self._now()

    def _say_of_replicas(self, teacher: TeacherConfig) -> None:
        """A range of replicas is for who scales the job; nobody does so on one machine."""
        if isinstance(teacher.replicas, ReplicaRange) and teacher.initial_replicas < teacher.replicas.max:
            count, most = teacher.initial_replicas, teacher.replicas.max
            self._observers.event("replicas", teacher=teacher.name, started=count, max=most)
            self._observers.say(
                f"teacher {teacher.name}: {count} of up to {most} workers. This command does not add more by "
                "itself: write replicas: N to start with N",
                "yellow",
            )

    def _make_coordinator(self, name: str, attempt: int) -> Child:
        # Started again it listens where the first one did: nobody waits to be told, no disk is in the way.
        ready = None if self._address else self._address_file
        bind = self._address or "tcp://127.0.0.1:0"
        command = self._plan.coordinator_command(bind, self._http, address_file=ready)
        return Child("coordinator", command, self._environment, self._folder.log_path("coordinator", name))

    def _make_teacher(self, name: str, attempt: int) -> Child:
        teacher = self._workers[name]
        worker_id = f"{name}.r{attempt}" if attempt else name
        command = self._plan.teacher_command(teacher, worker_id, self._address)
        environment = self._environment | teacher.env
        return Child(worker_id, command, environment, self._folder.log_path("teacher", name))

    def _make_student(self, name: str, attempt: int) -> Child:
        environment = self._environment | self._plan.student_environment(self._address)
        command = self._plan.student_command(self._address)
        return Child(f"student-{name}", command, environment, self._folder.log_path("student", name))

    @property
    def _address_file(self) -> Path:
        return self._folder.path / ".coordinator.json"

    def _forget_address_file(self) -> None:
        with contextlib.suppress(OSError):
            self._address_file.unlink(missing_ok=True)

    def _await_coordinator(self) -> None:
        child = self._coordinator.children[0]
        deadline = self._now() + COORDINATOR_START_S
        while True:
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                ready = json.loads(self._address_file.read_text(encoding="utf-8"))
                self._address, self._http = str(ready["address"]), str(ready["http"])
                self._observers.say(f"coordinator at {self._address}, status at http://{self._http}/status")
                # It could be bound once: should its port be taken when it is started again, that may pass.
                self._coordinator.seen([child.id])
                self._forget_address_file()
                return
            if (code := child.poll()) is not None:
                raise _Stopped("failed", f"the coordinator did not start ({describe_exit(code)})", child)
            if self._interrupts.count:
                raise _Stopped("interrupted", "stopped while starting")
            if self._now() > deadline:
                raise _Stopped(
                    "failed", f"the coordinator was not ready within {COORDINATOR_START_S:.0f} s", child
                )
            time.sleep(0.02)

    # --- watching ---------------------------------------------------------------------------

    def _watch(self) -> None:
        """Until the students end, someone interrupts, or the job turns out hopeless."""
        while not self._students.settled:
            if self._interrupts.count:
                self._observers.say(
                    "stopping: the students save a checkpoint and leave (Ctrl-C again to kill)", "yellow"
                )
                self._end(self._students.children, STUDENT_GRACE_S)
                if all(child.poll() == 0 for child in self._students.children):
                    break  # they had finished
                raise _Stopped("interrupted")
            self._observe()
            self._look_after_children()
            time.sleep(TICK_S)
        self._observe(timeout_s=2.0)

    def _look_after_children(self) -> None:
        now = self._now()
        for change in self._coordinator.tick(now):
            self._note("coordinator", change)
        self._teachers.seen(self._observers.joined() or ())
        for change in self._teachers.tick(now):
            self._note("teacher", change)
            if change.event == "crashed":
                self._observers.crashed(change.child.id)
            if change.event == "hopeless":
                self._do_without(change)
        self._check_groups()
        for change in self._students.tick(now):
            self._note("student", change)
            if change.event == "hopeless" and change.code == EXIT_INTERRUPTED:
                if self._students.settled:
                    raise _Stopped("interrupted", "every student node was asked to leave")
                continue  # a node was taken away; the others train on
            if change.event == "hopeless":
                raise _Stopped("failed", f"the student failed ({describe_exit(change.code)})", change.child)

    def _do_without(self, change: Change) -> None:
        """A worker cannot work: the job goes on if its teacher has enough others, else it ends."""
        teacher = self._workers[change.name]
        self._given_up.append(teacher.name)
        left = teacher.initial_replicas - self._given_up.count(teacher.name)
        if left < teacher.least_workers:
            raise _Stopped("failed", f"teacher worker {_hopeless(change)}", change.child)
        said = own_error(change.child.output())
        self._observers.event(
            "teacher_given_up", id=change.child.id, teacher=teacher.name, left=left, error=said
        )
        self._observers.say(
            f"teacher {teacher.name} goes on with {left} of {teacher.initial_replicas} workers "
            f"(min_replicas: {teacher.least_workers}){f': {said}' if said else ''}",
            "yellow",
        )

    def _check_groups(self) -> None:
        """End a job whose script waits for a teacher that the job does not have, and never will."""
        names = [teacher.name for teacher in self._job.teachers]
        strangers = sorted((self._observers.wanted() or set()) - set(names))
        if not strangers:
            return
        listed, has = ", ".join(map(repr, strangers)), ", ".join(map(repr, names))
        raise _Stopped(
            "failed",
            f"the script wants labels of teacher {listed}, the job has {has}: give the loader "
            f"teacher={names[0]!r}, or a teacher of the job file name: {strangers[0]}",
        )

    def _note(self, role: str, change: Change) -> None:
        """Record and say what became of a child."""
        child = change.child
        name = child.id if child.id.startswith(role) else f"{role} {child.id}"
        if change.event in ("started", "restarted"):
            self._observers.event(f"{role}_{change.event}", id=child.id, pid=child.pid)
            self._observers.say(f"{name} {change.event}")
            return
        self._observers.event(f"{role}_{change.event}", id=child.id, code=change.code, retry_s=change.retry_s)
        if change.event == "stopped":
            self._observers.say(f"{name} finished")
            return
        again = f", again in {change.retry_s:g} s" if change.event == "crashed" else ""
        what = "cannot work" if change.event == "hopeless" else change.event
        self._observers.say(
            f"{name} {what}: {describe_exit(change.code)}{again} ({child.log_path})",
            "yellow",
        )

    def _observe(self, timeout_s: float = STATUS_TIMEOUT_S) -> None:
        self._observers.look(self._client, timeout_s, stopping=self._interrupts.count > 0)

    # --- ending -----------------------------------------------------------------------------

    def _end(self, those: Sequence[Child], grace_s: float) -> None:
        def wait(seconds: float) -> None:
            time.sleep(seconds)
            if self._now() >= self._next_look:
                self._observe()
                self._next_look = self._now() + TICK_S

        self._next_look = self._now()
        end_children(those, grace_s, self._clock, wait, lambda: self._interrupts.count > 1)

    def _end_everything(self) -> None:
        """Students first, then teachers, the coordinator last; nothing stays behind."""
        everyone = [*self._students.children, *self._teachers.children, *self._coordinator.children]
        try:
            self._end(self._students.children, STUDENT_GRACE_S)
            self._observers.students_done()
            self._end(self._teachers.children, TEACHER_GRACE_S)
            if self._client is not None:
                self._observe()
                self._client.close()
                self._client = None
            self._end(self._coordinator.children, COORDINATOR_GRACE_S)
        finally:
            for child in everyone:
                child.kill()
            self._forget_address_file()

    def _how_to_go_on(self) -> str:
        step = self._observers.checkpoint()
        if step is None:
            return "no checkpoint was saved: the same command starts from the beginning"
        return f"the same command goes on from the checkpoint of step {step}"

    def _now(self) -> float:
        return self._clock.monotonic()


def _hopeless(change: Change) -> str:
    """Why a worker is not started again."""
    if change.code == EXIT_INCOMPATIBLE:
        return f"{change.child.id} is not the teacher whose name it serves under"
    tries = f"; it never joined the job in {change.starts} starts" if change.starts > 1 else ""
    return f"{change.child.id} cannot work ({describe_exit(change.code)}{tries})"
