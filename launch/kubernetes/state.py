"""From what the API says of a job's objects to its state, in Kubernetes' own words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edldist.observe.printable import printable
from edldist_launch.contract.backend import JobState, Phase, ProcessState, RoleState
from edldist_launch.kubernetes.kustomization import Object
from edldist_launch.kubernetes.render import GROUP, JOB, KIND, NAME, ROLE
from edldist_launch.process.version import own_version

__all__ = ["ASKED", "NOT_BOUND", "PAUSED", "Found", "names", "role_name"]

ASKED = "edldist/asked"
"""Annotation: the number of processes that a person asked for."""
PAUSED = "autoscaling.keda.sh/paused-replicas"
"""The same where KEDA scales: it holds that number."""
NOT_BOUND = "FailedBinding"
"""Reason of the event that says why a claim has no storage: it warns, but is not of the type that does."""
MOST_SAID = 500
"""Characters of what a container said last."""
_OTHER_VERSION = ("No such option", "No such command")
"""So a command line is refused that another version wrote."""
_ONLY_TELLS = 75
"""Exit code of a pod of ``prepare`` that has only told the others that the attempts before it have failed."""
_ORDER = ("prepare", "coordinator", "teacher", "student")
_HINTS = {
    "OOMKilled": "it needs more memory than resources.memory gives",
    "ErrImagePull": "is kubernetes.image right, and may its nodes pull it?",
    "ImagePullBackOff": "is kubernetes.image right, and may its nodes pull it?",
    NOT_BOUND: "kubernetes.storage_class names one of `kubectl get storageclasses`, kubernetes.claim a claim "
    "that has storage",
    "ErrImageNeverPull": "kubernetes.pull_policy is Never, and no node has the image",
}


@dataclass(frozen=True)
class Found:
    """What there is of a job in its namespace.

    Attributes:
        objects: its Jobs, Deployments, Pods, PersistentVolumeClaims and ScaledObjects.
        warnings: the namespace's events that say why something is not there.
    """

    objects: Sequence[Object]
    warnings: Sequence[Object] = ()

    @property
    def student(self) -> Object | None:
        """The student's Job, which owns everything else; None where it is gone."""
        return next((each for each in self._of("Job") if _kind(each) == "student"), None)

    @property
    def label(self) -> str:
        """The value of the label by which everything of the job is found; the student's Job must be there."""
        assert self.student is not None
        return str(self.student["metadata"]["labels"][JOB])

    @property
    def lacks_pods(self) -> bool:
        """Whether something is not running, so that warnings may say why."""
        return any(not _runs(pod) for pod in self._of("Pod")) or any(
            wanted > len(self._pods(owner)) for owner, wanted in self._owners()
        )

    @property
    def lacks_claim(self) -> bool:
        """Whether a claim is not bound to storage."""
        return any(_is_pending(claim) for claim in self._of("PersistentVolumeClaim"))

    def owner(self, role: str) -> Object | None:
        """The Deployment or Job of a role."""
        return next((owner for owner, _ in self._owners() if role_name(owner) == role), None)

    def scaler(self, role: str) -> Object | None:
        """The ScaledObject of a teacher group."""
        return next((each for each in self._of("ScaledObject") if role_name(each) == role), None)

    def owners(self, kind: str) -> list[Object]:
        """The Deployments and Jobs of a kind of role."""
        return [owner for owner, _ in self._owners() if _kind(owner) == kind]

    def pods(self, role: str | None = None) -> list[Object]:
        """The pods of a role, or of all, in the order in which they were made."""
        pods = [
            pod
            for owner, _ in self._owners()
            if role in (None, role_name(owner))
            for pod in self._pods(owner)
        ]
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def state(self, coordinator: str | None = None) -> JobState:
        """The state of the job.

        Args:
            coordinator: ``tcp://host:port`` by which this process reaches it.

        Returns:
            As ``JobState``; the student's Job must be there.
        """
        student = self.student
        assert student is not None
        roles = tuple(self._role(owner, wanted) for owner, wanted in self._owners())
        phase, reason = self._phase(student, roles)
        name = student["metadata"]["annotations"][NAME]
        return JobState(name, phase, coordinator, reason, roles)

    # --- the whole job ------------------------------------------------------------------------------

    def _phase(self, student: Object, roles: Sequence[RoleState]) -> tuple[Phase, str]:
        for owner, _ in self._owners():
            if owner["kind"] == "Job" and (failed := _condition(owner, "Failed")) is not None:
                return "failed", self._why_failed(owner, failed)
        if _condition(student, "Complete") is not None:
            return "succeeded", ""
        if "deletionTimestamp" in student["metadata"]:
            return "leaving", ""
        if any(role.count("running") for role in roles if role.name == role_name(student)):
            return "running", ""
        return "pending", self._why_pending(student, roles)

    def _why_failed(self, owner: Object, failed: Object) -> str:
        role, words = role_name(owner), _words(failed.get("reason"), failed.get("message"))
        for prepare in self.owners("prepare"):
            if prepare is not owner and _condition(prepare, "Complete") is None:
                role, words = role_name(prepare), ""  # nobody else has begun
        ends = [_process(pod).reason for pod in self.pods(role) if not _only_tells(pod)]
        said = next((reason for reason in reversed(ends) if reason), "")
        return f"{role}: {'; '.join(part for part in (words, said) if part)}"

    def _why_pending(self, student: Object, roles: Sequence[RoleState]) -> str:
        for claim in self._of("PersistentVolumeClaim"):
            if _is_pending(claim) and (words := self._warned(claim)):
                return f"claim {claim['metadata']['name']}: {words}"
        if student["spec"].get("suspend"):
            return "its Job is suspended, as by Kueue until its queue has room for it"
        for role in roles:
            for process in role.processes:
                if process.phase in ("pending", "failed") and process.reason:
                    return f"{process.id}: {process.reason}"
            if role.wanted > len(role.processes) and (owner := self.owner(role.name)) is not None:
                words = self._not_made(owner)
                if words:
                    return f"{role.name}: {words}"
        return ""

    # --- roles ----------------------------------------------------------------------------------------

    def _owners(self) -> list[tuple[Object, int]]:
        """The Deployments and Jobs of the roles, and how many pods each should have."""
        kinds = ("Deployment", "Job")
        owners = [each for each in self.objects if each["kind"] in kinds and _kind(each) in _ORDER]
        owners.sort(key=lambda each: (_ORDER.index(_kind(each)), each["metadata"]["name"]))
        return [(each, _wanted(each)) for each in owners]

    def _role(self, owner: Object, wanted: int) -> RoleState:
        processes = [_process(pod) for pod in self._pods(owner)]
        lacking = wanted - sum(process.phase in ("pending", "running") for process in processes)
        if lacking > 0 and not _ended(owner) and (words := self._not_made(owner)):
            processes.append(ProcessState(role_name(owner), "", "pending", reason=words))
        return RoleState(role_name(owner), wanted, tuple(processes), self._held(owner))

    def _held(self, owner: Object) -> int | None:
        scaler = self.scaler(role_name(owner))
        notes = (scaler or owner)["metadata"].get("annotations", {})
        number = notes.get(PAUSED if scaler is not None else ASKED, "")
        return int(number) if number.isdecimal() else None

    def _not_made(self, owner: Object) -> str:
        """Why pods are missing that nobody could make: quotas, admission, rights."""
        if (failure := _condition(owner, "ReplicaFailure")) is not None:
            return _words(failure.get("reason"), failure.get("message"))
        return self._warned(owner)

    def _warned(self, each: Object) -> str:
        """The last warning about an object, or about the ReplicaSets of a Deployment."""
        name = each["metadata"]["name"]
        about = [
            event
            for event in self.warnings
            if _same(event["involvedObject"], each["kind"], name)
            or (
                each["kind"] == "Deployment"
                and event["involvedObject"].get("kind") == "ReplicaSet"
                and str(event["involvedObject"].get("name")).rpartition("-")[0] == name
            )
        ]
        if not about:
            return ""
        last = max(about, key=_when)
        return _words(last.get("reason"), last.get("message"))

    def _pods(self, owner: Object) -> list[Object]:
        labels = owner["metadata"]["labels"]
        return [
            pod
            for pod in self._of("Pod")
            if all(pod["metadata"]["labels"].get(key) == labels[key] for key in (KIND, ROLE))
        ]

    def _of(self, kind: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] == kind]


def role_name(each: Object) -> str:
    """The name of the role that an object is of, as in the job file."""
    if _kind(each) == "teacher":
        return str(each["metadata"]["annotations"][GROUP])
    return _kind(each)


def _kind(each: Object) -> str:
    return str(each["metadata"]["labels"][KIND])


def _is_pending(claim: Object) -> bool:
    return bool(claim.get("status", {}).get("phase") == "Pending")


def _wanted(owner: Object) -> int:
    spec = owner["spec"]
    if owner["kind"] == "Deployment":
        return int(spec.get("replicas", 1))
    return 0 if _ended(owner) else int(spec.get("parallelism", 1))


def _ended(owner: Object) -> bool:
    return owner["kind"] == "Job" and any(_condition(owner, kind) for kind in ("Complete", "Failed"))


def _condition(each: Object, kind: str) -> Object | None:
    for condition in each.get("status", {}).get("conditions") or ():
        if condition["type"] == kind and condition["status"] == "True":
            found: Object = condition
            return found
    return None


# --- pods -------------------------------------------------------------------------------------------


def _process(pod: Object) -> ProcessState:
    status = pod.get("status", {})
    name = str(pod["metadata"]["name"])
    main = _main(status)
    phase: Phase
    if "deletionTimestamp" in pod["metadata"] and status.get("phase") in ("Pending", "Running"):
        phase = "leaving"
    elif status.get("phase") == "Running" and "running" in main.get("state", {}):
        phase = "running"
    else:
        phases: dict[str, Phase] = {"Succeeded": "succeeded", "Failed": "failed"}
        phase = phases.get(str(status.get("phase")), "pending")
    return ProcessState(
        id=name,
        engine_id=name,
        phase=phase,
        where=str(pod["spec"].get("nodeName", "")),
        reason="" if phase == "succeeded" else _before(main) if phase == "running" else _reason(status),
        restarts=int(main.get("restartCount", 0)),
    )


def _only_tells(pod: Object) -> bool:
    ended = _main(pod.get("status", {})).get("state", {}).get("terminated", {})
    return bool(ended.get("exitCode") == _ONLY_TELLS)


def _runs(pod: Object) -> bool:
    return _process(pod).phase in ("running", "succeeded")


def _main(status: Object) -> Object:
    """What is said of the container that matters."""
    found: Object = next(iter(status.get("containerStatuses") or ()), {})
    return found


def _reason(status: Object) -> str:
    """Why a pod does not run."""
    if status.get("reason") or status.get("message"):  # evicted, say
        return _words(status.get("reason"), status.get("message"))
    for container in status.get("initContainerStatuses") or ():
        state = container.get("state", {})
        if "terminated" in state and state["terminated"].get("exitCode") == 0:
            continue
        if "running" in state:
            return f"it waits for its init container `{container['name']}`"
        if words := _of_container(container):
            return f"init container `{container['name']}`: {words}"
    main = _main(status)
    if words := _of_container(main):
        return words
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _words(condition.get("reason"), condition.get("message"))
    return ""


def _before(container: Object) -> str:
    """How a container that runs ended the last time, if it did."""
    end = _of_container(container)
    return f"before: {end}" if end else ""


def _of_container(container: Object) -> str:
    """What a container waits for, or how it ended."""
    state = container.get("state", {})
    ended = state.get("terminated") or container.get("lastState", {}).get("terminated")
    end = _end(ended) if ended else ""
    waits = state.get("waiting")
    if waits is None:
        return end
    reason = waits.get("reason")
    if reason in ("ContainerCreating", "PodInitializing"):
        return ""
    return _words(reason, waits.get("message")) + (f"; before: {end}" if end else "")


def _end(ended: Object) -> str:
    """How a container ended, with the last line that it printed."""
    lines = [line for line in str(ended.get("message") or "").splitlines() if line.strip()]
    last = printable(lines[-1].strip()[:MOST_SAID]) if lines else ""
    more = f"exit code {ended.get('exitCode')}"
    if any(words in last for words in _OTHER_VERSION):
        more += (
            f", the image has another edldist than this one, which is {own_version()}: build the image from "
            "this one, or submit with that"
        )
    return _words(ended.get("reason"), last, more)


def _words(reason: Any, message: Any = None, more: str = "") -> str:
    """A reason and a message in one line, with what to do where that is known."""
    said = ": ".join(" ".join(str(part).split()) for part in (reason, message) if part)
    hint = _HINTS.get(str(reason), "")
    beside = ", ".join(part for part in (more, hint) if part)
    return f"{said} ({beside})" if beside else said


def _same(reference: Mapping[str, Any], kind: str, name: str) -> bool:
    return reference.get("kind") == kind and reference.get("name") == name


def _when(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def names(objects: Iterable[Object]) -> list[str]:
    """What objects are, for people."""
    return [f"{each['kind']} {each['metadata']['name']}" for each in objects]
