"""A Kubernetes API of a test's own, as ``kubectl`` shows it: objects, owners, refusals, and silence."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from edldist_launch.kubernetes.kubectl import Answer

__all__ = ["FakeApi"]

Object = dict[str, Any]
SILENCE = "Unable to connect to the server: dial tcp 10.0.0.1:6443: i/o timeout"
_PLURALS = {
    "pods": "Pod",
    "jobs.batch": "Job",
    "deployments.apps": "Deployment",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "scaledobjects.keda.sh": "ScaledObject",
    "services": "Service",
    "configmaps": "ConfigMap",
    "secrets": "Secret",
    "poddisruptionbudgets.policy": "PodDisruptionBudget",
    "events": "Event",
    "namespaces": "Namespace",
}


class FakeApi:
    """One namespace, ``lab``. It makes no pods: a test does.

    Attributes:
        objects: what there is in it.
        asked: the requests, as ``create Job``, in their order.
        refuse: from a request to why it is refused, or None.
        silent_from: the number of the request from which on it does not answer; ``heals_at`` ends that.
    """

    def __init__(self) -> None:
        self.objects: list[Object] = []
        self.asked: list[str] = []
        self.refuse: Callable[[str], str | None] = lambda request: None
        self.silent_from: int | None = None
        self.heals_at: int | None = None
        self._uids = itertools.count(1)
        self._requests = itertools.count()

    def run(self, arguments: Sequence[str], given: str) -> Answer:
        """What ``kubectl`` would say."""
        verb, *rest = [word for word in arguments if not word.startswith("--request-timeout")]
        if verb == "config":
            return 0, "lab", ""
        number = next(self._requests)
        words = [word for word in rest if not word.startswith("-")]
        dry = "--dry-run=server" in rest
        body = json.loads(given) if given else {}
        what = body.get("kind") or words[0]
        request = f"{verb} {what}{' dry' if dry else ''}"
        self.asked.append(request)
        quiet = self.silent_from is not None and number >= self.silent_from
        if quiet and (self.heals_at is None or number < self.heals_at):
            return 1, "", SILENCE
        if (reason := self.refuse(request)) is not None:
            return 1, "", reason
        return self._do(verb, rest, words, body, dry)

    def _do(self, verb: str, rest: Sequence[str], words: Sequence[str], body: Object, dry: bool) -> Answer:
        if verb == "create":
            return self._create(body, dry)
        if verb == "get" and "--selector" not in rest and words[0] != "events":
            return self._one(words[0], words[1])
        if verb == "get":
            kinds = {_PLURALS[kind] for kind in words[0].split(",")}
            found = [each for each in self._chosen(rest) if each["kind"] in kinds]
            return 0, json.dumps({"items": found}), ""
        if verb == "patch":
            self._patch(_PLURALS[words[0]], words[1], json.loads(rest[rest.index("--patch") + 1]))
            return 0, "", ""
        if verb == "delete":
            kinds = {_PLURALS[kind] for kind in words[0].split(",")}
            for each in self._chosen(rest):
                if each["kind"] in kinds:
                    self.objects.remove(each)
            self._collect()
            return 0, "", ""
        raise AssertionError(verb)

    def _create(self, body: Object, dry: bool) -> Answer:
        kind, name = body["kind"], body["metadata"]["name"]
        if any((each["kind"], each["metadata"]["name"]) == (kind, name) for each in self.objects):
            return 1, "", f'Error from server (AlreadyExists): {kind} "{name}" already exists'
        made = copy.deepcopy(body)
        made["metadata"]["uid"] = f"uid-{next(self._uids)}"
        if not dry:
            self.objects.append(made)
        return 0, json.dumps(made), ""

    def _one(self, kind: str, name: str) -> Answer:
        known = _PLURALS.get(kind, kind)
        for each in [*self.objects, {"kind": "Namespace", "metadata": {"name": "lab"}}]:
            if each["kind"] == known and each["metadata"]["name"] == name:
                return 0, json.dumps(each), ""
        return 1, "", f'Error from server (NotFound): {kind} "{name}" not found'

    def _chosen(self, rest: Sequence[str]) -> list[Object]:
        if "--selector" not in rest:
            key, value = rest[rest.index("--field-selector") + 1].split("=")
            return [each for each in self.objects if each["kind"] == "Event" and each[key] == value]
        wanted = dict(pair.split("=") for pair in rest[rest.index("--selector") + 1].split(","))
        return [each for each in self.objects if wanted.items() <= each["metadata"].get("labels", {}).items()]

    def _patch(self, kind: str, name: str, change: Object) -> None:
        found = self.object(kind, name)
        _merge(found, change)

    def _collect(self) -> None:
        """Remove what is owned by nothing that is there."""
        count = None
        while count != (count := len(self.objects)):
            there = {each["metadata"].get("uid") for each in self.objects}
            self.objects = [
                each
                for each in self.objects
                if all(owner["uid"] in there for owner in each["metadata"].get("ownerReferences", ()))
            ]

    # --- for tests ---------------------------------------------------------------------------------

    def object(self, kind: str, name: str) -> Object:
        """The object of that name."""
        (found,) = [
            each for each in self.objects if each["kind"] == kind and each["metadata"]["name"] == name
        ]
        return found

    @property
    def kinds(self) -> list[str]:
        """The kinds of all objects that there are."""
        return sorted(each["kind"] for each in self.objects)

    def pod(self, owner: Object, name: str, status: Object, **metadata: Any) -> Object:
        """Make a pod as a Deployment's or a Job's controller would."""
        template = copy.deepcopy(owner["spec"]["template"])
        owners = {"ownerReferences": [{"uid": owner["metadata"]["uid"]}]}
        pod = {"kind": "Pod", "metadata": {**template["metadata"], "name": name, **owners, **metadata}}
        pod |= {"spec": template["spec"], "status": status}
        self.objects.append(pod)
        return pod

    def warn(
        self,
        kind: str,
        name: str,
        reason: str,
        message: str,
        at: str = "2026-01-01T00:00:00Z",
        severity: str = "Warning",
    ) -> None:
        """Add an event about an object."""
        about = {"kind": kind, "name": name}
        event = {"kind": "Event", "metadata": {"name": f"e{len(self.objects)}"}, "involvedObject": about}
        event |= {"type": severity, "reason": reason, "message": message, "lastTimestamp": at}
        self.objects.append(event)


def _merge(into: Object, change: Object) -> None:
    for key, value in change.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value
