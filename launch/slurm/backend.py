"""A job on Slurm, as the launch contract wants it: placed whole, found again by its folder, scaled and ended.

What is asked of a job that runs (scale, stop) is written into its folder, where its placer reads it. Ending
one needs no placer: a job whose coordinator is gone can be stopped all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from edldist.clock import Clock, SystemClock
from edldist.config import load_job
from edldist.errors import LaunchError
from edldist.files import replace_file
from edldist_launch.contract.backend import JobState, Phase, ProcessState, RoleState
from edldist_launch.contract.job_keys import LINK, JobKeys
from edldist_launch.contract.patience import Patience
from edldist_launch.contract.submission import Submission, find_submission, forget_submission
from edldist_launch.contract.wishes import forget_wishes, read_wishes, write_wishes
from edldist_launch.local.last_words import own_error
from edldist_launch.plan.commands import PASSED_ON
from edldist_launch.plan.plan import Plan, Role
from edldist_launch.process.exits import was_asked
from edldist_launch.process.importing import add_to_environment
from edldist_launch.record.earlier import Beginning, read_result
from edldist_launch.record.folder import FolderHeldError, JobFolder
from edldist_launch.slurm.attempts import Attempts
from edldist_launch.slurm.commands import Slurm, SlurmCommands
from edldist_launch.slurm.files import JobFiles
from edldist_launch.slurm.layout import Layout, process_id
from edldist_launch.slurm.queued import QueuedTask
from edldist_launch.slurm.script import ARRAY_KINDS, Surroundings, render_script
from edldist_launch.view.console import output_option

__all__ = ["SlurmBackend", "scripts_of", "submission_options", "surroundings"]

POLL_S = 1.0
PLACER_S = 60.0
"""How long the placer may take to write the result, when everybody else has left."""
AWAY_S = 120.0
"""How long a cancelled job may take to leave the queue: the cluster's KillWait, and some."""


def surroundings(plan: Plan, environment: Mapping[str, str] = os.environ) -> Surroundings:
    """What scripts are told of here: the current folder, and what a person set for every process."""
    passed_on = {name: environment[name] for name in PASSED_ON if name in environment}
    passed_on.pop("EDLDIST_ADVERTISE", None)  # an address of this host
    link = JobKeys.of(plan.output, environment).environment
    passed_on = {name: value for name, value in passed_on.items() if name not in LINK} | link
    paths: dict[str, str] = {}
    add_to_environment(paths, os.getcwd(), str(plan.beside))
    return Surroundings(os.getcwd(), {"PYTHONUNBUFFERED": "1", **passed_on}, paths.get("PYTHONPATH", ""))


def scripts_of(plan: Plan, where: Surroundings) -> list[tuple[Role, str]]:
    """The job script of each role, in the order in which they are submitted.

    Raises:
        ConfigError: a path has a character that Slurm takes in no script.
    """
    return [(role, render_script(plan, role, where)) for role in plan.roles]


def submission_options(plan: Plan, role: Role, ids: Mapping[str, str]) -> list[str] | None:
    """Options of sbatch with which a role is queued at first; None if it is not.

    Args:
        ids: of the jobs that were queued before, by the kinds of their roles.
    """
    if role.kind == "prepare":
        return ["--hold"]
    prepared = "" if plan.job.prepare is None else f",afterok:{ids['prepare']}"
    if role.kind == "coordinator":
        return ["--hold", f"--dependency=singleton{prepared}"] if prepared else ["--hold"]
    last = role.replicas.initial - 1
    # A preparation that fails takes the coordinator along, and for Slurm that is "after" it, too.
    return [f"--array=0-{last}", f"--dependency=after:{ids['coordinator']}{prepared}"] if last >= 0 else None


class SlurmBackend:
    """One job on a cluster, by the contract ``launch.contract.backend``.

    Args:
        output: its folder, which all hosts see.
        beginning: what becomes of an earlier run in that folder, when a job is started.
        slurm: the cluster.
        wait, clock: pass some seconds, and tell the time.
    """

    def __init__(
        self,
        output: Path,
        beginning: Beginning = "resume",
        slurm: Slurm | None = None,
        wait: Callable[[float], None] = time.sleep,
        clock: Clock | None = None,
    ) -> None:
        self._output = output.absolute()
        self._beginning = beginning
        self._slurm = SlurmCommands() if slurm is None else slurm
        self._wait = wait
        self._clock = clock or SystemClock()
        self._started: Plan | None = None

    @property
    def plan(self) -> Plan:
        """Of the job that was submitted into the folder.

        Raises:
            LaunchError: none was.
            ConfigError: its record cannot be read.
        """
        if self._started is None:
            submission = find_submission(self._output)
            if submission is None or submission.backend != "slurm":
                raise LaunchError(f"no job was started in {self._output}")
            job = load_job(self._output / "job.yaml")
            self._started = Plan(job, Path(submission.engine["beside"]), self._output)
        return self._started

    @property
    def _layout(self) -> Layout:
        return Layout.of(self.plan)

    @property
    def _files(self) -> JobFiles:
        return JobFiles(self._layout)

    @property
    def _attempts(self) -> Attempts:
        return Attempts(self._layout)

    # --- placing ------------------------------------------------------------------------------------

    def start(self, plan: Plan) -> None:
        """See ``Backend.start``.

        Nothing of it starts before all of it is queued: the first jobs are held until then, and the others
        wait for them. Should this process, or Slurm, die in between, no job of it ever starts, and the next
        submission, or ``stop``, removes what is there.

        Raises:
            LaunchError: the job runs already, or Slurm refuses a part of it, with its own words.
            ConfigError: a path has a character that Slurm takes in no script, or the folder is held.
        """
        scripts = scripts_of(plan, surroundings(plan))
        made = [path for path in (self._output, *self._output.parents) if not path.exists()]
        try:
            with JobFolder(
                self._output, plan.job, self._beginning, lambda _: self.check_absent(plan)
            ) as folder:
                if folder.finished is None:
                    self._place({self._layout.script(r.kind, r.name): text for r, text in scripts})
        except FolderHeldError:
            raise  # who holds it may have made it, and has not said yet what it is
        except BaseException:
            if made and find_submission(self._output) is None:
                shutil.rmtree(self._output, ignore_errors=True)
                for parent in made[1:]:
                    with contextlib.suppress(OSError):
                        parent.rmdir()
            raise

    def _place(self, scripts: Mapping[Path, str]) -> None:
        """Queue everything, or nothing."""
        self._remove_leftovers()
        with contextlib.suppress(OSError):
            forget_wishes(self._output)  # of a former run
        JobKeys.of(self._output).ready()
        self._files.begin(scripts)
        self._record(complete=False)
        try:
            held = self._submit_all()
            self._record(complete=True)
            for engine_id in held:
                self._slurm.release(engine_id)
        except BaseException as exc:
            left = self._undo()
            if isinstance(exc, LaunchError) and left:
                raise LaunchError(f"{exc}. {left}") from exc
            raise

    def try_out(self, plan: Plan) -> list[str]:
        """What Slurm says of each job that ``start`` would queue, if it would take all of them.

        Raises:
            LaunchError: it would not, or the job runs already.
            ConfigError: as ``start``.
        """
        scripts = scripts_of(plan, surroundings(plan))
        self.check_absent(plan)
        said = []
        with tempfile.TemporaryDirectory() as folder:
            for role, text in scripts:
                script = Path(folder) / self._layout.script(role.kind, role.name).name
                script.write_text(text)
                array = ["--array=0"] if role.kind in ARRAY_KINDS else []
                try:
                    said.append(f"{role.name}: {self._slurm.try_out(script, *array)}")
                except LaunchError as exc:
                    raise LaunchError(f"{role.name}: {exc}") from exc
        return said

    def check_absent(self, plan: Plan) -> None:
        """Refuse a job that is in the queue already.

        Raises:
            LaunchError: it is, or Slurm does not answer.
        """
        submission = find_submission(self._output)
        self._started = plan
        queue = self._queue()
        if queue and (submission is None or submission.engine.get("complete", True)):
            ids = ", ".join(dict.fromkeys(task.engine_id.partition("_")[0] for task in queue))
            raise LaunchError(
                f"job {plan.name} runs in {self._output} (Slurm jobs {ids}): wait for its end, end it "
                f"(edldist stop {output_option(self._output)}), or choose another --output"
            )

    def _submit_all(self) -> list[str]:
        """Queue a job for every role; the ids of those that are on hold."""
        ids: dict[str, str] = {}
        for role in self.plan.roles:
            options = submission_options(self.plan, role, ids)
            if options is not None:
                script = self._layout.script(role.kind, role.name)
                try:
                    ids[role.kind] = self._slurm.submit(script, *options)
                except LaunchError as exc:
                    raise LaunchError(f"{role.name}: {exc}") from exc
        return [ids[kind] for kind in ("coordinator", "prepare") if kind in ids]

    def _remove_leftovers(self) -> None:
        """Cancel what a submission has left that did not get through."""
        if queue := self._queue():
            self._slurm.cancel([task.engine_id for task in queue])
            self._await_empty(self._names(), AWAY_S)

    def _record(self, complete: bool) -> None:
        engine = {
            "beside": str(self.plan.beside),
            "names": self._names(),
            "complete": complete,
        }
        try:
            link = JobKeys.of(self._output).environment
            Submission("slurm", self.plan.name, engine=engine, link=link).write(self._output)
        except OSError as exc:
            raise LaunchError(f"cannot write {self._output}/submission.json: {exc.strerror}") from exc

    def _undo(self) -> str:
        """Cancel what was queued; what a person has to know if that fails, else nothing."""
        try:
            self._slurm.cancel([task.engine_id for task in self._queue()])
        except LaunchError as exc:
            return (
                f"Jobs of it may be left in the queue, on hold, and could not be cancelled ({exc}): the same "
                f"command, or edldist stop {output_option(self._output)}, removes them once Slurm answers"
            )
        forget_submission(self._output)
        return ""

    # --- a job that runs ------------------------------------------------------------------------------

    def scale(self, wanted: Mapping[str, int | None]) -> None:
        """See ``Backend.scale``: the placer follows at its next look at the queue."""
        for role, number in wanted.items():
            if number is not None:
                self.plan.check_scale(role, number)
            else:
                self.plan.role(role)
        if not self._queue():
            state = self.state()
            raise LaunchError(
                f"job {state.name} of {self._output} does not run any more: it {state.phase}"
                + (f" ({state.reason})" if state.reason else "")
            )
        write_wishes(self._output, wanted)

    def state(self) -> JobState:
        """See ``Backend.state``."""
        queue, ended = self._queue(), self._files.ended()
        held, wanted = read_wishes(self._output) or {}, self._files.wanted()
        roles = tuple(
            self._role_state(role, queue, ended, wanted, held.get(role.name)) for role in self.plan.roles
        )
        phase, reason = self._phase(queue, ended)
        return JobState(self.plan.name, phase, self._coordinator(), reason, roles)

    def logs(self, *roles: str, follow: bool = False) -> Iterator[str]:
        """See ``Backend.logs``."""
        those = [self.plan.role(role) for role in roles] or self.plan.roles

        def processes() -> set[str]:
            with contextlib.suppress(OSError):
                names = {path.name for path in (self._output / "logs").iterdir()}
                return {name for name in names if any(_is_of(name, each) for each in those)}
            return set()

        patience = Patience(self._clock.monotonic)

        def ended() -> bool:
            return not (follow and patience.ask(lambda: bool(self._queue()), True))

        return self._attempts.follow(processes, ended, self._wait)

    def stop(self, grace_s: float | None = None) -> None:
        """See ``Backend.stop``."""
        plan = self.plan
        if not self._queue():
            return
        self._files.ask_stop()  # the placer, if there is one, queues nothing any more
        by_kind = {
            kind: [self._layout.queue_name(r.kind, r.name) for r in plan.roles if r.kind == kind]
            for kind in ("prepare", "student", "teacher", "coordinator")
        }
        self._slurm.cancel([task.engine_id for task in self._slurm.queue(by_kind["prepare"] or ["-"])])
        self._let_go(by_kind["student"], plan.job.grace.kill_s if grace_s is None else grace_s)
        self._let_go(by_kind["teacher"], plan.job.grace.kill_s)
        waiting = [t.engine_id for t in self._slurm.queue(by_kind["coordinator"]) if t.phase == "pending"]
        self._slurm.cancel(waiting)
        # The placer writes the result, and goes.
        with contextlib.suppress(LaunchError):
            self._await_empty(by_kind["coordinator"], PLACER_S)
        self._slurm.cancel([task.engine_id for task in self._queue()])
        self._await_empty(self._names(), AWAY_S)
        if not (self._output / "result.json").exists():  # there was no placer to write it
            result = {"status": "interrupted", "job": plan.name, "reason": "it was stopped"}
            text = json.dumps(result, indent=2)
            with contextlib.suppress(OSError):
                replace_file(self._output / "result.json", f"{text}\n".encode())

    def _let_go(self, names: Sequence[str], grace_s: float) -> None:
        """Have the processes of some jobs leave, and cancel them when time is up."""
        asked: set[str] = set()
        deadline = self._clock.monotonic() + grace_s
        while queue := self._slurm.queue(names):
            self._slurm.cancel([task.engine_id for task in queue if task.phase == "pending"])
            running = [task.engine_id for task in queue if task.phase == "running"]
            if self._clock.monotonic() > deadline:
                self._slurm.cancel(running)
                self._await_empty(names, AWAY_S)
                return
            self._slurm.ask([each for each in running if each not in asked])
            asked.update(running)
            self._wait(POLL_S)

    def _await_empty(self, names: Sequence[str], timeout_s: float) -> None:
        deadline = self._clock.monotonic() + timeout_s
        while queue := self._slurm.queue(names):
            if self._clock.monotonic() > deadline:
                left = ", ".join(task.engine_id for task in queue)
                raise LaunchError(
                    f"{left}: still in Slurm's queue {timeout_s:.0f} s after their end was asked"
                )
            self._wait(POLL_S)

    # --- seeing -------------------------------------------------------------------------------------

    def _role_state(
        self,
        role: Role,
        queue: Sequence[QueuedTask],
        ended: Mapping[str, int],
        wanted: Mapping[str, int],
        held: int | None,
    ) -> RoleState:
        name = self._layout.queue_name(role.kind, role.name)
        tasks = [task for task in queue if task.queue_name == name]
        processes = {}
        for task in tasks:
            if role.kind not in ARRAY_KINDS and process_id(role, 0) in processes and task.phase == "pending":
                continue  # the coordinator that waits for the end of this one
            process = process_id(role, task.index or 0)
            restarts = max(0, self._attempts.count(process) - 1)
            processes[process] = ProcessState(
                process, task.engine_id, task.phase, task.where, task.why, restarts
            )
        for process, code in ended.items():
            if process not in processes and _is_of(process, role):
                # Of those that serve others, one that left as it was asked has done its work.
                done = code == 0 or (role.kind in ("coordinator", "teacher") and was_asked(code))
                phase: Phase = "succeeded" if done else "failed"
                reason = "" if done else self._said(process, f"exit code {code}")
                restarts = max(0, self._attempts.count(process) - 1)
                processes[process] = ProcessState(process, "", phase, reason=reason, restarts=restarts)
        ordered = sorted(processes.values(), key=lambda each: (len(each.id), each.id))
        return RoleState(role.name, wanted.get(role.name, role.replicas.initial), tuple(ordered), held)

    def _phase(self, queue: Sequence[QueuedTask], ended: Mapping[str, int]) -> tuple[Phase, str]:
        code = ended.get("prepare")
        if code and not (self._files.stopping and _was_ended(code)):
            return "failed", self._said("prepare", f"the preparation failed (exit code {code})")
        names = {role.kind: self._layout.queue_name(role.kind, role.name) for role in self.plan.roles}
        students = [task for task in queue if task.queue_name == names["student"]]
        if not queue:
            return self._end()
        if not self._files.stopping and not any(t.queue_name == names["coordinator"] for t in queue):
            code = ended.get("coordinator")
            how = "was killed" if code is None else f"has ended with exit code {code}"
            how = self._said("coordinator", f"its coordinator {how}")
            return "pending", f"{how}: read its log, and end the job with 'edldist stop'"
        if self._coordinator() is not None and any(task.phase != "pending" for task in students):
            return "running", "" if self._files.stopping else _between_coordinators(
                queue, names["coordinator"]
            )
        if self._files.stopping:
            return "leaving", "it was asked to end"
        waits = next((task.why for task in [*students, *queue] if task.reason), "")
        return "pending", waits

    def _end(self) -> tuple[Phase, str]:
        """How a job has ended of which nothing is in the queue."""
        result = read_result(self._output / "result.json") or {}
        status, reason = str(result.get("status", "gone without a result")), str(result.get("reason", ""))
        if status == "completed":
            return "succeeded", ""
        if status == "failed" and reason:
            return "failed", reason
        return "failed", f"the job is {status}" + (f": {reason}" if reason else "")

    def _said(self, process: str, how: str) -> str:
        """How a process ended, with its own last error behind it."""
        return ": ".join(filter(None, (how, own_error(self._attempts.output(process)))))

    def _coordinator(self) -> str | None:
        return self._layout.coordinator if self._layout.address_file.exists() else None

    def _queue(self) -> list[QueuedTask]:
        return self._slurm.queue(self._names())

    def _names(self) -> list[str]:
        return [self._layout.queue_name(role.kind, role.name) for role in self.plan.roles]


def _between_coordinators(queue: Sequence[QueuedTask], name: str) -> str:
    """What a job waits for whose coordinator has ended, and the next one not started; else empty."""
    coordinators = [task for task in queue if task.queue_name == name]
    if any(task.phase != "pending" for task in coordinators):
        return ""
    why = next((f" ({task.why})" for task in coordinators if task.why), "")
    return f"its coordinator has ended, and the next one waits in the queue{why}; labels flow on meanwhile"


def _was_ended(code: int) -> bool:
    """Whether a process that ended with this code was asked to, or killed."""
    return was_asked(code) or code == 128 + signal.SIGKILL


def _is_of(process: str, role: Role) -> bool:
    if role.kind not in ARRAY_KINDS:
        return process == role.name
    head, dash, number = process.rpartition("-")
    return bool(dash) and head == role.name and number.isdecimal()
