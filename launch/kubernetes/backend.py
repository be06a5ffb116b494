"""The launch contract on Kubernetes (see ``launch.contract.backend``).

A job is found by its label, in the context and the namespace that its submission names. Nothing of it runs
on this machine. The folder that it was submitted into keeps where it is, its resolved job file, and after its
end how it ended.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edldist.config import load_job
from edldist.errors import LaunchError
from edldist_launch.contract.backend import JobState, Phase
from edldist_launch.contract.job_keys import FOLDER, JobKeys
from edldist_launch.contract.patience import Patience
from edldist_launch.contract.submission import Submission, find_submission, forget_submission
from edldist_launch.kubernetes.checks import check_named
from edldist_launch.kubernetes.forward import Forward
from edldist_launch.kubernetes.kubectl import ClusterUnreachableError, Kubectl, Run, run_kubectl
from edldist_launch.kubernetes.logs import PodLogs
from edldist_launch.kubernetes.names import Names
from edldist_launch.kubernetes.placing import WATCHED, place, remove, try_out
from edldist_launch.kubernetes.render import JOB, KIND, NAME, new_token, render
from edldist_launch.kubernetes.state import ASKED, NOT_BOUND, PAUSED, Found, names, role_name
from edldist_launch.plan.plan import Plan
from edldist_launch.record.folder import LOCK, hold_folder
from edldist_launch.record.job_file import replace_job

__all__ = ["KubernetesBackend"]

ENDED = ("succeeded", "failed")
LOOK_S = 0.5
MARGIN_S = 60.0
"""Beyond the grace of pods, for Kubernetes to notice and to do what it was asked."""
STOPPED = "it was stopped"


class KubernetesBackend:
    """See ``Backend``.

    Args:
        output: the folder that the job was, or is to be, submitted into.
        run: ``kubectl``.
    """

    def __init__(self, output: Path, run: Run = run_kubectl) -> None:
        self._output = output.absolute()
        self._run = run
        self._forward: Forward | None = None

    def start(self, plan: Plan) -> None:
        """See ``Backend``; the pods come later.

        Raises:
            ConfigError: the job file names what the cluster does not have.
            LaunchError: as in ``Backend``, or the API refuses an object, with its own words.
        """
        kubectl = Kubectl.of(plan.job.kubernetes, self._run)
        label = Names(plan.name).label
        former = self._refuse_second(plan.name, label, kubectl)
        check_named(plan, kubectl)
        keys = JobKeys.of(self._output)
        token, sealed = new_token(), keys.folder is not None
        render(plan, kubectl.namespace, token, sealed=sealed)  # what is wrong with the job is said first
        made = _missing_folders(self._output)
        engine = {"context": kubectl.context, "namespace": kubectl.namespace, "label": label}
        submission = Submission("kubernetes", plan.name, engine=engine, link=keys.environment)
        with contextlib.ExitStack() as alone:
            try:
                self._output.mkdir(parents=True, exist_ok=True)
                alone.enter_context(hold_folder(self._output))
                if find_submission(self._output) != former:
                    raise LaunchError(f"another job was submitted into {self._output} meanwhile")
                _set_aside(self._output / "logs")
                keys.ready()
                objects = render(plan, kubectl.namespace, token, keys.contents(), sealed=sealed)
                replace_job(self._output / "job.yaml", plan.job)
                submission.write(self._output)
            except OSError as exc:
                raise LaunchError(f"cannot write {self._output}: {exc.strerror or exc}") from exc
            try:
                place(objects, kubectl)
            except ClusterUnreachableError:
                raise  # the record stays: something may be there
            except BaseException:
                self._forget(made)
                raise

    def try_out(self, plan: Plan) -> list[str]:
        """What ``start`` would make, if the cluster takes all of it; nothing is made.

        Raises:
            ConfigError, LaunchError: as ``start``.
        """
        kubectl = Kubectl.of(plan.job.kubernetes, self._run)
        check_named(plan, kubectl)
        sealed = JobKeys.of(self._output).folder is not None
        objects = render(plan, kubectl.namespace, new_token(), sealed=sealed)
        return names(try_out(objects, kubectl))

    def scale(self, wanted: Mapping[str, int | None]) -> None:
        """See ``Backend``. Where KEDA scales a group it holds the number; elsewhere it is the group's own."""
        kubectl, found = self._running()
        plan = self._plan()
        for role, number in wanted.items():
            if number is None:
                plan.role(role)
            else:
                plan.check_scale(role, number)
        for role, number in wanted.items():
            self._scale(kubectl, found, plan, role, number)

    def state(self) -> JobState:
        """See ``Backend``."""
        submission = self._submission()
        kubectl = self._kubectl(submission)
        found = self._found(submission, kubectl)
        if found.student is None:
            return self._remembered(submission)
        state = found.state()
        if state.phase in ENDED:
            self._remember(submission, state)
        elif state.role("coordinator").count("running"):
            state = replace(state, coordinator=self._way(submission, kubectl).address)
        return state

    def logs(self, *roles: str, follow: bool = False) -> Iterator[str]:
        """See ``Backend``. Each line begins with the name of its pod.

        Raises:
            ConfigError: the job has no such role.
            LaunchError: no job was started there.
        """
        submission = self._submission()
        kubectl, plan = self._kubectl(submission), self._plan()
        those = [plan.role(role) for role in roles] or list(plan.roles)
        owners = [Names(plan.name).owner(each.kind, each.name) for each in those]
        logs = PodLogs(kubectl, self._output / "logs", owners)
        wanted = {each.name for each in those}

        def begun() -> dict[str, bool]:
            found = self._found(submission, kubectl)
            pods = [pod for name in wanted for pod in found.pods(name) if _has_begun(pod)]
            return {str(pod["metadata"]["name"]): _goes_on(pod) for pod in pods}

        if not follow:
            return logs.read(list(begun()))
        patience = Patience()
        return logs.follow(
            lambda: patience.ask(begun, {}),
            lambda: patience.ask(lambda: self.state().phase in ENDED, False),
        )

    def stop(self, grace_s: float | None = None) -> None:
        """See ``Backend``. What its pods printed is kept in the folder; its claim stays."""
        submission = self._submission()
        kubectl = self._kubectl(submission)
        found = self._found(submission, kubectl)
        pods = [str(pod["metadata"]["name"]) for pod in found.pods() if _has_begun(pod)]
        logs = PodLogs(kubectl, self._output / "logs", [".*"])
        kept = None
        if found.student is not None and found.state().phase not in ENDED:
            kept = logs.keep(pods)
            self._leave(kubectl, found, grace_s)
            self._remember(submission, JobState(submission.job, "failed", reason=STOPPED))
        elif found.student is not None:
            logs.keep(pods, follow=False)()
            self._remember(submission, found.state())
        if self._forward is not None:
            self._forward.close()
        remove(f"{JOB}={submission.engine['label']}", kubectl)
        if kept is not None:
            kept()

    # --- starting -------------------------------------------------------------------------------

    def _refuse_second(self, name: str, label: str, kubectl: Kubectl) -> Submission | None:
        """Refuse a job that is there already; remove what one that has ended, or broke off, has left.

        Returns:
            What was submitted into the folder before.

        Raises:
            LaunchError: a job runs in this folder, or one of that name in that namespace.
        """
        former = find_submission(self._output)
        if former is not None and former.backend != "kubernetes":
            raise LaunchError(
                f"{self._output} is the record of a job on another engine ({former.job}, {former.backend}): "
                "choose another --output"
            )
        if former is not None:
            there = self._kubectl(former)
            found = self._found(former, there)
            if found.student is not None and found.state().phase not in ENDED:
                raise LaunchError(
                    f"a job runs in {self._output} ({former.job}, in namespace {there.namespace}): stop it "
                    "first, or choose another --output"
                )
        found = Found(kubectl.get(WATCHED, f"{JOB}={label}"))
        if found.student is None:
            return former
        owner = found.student["metadata"]["annotations"].get(NAME)
        if owner != name or found.state().phase not in ENDED:
            raise LaunchError(
                f"job {owner} runs in namespace {kubectl.namespace} already (label {JOB}={label}): stop it "
                "first, or give this one another name"
            )
        remove(f"{JOB}={label}", kubectl)
        return former

    def _forget(self, made: list[Path]) -> None:
        """Leave nothing of a start that failed."""
        forget_submission(self._output)
        if not made:
            return
        with contextlib.suppress(OSError):
            (self._output / "job.yaml").unlink()
            (self._output / LOCK).unlink(missing_ok=True)
            shutil.rmtree(self._output / FOLDER, ignore_errors=True)  # made for the job that there is not
            for folder in made:
                folder.rmdir()

    # --- scaling, stopping ------------------------------------------------------------------------

    def _scale(self, kubectl: Kubectl, found: Found, plan: Plan, role: str, number: int | None) -> None:
        owner, scaler = found.owner(role), found.scaler(role)
        assert owner is not None, role
        if scaler is not None:
            note = {PAUSED: None if number is None else str(number)}
            kubectl.patch("scaledobjects.keda.sh", scaler["metadata"]["name"], _annotations(note))
            return
        bounds = plan.role(role).replicas
        change: dict[str, Any] = _annotations({ASKED: None if number is None else str(number)})
        count = bounds.initial if number is None else number
        key = "replicas" if owner["kind"] == "Deployment" else "parallelism"
        change["spec"] = {key: count}
        kubectl.patch(_resource(owner), owner["metadata"]["name"], change)

    def _leave(self, kubectl: Kubectl, found: Found, grace_s: float | None) -> None:
        """Students first: they need labels to their last step. Then workers; the coordinator goes last."""
        pods = found.pods()
        for kind in ("student", "teacher"):
            selector = f"{JOB}={found.label},{KIND}={kind}"
            hurried = kind == "student" and grace_s is not None
            if hurried:
                # First: to a pod that ends already, kubelets before 1.22 give the time that it was told then.
                kubectl.end_pods(selector, max(1, int(grace_s or 0)))
            for owner in found.owners(kind):
                if (scaler := found.scaler(role_name(owner))) is not None:
                    paused = _annotations({PAUSED: "0"})
                    kubectl.patch("scaledobjects.keda.sh", scaler["metadata"]["name"], paused)
                key = "replicas" if owner["kind"] == "Deployment" else "parallelism"
                kubectl.patch(_resource(owner), owner["metadata"]["name"], {"spec": {key: 0}})
            if hurried:
                kubectl.end_pods(selector, max(1, int(grace_s or 0)))  # what took their place meanwhile
            wait_s = max((_grace_s(pod) for pod in pods), default=0.0) if grace_s is None else grace_s
            self._until_gone(kubectl, selector, wait_s + MARGIN_S)

    def _until_gone(self, kubectl: Kubectl, selector: str, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while any(_goes_on(pod) for pod in kubectl.get("pods", selector)):
            if time.monotonic() > deadline:
                return  # Kubernetes ends them with the rest
            time.sleep(LOOK_S)

    # --- what is known of the job -------------------------------------------------------------------

    def _submission(self) -> Submission:
        submission = find_submission(self._output)
        if submission is None or submission.backend != "kubernetes":
            raise LaunchError(f"no job was started in {self._output}")
        return submission

    def _kubectl(self, submission: Submission) -> Kubectl:
        engine = submission.engine
        return Kubectl(engine.get("context"), engine.get("namespace"), self._run)

    def _found(self, submission: Submission, kubectl: Kubectl) -> Found:
        selector = f"{JOB}={submission.engine['label']}"
        plan = self._plan()
        settings = plan.job.kubernetes
        kinds = WATCHED + (",scaledobjects.keda.sh" if settings and settings.autoscaler == "keda" else "")
        found = Found(kubectl.get(kinds, selector))
        warnings = kubectl.events("type=Warning") if found.lacks_pods else []
        if found.lacks_claim:
            warnings += kubectl.events(f"reason={NOT_BOUND}")
        return Found(found.objects, warnings)

    def _running(self) -> tuple[Kubectl, Found]:
        """The cluster and what there is of a job that has not ended.

        Raises:
            LaunchError: it has.
        """
        submission = self._submission()
        kubectl = self._kubectl(submission)
        found = self._found(submission, kubectl)
        state = self._remembered(submission) if found.student is None else found.state()
        if state.phase in ENDED:
            raise LaunchError(
                f"job {state.name} of {self._output} does not run any more: it {state.phase}"
                + (f" ({state.reason})" if state.reason else "")
            )
        return kubectl, found

    def _plan(self) -> Plan:
        return Plan(load_job(self._output / "job.yaml"), self._output, self._output)

    def _way(self, submission: Submission, kubectl: Kubectl) -> Forward:
        if self._forward is None:
            service = Names(submission.job).fixed("coordinator")
            self._forward = Forward(kubectl.command("port-forward", f"service/{service}", ":7070"))
        return self._forward

    def _remember(self, submission: Submission, state: JobState) -> None:
        """Keep how the job ended, for when nothing of it is left in the cluster."""
        if "phase" in submission.engine:
            return
        engine = submission.engine | {"phase": state.phase, "reason": state.reason}
        with contextlib.suppress(OSError):
            replace(submission, engine=engine).write(self._output)

    def _remembered(self, submission: Submission) -> JobState:
        engine = submission.engine
        gone = f"it is not in namespace {engine['namespace']} any more, and nobody saw how it ended"
        phase: Phase = "succeeded" if engine.get("phase") == "succeeded" else "failed"
        return JobState(submission.job, phase, reason=engine.get("reason", gone))


def _annotations(notes: Mapping[str, str | None]) -> dict[str, Any]:
    return {"metadata": {"annotations": dict(notes)}}


def _resource(owner: Mapping[str, Any]) -> str:
    return {"Deployment": "deployments.apps", "Job": "jobs.batch"}[owner["kind"]]


def _has_begun(pod: Mapping[str, Any]) -> bool:
    """Whether its main container runs, or has run."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return any("waiting" not in each.get("state", {}) or each.get("restartCount") for each in statuses)


def _goes_on(pod: Mapping[str, Any]) -> bool:
    return pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def _grace_s(pod: Mapping[str, Any]) -> float:
    return float(pod["spec"].get("terminationGracePeriodSeconds", 30))


def _set_aside(logs: Path) -> None:
    """Keep an earlier submission's logs out of the way of this one's.

    Raises:
        OSError: they cannot be moved.
    """
    if logs.exists():
        number = 1
        while (place := logs.with_name(f"logs-{number}")).exists():
            number += 1
        logs.rename(place)


def _missing_folders(output: Path) -> list[Path]:
    """Which of a folder and those above it are not there, the deepest first."""
    return [path for path in (output, *output.parents) if not path.exists()]
