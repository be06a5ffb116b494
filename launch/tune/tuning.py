"""``edldist tune``: many short jobs on one fleet, from the space to the report."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edldist.bounds import node_range
from edldist.clock import Clock, SystemClock
from edldist.config import JobConfig, load_job
from edldist.errors import ConfigError
from edldist_launch.contract.backend import JobState, Phase, ProcessState, RoleState
from edldist_launch.job.leaving import Leaving
from edldist_launch.job.preparation import prepare
from edldist_launch.job.resolve import resolve_job, spare_the_job_file
from edldist_launch.job.stopped import Stopped
from edldist_launch.local.child import Child, end_children
from edldist_launch.local.placement import Placement
from edldist_launch.machine.cpu_shares import limit_threads
from edldist_launch.machine.room import check_room
from edldist_launch.plan import commands
from edldist_launch.plan.plan import Plan
from edldist_launch.process.exits import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_USAGE
from edldist_launch.process.interrupts import Interrupts
from edldist_launch.record.earlier import Beginning
from edldist_launch.record.folder import OUTPUTS
from edldist_launch.record.trials import process_of_trial
from edldist_launch.tune.account import Account
from edldist_launch.tune.fleet import SharedFleet
from edldist_launch.tune.folder import TuningFolder
from edldist_launch.tune.journal import Trial
from edldist_launch.tune.model import require_library
from edldist_launch.tune.prospects import Prospects
from edldist_launch.tune.ratios import check_control
from edldist_launch.tune.settings import Settings
from edldist_launch.tune.space import Space, load_space, tuning_digest
from edldist_launch.tune.study import Study
from edldist_launch.tune.trial_run import RunningTrial, failure
from edldist_launch.tune.view import Running, TuneView
from edldist_launch.view.console import PlainConsole, near
from edldist_launch.view.observers import Observers

__all__ = ["TuningRun", "run_tuning"]

TICK_S = 0.25
TRIALS_NODES = "each trial of a tuning has the nodes of its job, and space.yaml says how many run at a time"


def run_tuning(
    job_path: Path,
    overrides: Sequence[str],
    space_path: Path,
    trials: int,
    output: Path | None,
    beside: Path | None = None,
    quiet: bool = False,
) -> int:
    """Tune a job, and return the exit code (0 all trials have ended, 1 failed, 2 refused, 130 interrupted).

    Args:
        job_path: the job file; its own settings are the control's.
        overrides: ``key=value``, see ``load_job``.
        space_path: what may be tried, and what for.
        trials: candidates to try in all, those of an earlier process of this tuning among them.
        output: the folder; None for ``out/NAME-tune``.
        beside: the folder from which models and scripts may import; None for that of the job file.
        quiet: show neither progress nor what was found; warnings and errors go to standard error all the
            same.

    Raises:
        ConfigError: a file or the folder is wrong, or this machine has no room; nothing was started.
    """
    require_library()
    job, space = resolve_job(job_path, overrides), load_space(space_path)
    # As it was written: once a preparation has made weights, they are found elsewhere.
    digest = tuning_digest(space, load_job(job_path, overrides))
    settings = Settings(space, job)
    _check_room(job, space)
    output = output or OUTPUTS / f"{job.name}-tune"
    spare_the_job_file(job_path, output)
    with TuningFolder(output, job, space, digest) as folder, Interrupts() as interrupts:
        beside = (beside or job_path.parent).absolute()
        words = [str(near(job_path.absolute())), *(word for each in overrides for word in ("--set", each))]
        return TuningRun(job, space, settings, trials, beside, folder, interrupts, words, quiet).run()


class TuningRun:
    """One process's part of a tuning. Main thread only; nothing of it outlives the process.

    Args:
        beside: the folder of the job file.
        words: which job it is, as a person would type it.
    """

    def __init__(
        self,
        job: JobConfig,
        space: Space,
        settings: Settings,
        candidates: int,
        beside: Path,
        folder: TuningFolder,
        interrupts: Interrupts,
        words: Sequence[str],
        quiet: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._plan = Plan(job, beside, folder.path)
        self._space, self._settings, self._folder = space, settings, folder
        self._interrupts = interrupts
        self._leaving = Leaving(job.grace.times)
        self._clock = clock or SystemClock()
        kept = folder.earlier.trials if folder.earlier is not None else []
        self._study = Study(space, settings.base, candidates, kept, settings.seed)
        self._prospects = Prospects(self._study, folder.path)
        # Invariant: these are of the study's running trials, less those that are about to start.
        self._running: dict[int, RunningTrial] = {}
        self._environment = _environment(job, space)
        workers = sum(teacher.initial_replicas for teacher in job.teachers)
        console = PlainConsole(quiet=quiet)
        view = TuneView(console, f"tuning {job.name}", workers)
        self._observers = observers = Observers(job.name, folder, console, workers, self._clock, view)
        self._account = Account(self._study, settings, folder, job.name, words, console, view, observers)
        self._placement = Placement(folder.path, job.name, observers.say)
        self._fleet = SharedFleet(folder, self._environment, observers, self._clock)
        self._preparation: list[RoleState] = []
        self._began = self._clock.monotonic()

    def run(self) -> int:
        """Prepare, start the fleet, run trials until all have ended, end everything, and account for it."""
        self._account.begin()
        if self._study.over:
            self._account.close("completed")
            return 0
        self._observers.event("tuning_started", pid=os.getpid(), digest=self._folder.digest)
        self._tell_placement("pending")
        status, reason, code = "failed", "the tuning itself failed", EXIT_FAILED
        try:
            self._prepare()
            with self._observers:
                self._fleet.start(
                    self._plan, _ranks(self._plan.job) * self._space.at_a_time, self._interrupts
                )
                self._watch()
            status, reason, code = "completed", "", 0
        except Stopped as stop:
            status, reason = stop.status, failure(stop)
            code = EXIT_INTERRUPTED if status == "interrupted" else EXIT_FAILED
        except ConfigError as exc:
            reason, code = str(exc), EXIT_USAGE
        finally:
            self._end_everything(status, reason)
            self._account.close(status, reason)
        return code

    # --- starting -------------------------------------------------------------------------------

    def _prepare(self) -> None:
        def end(child: Child) -> None:
            self._end([child], self._leaving.teachers_s(self._asked_s()))

        log = self._folder.log_path("prepare")
        self._plan = prepare(
            self._plan, self._environment, log, self._interrupts, self._observers, end, self._tell_preparation
        )
        # The weights that were made are found now; what is tuned stays as it was.
        self._settings = Settings(self._space, self._plan.job)

    def _tell_preparation(self, process: ProcessState) -> None:
        self._preparation = [RoleState("prepare", 1, (process,))]
        self._tell_placement("pending", "it is being prepared" if process.phase == "running" else "")

    # --- watching -------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Until every trial has ended.

        Raises:
            Stopped: somebody interrupts, a control fails, or the fleet cannot work.
            ConfigError: no ratio to a control would say anything.
        """
        while not self._study.over:
            if self._interrupts.asked:
                self._observers.say("stopping: trials save and leave (Ctrl-C again to kill)", "yellow")
                raise Stopped("interrupted")
            self._fill()
            status = self._fleet.look()
            for trial in self._running.values():
                if status is not None:
                    trial.take(status)
            now = self._clock.monotonic()
            self._fleet.tick(now)
            for trial in list(self._running.values()):
                self._tend(trial, now)
            self._show()
            self._tell_placement("running")
            time.sleep(TICK_S)

    def _fill(self) -> None:
        """Start trials while there is room, each written down before it starts."""
        due: list[Trial] = []
        while len(self._running) + len(due) < self._space.at_a_time:
            trial = self._study.next()
            if trial is None:
                break
            due.append(trial)
        if due:
            self._account.write()
        for trial in due:
            self._begin(trial)

    def _begin(self, trial: Trial) -> None:
        run = self._opened(trial)
        if run.finished_before and not self._says_something(run):
            run.close()  # the tuning ended for it; whoever goes on with it has mended the script
            run = self._opened(trial, "fresh")
        if run.finished_before:
            run.close()
            self._came_to_its_end(run)
            return
        self._running[trial.number] = run
        self._account.started(trial, run.resumed)
        run.start()

    def _opened(self, trial: Trial, beginning: Beginning = "resume") -> RunningTrial:
        job = self._settings.job(trial.number, trial.values, trial.seed)
        plan = self._plan
        return RunningTrial(
            *(trial, job, plan.beside, plan.output, self._environment, self._fleet.address, self._clock),
            beginning,
        )

    def _says_something(self, run: RunningTrial) -> bool:
        """Whether what a trial has reported can be used: of a control, as what others are compared with."""
        reported = run.figures_at(self._space.steps or math.inf)
        try:
            if run.trial.control:
                check_control(self._space, _finite(reported), reported)
        except ConfigError:
            return False
        return True

    def _tend(self, run: RunningTrial, now: float) -> None:
        """Look after a trial; write down its end when that has come.

        Raises:
            Stopped: it is a control, and failed.
        """
        trial, limit = run.trial, self._space.steps
        try:
            over = run.tick(now)
        except Stopped as stop:
            if stop.status == "interrupted":  # its nodes were told to leave, and nobody here did that
                self._interrupts.come_as(EXIT_STOPPED)
                raise
            reason = failure(stop)
            run.finish("failed", reason, stop.child)
            del self._running[trial.number]
            if trial.control:
                raise Stopped("failed", f"the control of window {trial.window} failed: {reason}") from stop
            self._note(run, self._study.failed(trial.number, reason, steps=run.curves.step))
            return
        if over:
            del self._running[trial.number]
            if run.stopped_for and not run.came_to_its_end:
                self._stopped(run)
            else:
                run.finish("completed")
                self._came_to_its_end(run)
            return
        if run.asked:
            return
        if limit is not None and run.curves.step >= limit:
            run.ask_to_end(now)
        elif reason := self._prospects.against(run):
            self._observers.say(f"trial {trial.number} is stopped: {reason}", "yellow")
            run.ask_to_end(now, reason)

    def _came_to_its_end(self, run: RunningTrial) -> None:
        reported = run.figures_at(self._space.steps or math.inf)
        self._note(run, self._study.ended(run.trial.number, _finite(reported), reported, run.curves.step))

    def _stopped(self, run: RunningTrial) -> None:
        run.finish("interrupted", f"stopped: {run.stopped_for}")
        step, control = run.curves.step, self._prospects.control(run.trial.window)
        beside = {} if control is None else _finite(control.last(step))
        metrics = _finite(run.curves.last(step))
        self._note(run, self._study.stopped(run.trial.number, metrics, beside, step, run.stopped_for))

    def _note(self, run: RunningTrial, trial: Trial) -> None:
        """A trial has ended, and the study knows it."""
        self._prospects.ended(run)
        self._account.ended(trial)

    def _show(self) -> None:
        name = self._space.objective.metric
        shown = [
            Running(run.trial, run.figures, run.curves.at(name), self._prospects.ratio(run))
            for run in self._running.values()
        ]
        self._account.show(shown, self._clock.monotonic() - self._began, self._interrupts.asked)

    def _tell_placement(self, phase: Phase, reason: str = "") -> None:
        """Write down what runs where, for other commands."""
        nodes = tuple(
            replace(node, id=process_of_trial(number, node.id))
            for number, run in self._running.items()
            for node in run.processes
        )
        students = RoleState("student", len(nodes), nodes, fixed=TRIALS_NODES)
        roles = [*self._preparation, *self._fleet.roles(), students]
        address = self._fleet.address or None
        self._placement.tell(JobState(self._plan.name, phase, address, reason, tuple(roles)))

    # --- ending ---------------------------------------------------------------------------------

    def _end_everything(self, status: str, reason: str) -> None:
        """Trials first, which save; then teachers, the coordinator last; nothing stays behind."""
        running = list(self._running.values())
        students = [child for run in running for child in run.children]
        try:
            self._end(students, self._leaving.students_s)
            answer = self._fleet.look()
            for run in running:
                if answer is not None:
                    run.take(answer)
                run.finish("interrupted", reason or "the tuning ended")
            self._fleet.end(self._end_kind)
        finally:
            for child in students:
                child.kill()
            ended: Phase = "succeeded" if status == "completed" else "failed"
            self._tell_placement(ended, self._account.came_to(status, reason))

    def _end_kind(self, children: Sequence[Child], kind: str) -> None:
        asked_s = self._asked_s()
        teachers = kind == "teachers"
        self._end(
            children, self._leaving.teachers_s(asked_s) if teachers else self._leaving.coordinator_s(asked_s)
        )

    def _end(self, those: Sequence[Child], grace_s: float) -> None:
        end_children(those, grace_s, self._clock, time.sleep, lambda: self._interrupts.insisted)

    def _asked_s(self) -> float | None:
        """Seconds since this process was asked to stop; None if it was not."""
        asked_at = self._interrupts.asked_at
        return None if asked_at is None else time.monotonic() - asked_at


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _ranks(job: JobConfig) -> int:
    return node_range(job.student.nnodes)[1] * job.student.ranks


def _environment(job: JobConfig, space: Space) -> dict[str, str]:
    """Of every process: with its part of this machine's CPUs."""
    environment = commands.inherited_environment(os.environ)
    workers = sum(teacher.initial_replicas for teacher in job.teachers)
    limit_threads(environment, workers + _ranks(job) * space.at_a_time)
    return environment


def _check_room(job: JobConfig, space: Space) -> None:
    """Refuse more trials at a time than this machine has room for.

    Raises:
        ConfigError: it has none for so many.
    """
    workers = sum(teacher.initial_replicas for teacher in job.teachers)
    students = f"students (at_a_time: {space.at_a_time}, ranks of each: {_ranks(job)})"
    check_room({"teacher workers": workers, students: _ranks(job) * space.at_a_time})
