"""``edldist run``: one whole job on this machine, from the job file to the result."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edldist.clock import Clock, SystemClock
from edldist.config import JobConfig, load_job
from edldist.labeller import labels_ahead
from edldist.wire.query import StatusClient
from edldist_launch.contract.backend import JobState, Phase, ProcessState, RoleState
from edldist_launch.job.coordinator import CoordinatorProcess
from edldist_launch.job.leaving import Leaving
from edldist_launch.job.nodes import StudentNodes
from edldist_launch.job.preparation import prepare
from edldist_launch.job.resolve import Load, resolve_job, spare_the_job_file
from edldist_launch.job.scaling import Scaling
from edldist_launch.job.stopped import Stopped
from edldist_launch.job.submitting import refuse_taken_by_a_cluster
from edldist_launch.job.teachers import TeacherWorkers
from edldist_launch.local.child import Child, end_children
from edldist_launch.local.last_words import own_error
from edldist_launch.local.placement import Placement
from edldist_launch.machine.cpu_shares import limit_threads
from edldist_launch.machine.room import most_processes
from edldist_launch.plan import commands
from edldist_launch.plan.plan import Plan
from edldist_launch.process.exits import EXIT_FAILED, EXIT_INTERRUPTED
from edldist_launch.process.interrupts import Interrupts
from edldist_launch.record.earlier import Beginning, differences
from edldist_launch.record.folder import OUTPUTS, JobFolder, open_default_folder
from edldist_launch.track.opening import feed_of
from edldist_launch.view.console import PlainConsole, near
from edldist_launch.view.observers import Observers
from edldist_launch.view.progress import Doing, show_finished

__all__ = ["JobRun", "run_job"]

TICK_S = 0.25
STATUS_TIMEOUT_S = 0.5
EXIT_CODES = {"completed": 0, "failed": EXIT_FAILED, "interrupted": EXIT_INTERRUPTED}


def run_job(
    job_path: Path,
    overrides: Sequence[str],
    output: Path | None,
    beginning: Beginning = "resume",
    beside: Path | None = None,
    quiet: bool = False,
    load: Load = load_job,
) -> int:
    """Run a job to its end and return the exit code (0 completed, 1 failed, 130 interrupted).

    Args:
        job_path: the job file.
        overrides: ``key=value``, see ``load_job``.
        output: the folder for everything written; None for the default of this job.
        beginning: what becomes of an earlier run in that folder.
        beside: the folder from which models and scripts may import; None for that of the job file.
        quiet: show neither progress nor the result; warnings and errors go to standard error all the same.
        load: reads the job file.

    Raises:
        ConfigError: the job file, a script's path or the output folder is wrong, or this machine has no room
            for so many processes; nothing was started.
        LaunchError: a job on a cluster goes on in that folder; nothing was started.
    """
    job = resolve_job(job_path, overrides, load)
    if output is not None:
        spare_the_job_file(job_path, output)
        folder = JobFolder(output, job, beginning, refuse_taken_by_a_cluster)
    else:
        folder = open_default_folder(OUTPUTS, job, beginning, refuse_taken_by_a_cluster)
    with folder, Interrupts() as interrupts:
        console = PlainConsole(quiet=quiet)
        if folder.finished is not None:
            show_finished(console, folder.path, folder.finished, _doing(job))
            return EXIT_CODES["completed"]
        beside = (beside or job_path.parent).absolute()
        extend = beginning == "extend"
        return JobRun(job, beside, folder, interrupts, console, extend=extend).run()


class JobRun:
    """One run of one job. Main thread only; nothing of it outlives the process.

    Args:
        beside: the folder of the job file, from which models and scripts may import.
        extend: whether the job goes on from a checkpoint whatever has changed since.
    """

    def __init__(
        self,
        job: JobConfig,
        beside: Path,
        folder: JobFolder,
        interrupts: Interrupts,
        console: PlainConsole,
        clock: Clock | None = None,
        extend: bool = False,
    ) -> None:
        self._plan = Plan(job, beside, folder.path, extend=extend)
        self._folder = folder
        self._interrupts = interrupts
        self._leaving = Leaving(job.grace.times)
        self._clock = clock or SystemClock()
        self._client: StatusClient | None = None
        self._student_began: float | None = None
        self._next_look = 0.0
        self._environment = commands.inherited_environment(os.environ)
        workers = sum(teacher.initial_replicas for teacher in job.served)
        self._trackers = feed_of(job.name, folder.path, os.environ, job)
        doing = _doing(job)
        self._observers = Observers(
            *(job.name, folder, console, workers, self._clock),
            trackers=self._trackers,
            doing=doing,
            kept=self._kept if doing == "labelling" else None,
        )
        self._placement = Placement(folder.path, job.name, self._observers.say)
        self._scaling = Scaling(folder.path, self._observers)
        self._coordinator = CoordinatorProcess(folder, self._environment, self._observers, self._clock)
        self._teachers: TeacherWorkers | None = None
        self._students: StudentNodes | None = None
        self._preparation: RoleState | None = None

    @property
    def _job(self) -> JobConfig:
        return self._plan.job

    def _kept(self) -> list[dict[str, Any]]:
        # What reads stores takes a fifth of a second to import, and jobs that train do without it.
        from edldist_launch.job.label_stores import labels_of

        return labels_of(self._job)

    def run(self) -> int:
        """Prepare, start, watch, end, and account for it."""
        self._observers.event("job_started", job=self._job.name, pid=os.getpid())
        self._observers.environment()
        self._say_of_earlier()
        for words in self._trackers.words():
            self._observers.say(words)
        self._tell_placement("pending")
        status, reason, last_words = "failed", "the launcher itself failed", ""
        try:
            self._prepare()
            with self._observers:
                self._watch(*self._start())
            status, reason = "completed", ""
        except Stopped as stop:
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
            self._tell_placement(*_end_of(status, reason))
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
        if labels_ahead(self._job):
            where = "what its store lacks"
        self._observers.say(f"output: {near(folder.path)}, where an earlier run is gone on with from {where}")
        for difference in differences(earlier.job, self._job):
            self._observers.event("job_changed", difference=difference)
            self._observers.say(f"changed since then: {difference}", "yellow")

    def _prepare(self) -> None:
        log = self._folder.log_path("prepare")
        self._plan = prepare(
            self._plan,
            self._environment,
            log,
            self._interrupts,
            self._observers,
            lambda child: self._end([child], self._leaving.teachers_s(self._asked_s())),
            self._tell_preparation,
        )

    def _tell_preparation(self, process: ProcessState) -> None:
        self._preparation = RoleState("prepare", 1, (process,))
        self._tell_placement("pending", "it is being prepared" if process.phase == "running" else "")

    def _start(self) -> tuple[StatusClient, TeacherWorkers, StudentNodes]:
        """Coordinator, then teachers and students at the same time."""
        environment = self._share_cpus()
        self._coordinator.start(self._plan, self._interrupts)
        address = self._coordinator.address
        self._client = client = StatusClient(address)
        self._teachers = teachers = TeacherWorkers(
            self._plan,
            self._folder,
            # Labels of one model on another number of threads differ in their last bits.
            environment if self._job.deterministic else self._environment,
            self._observers,
            address,
            room=lambda: most_processes() - self._plan.ranks,
        )
        self._students = students = StudentNodes(
            self._plan, self._folder, environment, self._observers, address
        )
        teachers.start(self._now())
        students.start(self._now())
        self._student_began = self._now()
        return client, teachers, students

    def _share_cpus(self) -> dict[str, str]:
        """The environment of a process that gets its part of this machine's CPUs, as many as start now."""
        workers = sum(teacher.initial_replicas for teacher in self._job.served)
        environment, ranks = dict(self._environment), self._plan.ranks
        threads = limit_threads(environment, workers + ranks)
        if threads is not None:
            self._observers.event("threads", omp_num_threads=threads)
            self._observers.say(
                f"{threads} CPU thread(s) for each of {workers} teacher workers and {ranks} "
                "student ranks (set OMP_NUM_THREADS to choose)"
            )
        return environment

    # --- watching ---------------------------------------------------------------------------

    def _watch(self, client: StatusClient, teachers: TeacherWorkers, students: StudentNodes) -> None:
        """Until the students end, someone interrupts, or the job turns out hopeless."""
        while not students.settled:
            if self._interrupts.asked:
                they = "students save a checkpoint"
                if labels_ahead(self._job):
                    they = "labellers write what they have to the store"
                self._observers.say(f"stopping: the {they} and leave (Ctrl-C again to kill)", "yellow")
                self._end(students.children, self._leaving.students_s)
                if students.done:
                    break  # they had finished
                raise Stopped("interrupted")
            self._observe()
            now = self._now()
            self._coordinator.tick(now)
            teachers.tick(self._observers.joined() or (), now)
            self._check_groups()
            students.tick(now)
            self._scaling.act(client, teachers, students, now)
            self._tell_placement("running")
            time.sleep(TICK_S)
        self._observe(timeout_s=2.0)

    def _check_groups(self) -> None:
        """End a job whose script waits for a teacher that the job does not have, and never will."""
        names = [teacher.name for teacher in self._job.teachers]
        strangers = sorted((self._observers.wanted() or set()) - set(names))
        if not strangers:
            return
        listed, has = ", ".join(map(repr, strangers)), ", ".join(map(repr, names))
        raise Stopped(
            "failed",
            f"the script wants labels of teacher {listed}, the job has {has}: give the loader "
            f"teacher={names[0]!r}, or a teacher of the job file name: {strangers[0]}",
        )

    def _observe(self, timeout_s: float = STATUS_TIMEOUT_S) -> None:
        self._observers.look(self._client, timeout_s, stopping=self._interrupts.asked)

    def _tell_placement(self, phase: Phase, reason: str = "") -> None:
        """Write down what runs where, for other commands."""
        held = self._scaling.held
        roles = [] if self._preparation is None else [self._preparation]
        roles += [RoleState("coordinator", 1, tuple(self._coordinator.fleet.processes.values()))]
        if self._teachers is not None:
            roles += self._teachers.roles(held)
        if self._students is not None:
            roles.append(self._students.role(held))
        address = self._coordinator.address or None
        self._placement.tell(JobState(self._job.name, phase, address, reason, tuple(roles)))

    # --- ending -----------------------------------------------------------------------------

    def _end(self, those: Sequence[Child], grace_s: float) -> None:
        def wait(seconds: float) -> None:
            time.sleep(seconds)
            if self._now() >= self._next_look:
                self._observe()
                self._next_look = self._now() + TICK_S

        self._next_look = self._now()
        end_children(those, grace_s, self._clock, wait, lambda: self._interrupts.insisted)

    def _end_everything(self) -> None:
        """Students first, then teachers, the coordinator last; nothing stays behind."""
        students = self._students.children if self._students is not None else []
        teachers = self._teachers.children if self._teachers is not None else []
        coordinator = self._coordinator.fleet.children
        try:
            self._end(students, self._leaving.students_s)
            self._observers.students_done()
            self._end(teachers, self._leaving.teachers_s(self._asked_s()))
            if self._client is not None:
                self._observe()
                self._client.close()
                self._client = None
            self._end(coordinator, self._leaving.coordinator_s(self._asked_s()))
        finally:
            for child in (*students, *teachers, *coordinator):
                child.kill()
            self._coordinator.forget_address_file()

    def _how_to_go_on(self) -> str:
        if labels_ahead(self._job):
            return "what was labelled is in the store: the same command goes on with the rest"
        step = self._observers.checkpoint()
        if step is None:
            return "no checkpoint was saved: the same command starts from the beginning"
        return f"the same command goes on from the checkpoint of step {step}"

    def _asked_s(self) -> float | None:
        """Seconds since this process was asked to stop; None if it was not."""
        asked_at = self._interrupts.asked_at
        return None if asked_at is None else time.monotonic() - asked_at

    def _now(self) -> float:
        return self._clock.monotonic()


def _doing(job: JobConfig) -> Doing:
    return "labelling" if labels_ahead(job) else "training"


def _end_of(status: str, reason: str) -> tuple[Phase, str]:
    """How a run ended, as the launch contract tells it."""
    if status == "completed":
        return "succeeded", ""
    return "failed", reason if status == "failed" else f"{status}: {reason}"
