"""Keeps the processes of a job in number, beside its coordinator and in the same Slurm job.

It runs the coordinator as a child, writes the job's record, and queues, asks and cancels tasks as
``placement`` decides. Who dies, and what follows:

* the coordinator: started again, at another port that its file tells; labels flow on;
* the placer, or its host, or somebody cancels its job: a job of the same name waits in the queue for just
  that (``--dependency=singleton``), and takes over from the queue and from what lies in the job's folder;
* a placer whose host was cut off, and heals: sees that another one is in charge, and ends;
* Slurm's controller: nothing is placed until it answers again;
* the job: all students are done, or cannot work. The placer writes the result, ends the workers, the one that
  waits for its end, and itself.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
from dataclasses import replace
from pathlib import Path

from edldist.clock import Clock, SystemClock
from edldist.errors import ConfigError, LaunchError
from edldist.observe.repeats import Repeats
from edldist.wire.query import StatusClient
from edldist_launch.contract.keeper import WishKeeper
from edldist_launch.local.child import Child, describe_exit
from edldist_launch.local.fleet import Fleet
from edldist_launch.local.last_words import own_error
from edldist_launch.plan import commands
from edldist_launch.plan.paths import resolve_paths
from edldist_launch.plan.plan import Plan
from edldist_launch.process.exits import EXIT_STOPPED
from edldist_launch.process.interrupts import Interrupts
from edldist_launch.record.folder import RecordFolder
from edldist_launch.slurm.attempts import Attempts
from edldist_launch.slurm.backend import SlurmBackend
from edldist_launch.slurm.commands import Slurm, SlurmCommands
from edldist_launch.slurm.files import JobFiles
from edldist_launch.slurm.layout import Layout
from edldist_launch.slurm.placement import Acts, Note, Outcome, Placement, Seen
from edldist_launch.view.console import PlainConsole
from edldist_launch.view.observers import Observers

__all__ = ["Placer", "PlacerRecord", "run_placer"]

logger = logging.getLogger(__name__)

TICK_S = 0.25
LOOK_S = 1.0
STATUS_TIMEOUT_S = 0.5
END_S = 120.0
"""How long the end of a job waits for its last processes, once they were cancelled."""


class PlacerRecord(RecordFolder):
    """The record of a job that moves from host to host.

    There is no lock: a host that was cut off would never give it back. ``JobFiles.in_charge`` stands for it.
    """

    def _hold(self) -> None:
        pass


def run_placer(output: Path, slurm: Slurm | None = None) -> int:
    """Keep the job that was submitted into a folder, until it has ended; see ``Placer.run``.

    Raises:
        ConfigError: none was, or its record cannot be read or written.
    """
    plan = SlurmBackend(output).plan
    job_id, restarts = (os.environ.get(f"SLURM_{key}", "0") for key in ("JOB_ID", "RESTART_COUNT"))
    name = f"{job_id}.{restarts}.{uuid.uuid4().hex[:8]}"
    workers = sum(teacher.initial_replicas for teacher in plan.job.served)
    with PlacerRecord(output) as record, Interrupts() as interrupts:
        observers = Observers(plan.name, record, PlainConsole(), workers, SystemClock())
        with observers:
            observers.take_over(plan.name)  # a submission begins without what a former one kept
            plan = _with_what_was_prepared(plan, observers)
            return Placer(plan, slurm or SlurmCommands(), record, observers, name).run(interrupts)


def _with_what_was_prepared(plan: Plan, observers: Observers) -> Plan:
    """The plan with the paths of what the preparation has made, as the job's record says them from now on.

    The next submission finds those files, and has to be the same job as this one.
    """
    if plan.job.prepare is None:
        return plan
    try:
        job = resolve_paths(plan.job, plan.beside / "job.yaml")
    except ConfigError as exc:
        logger.warning("%s", exc)  # its workers say the same, and end the job
        return plan
    observers.job(job)
    return replace(plan, job=job)


class Placer:
    """One placer. Main thread only.

    Args:
        plan: of the job.
        slurm: the cluster.
        record: the job's folder.
        observers: all that watches the job.
        name: of this placer, which no other one has.
    """

    def __init__(
        self,
        plan: Plan,
        slurm: Slurm,
        record: RecordFolder,
        observers: Observers,
        name: str,
        clock: Clock | None = None,
    ) -> None:
        config = plan.job.slurm
        self._plan = plan
        self._slurm = slurm
        self._record = record
        self._observers = observers
        self._name = name
        self._clock = clock or SystemClock()
        self._layout = Layout.of(plan)
        self._files = JobFiles(self._layout)
        self._attempts = Attempts(self._layout)
        self._grace_s = plan.job.grace.kill_s
        self._placement = Placement(plan, self._grace_s)
        self._poll_s = 10.0 if config is None else config.poll_s
        self._names = [self._layout.queue_name(role.kind, role.name) for role in plan.roles]
        self._coordinator = Fleet(self._make_coordinator, ["0"], keep=True)
        self._client = StatusClient(self._layout.coordinator)
        self._began = self._now()
        self._next_look = self._next_turn = self._began
        self._keeper = WishKeeper(plan.output, logger.warning)
        self._troubles = Repeats(logger)

    def run(self, interrupts: Interrupts) -> int:
        """Run until the job has ended, or somebody asks this placer to leave, or another one is in charge.

        Returns:
            0, or EXIT_STOPPED where another placer is to take over.
        """
        self._files.take_charge(self._name)
        for _ in self._coordinator.start(self._now()):
            self._observers.event("placer_started", id=self._name)
        try:
            while True:
                if interrupts.asked:
                    # Whoever trains may be asked at the same moment, and be gone when the next one comes.
                    self._observers.look(self._client, STATUS_TIMEOUT_S, self._files.stopping)
                    self._observers.hand_over()
                    return EXIT_STOPPED
                for change in self._coordinator.tick(self._now()):
                    logger.warning("coordinator %s: %s", change.event, describe_exit(change.code))
                now = self._now()
                if now >= self._next_look:
                    self._next_look = now + LOOK_S
                    self._observers.look(self._client, STATUS_TIMEOUT_S, self._files.stopping)
                    if self._observers.groups() is not None:
                        # It could listen once: should it fail to when it is started again, that may pass.
                        self._coordinator.seen(child.id for child in self._coordinator.children)
                if now >= self._next_turn:
                    self._next_turn = now + self._poll_s
                    if not self._files.in_charge(self._name):
                        logger.warning("another placer is in charge of this job: leaving")
                        return 0
                    if (outcome := self._turn()) is not None:
                        self._end(outcome, interrupts)
                        return 0
                time.sleep(TICK_S)
        finally:
            for child in self._coordinator.children:
                child.kill()  # it holds nothing that is not told to the next one
            self._client.close()

    # --- keeping the number -------------------------------------------------------------------------

    def _turn(self) -> Outcome | None:
        """Look at the queue, and do what follows from it."""
        try:
            acts = self._placement.turn(self._look(), self._now())
            for note in acts.notes:
                self._note(note)
            if acts.outcome is None:
                self._act(acts)
        except LaunchError as exc:
            self._troubles.warn(f"nothing is placed now: {exc}")
            return None
        return acts.outcome

    def _look(self) -> Seen:
        queue = self._slurm.queue(self._names)
        # After the queue: whoever is not in it any more has left its code before.
        ended = self._files.ended()
        self._keeper.read()
        wanted = {role.name: role.replicas.initial for role in self._plan.roles if role.kind == "student"}
        leaving: list[str] = []
        if (known := self._observers.groups()) is not None:
            incarnation, groups = known
            self._keeper.settle(self._client, incarnation, groups)
            for group in groups:
                leaving += group.leaving
                if group.wanted is not None:
                    wanted[group.name] = group.wanted
        wanted |= self._keeper.held
        self._files.note_wanted(wanted)
        joined = self._observers.joined() or ()
        return Seen(queue, ended, wanted, leaving, joined, self._files.stopping)

    def _act(self, acts: Acts) -> None:
        for name, indices in acts.submit.items():
            role = self._plan.role(name)
            for index in indices:
                self._files.forget(f"{name}-{index}")
            array = ",".join(map(str, indices))
            engine_id = self._slurm.submit(self._layout.script(role.kind, name), f"--array={array}")
            self._placement.placed(name, indices)
            logger.info("%s: queued task(s) %s as job %s", name, array, engine_id)
        if acts.standby:
            self._slurm.submit(self._layout.script("coordinator", "coordinator"))
        for engine_id in acts.release:
            logger.warning("%s: Slurm could not start it, and held it: released, to try again", engine_id)
            self._slurm.release(engine_id)
        if acts.ask:
            logger.info("asking to leave: %s", ", ".join(acts.ask))
            self._slurm.ask(acts.ask)
        if acts.cancel:
            logger.info("cancelling: %s", ", ".join(acts.cancel))
            self._slurm.cancel(acts.cancel)

    def _note(self, note: Note) -> None:
        fields = {"host": note.where} if note.where else {}
        if note.what in ("crashed", "hopeless", "stopped"):
            self._observers.event(
                f"{note.role.kind}_{note.what}",
                id=note.process,
                code=note.code,
                retry_s=note.retry_s,
                **fields,
            )
        else:
            self._observers.event(f"{note.role.kind}_{note.what}", id=note.process, **fields)
        words = {"crashed": f"crashed ({describe_exit(note.code)})", "hopeless": "cannot work"}
        said = own_error(self._attempts.output(note.process)) if note.what in words else ""
        where = f" on {note.where}" if note.where else ""
        level = logging.WARNING if note.what in words else logging.INFO
        why = f": {said}" if said else ""
        logger.log(level, "%s %s%s%s", note.process, words.get(note.what, note.what), where, why)
        if note.what == "crashed" and note.role.kind == "teacher":
            self._observers.crashed(note.process)

    def _make_coordinator(self, name: str, attempt: int) -> Child:
        command = self._plan.coordinator_command(
            "tcp://*:0", "127.0.0.1:0", address_file=self._layout.address_file
        )
        environment = commands.inherited_environment(os.environ)
        return Child("coordinator", command, environment, self._record.log_path("coordinator", name))

    # --- the end ------------------------------------------------------------------------------------

    def _end(self, outcome: Outcome, interrupts: Interrupts) -> None:
        """Students first, then workers, then who waits for this placer's end; the result last."""
        self._observers.look(self._client, 2.0, stopping=True)
        self._observers.students_done()
        for kind in ("student", "teacher"):
            self._empty(kind, interrupts)
        self._observers.look(self._client, 2.0, stopping=True)
        reason, last_words = outcome.reason, ""
        if outcome.process is not None:
            output = self._attempts.output(outcome.process)
            reason = ": ".join(filter(None, (reason, own_error(output))))
            last_words = f"--- the last lines of {outcome.process}:\n{output}\n---"
        self._observers.finish(outcome.status, reason, self._now() - self._began, last_words)
        with contextlib.suppress(LaunchError):
            name = self._layout.queue_name("coordinator", "coordinator")
            waiting = [t.engine_id for t in self._slurm.queue([name]) if t.phase == "pending"]
            self._slurm.cancel(waiting)

    def _empty(self, kind: str, interrupts: Interrupts) -> None:
        """Have all processes of a kind leave; cancel those that do not."""
        names = [
            self._layout.queue_name(role.kind, role.name) for role in self._plan.roles if role.kind == kind
        ]
        began, asked, cancelled = self._now(), False, False
        while not interrupts.asked and self._now() - began < self._grace_s + END_S:
            try:
                queue = self._slurm.queue(names)
                if not queue:
                    return
                self._slurm.cancel([task.engine_id for task in queue if task.phase == "pending"])
                running = [task.engine_id for task in queue if task.phase == "running"]
                if not asked:
                    self._slurm.ask(running)
                    asked = True
                elif not cancelled and self._now() - began > self._grace_s:
                    self._slurm.cancel(running)
                    cancelled = True
            except LaunchError as exc:
                self._troubles.warn(f"the end waits for Slurm: {exc}")
            self._observers.look(self._client, STATUS_TIMEOUT_S, stopping=True)
            time.sleep(min(1.0, self._poll_s))

    def _now(self) -> float:
        return self._clock.monotonic()
