"""What a job's engine asks of the API, and whether this user may have it."""

from __future__ import annotations

from collections.abc import Iterator

from edldist_launch.kubernetes.kubectl import ClusterRefusedError, Kubectl
from edldist_launch.kubernetes.kustomization import Object

__all__ = ["lacks_namespace", "missing_rights"]

_MADE = (
    ("batch", "jobs"),
    ("apps", "deployments"),
    ("", "services"),
    ("", "configmaps"),
    ("", "secrets"),
    ("", "persistentvolumeclaims"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
)
_MORE = (
    ("patch", "batch", "jobs"),
    ("delete", "batch", "jobs"),
    ("patch", "apps", "deployments"),
    ("list", "", "pods"),
    ("delete", "", "pods"),
    ("list", "", "events"),
    ("get", "", "pods/log"),
    ("create", "", "pods/portforward"),
)


def missing_rights(kubectl: Kubectl) -> list[str]:
    """What this user may not do in a namespace of all that a job takes, as in ``create secrets``.

    Raises:
        ClusterRefusedError, ClusterUnreachableError: the API does not say.
    """
    reviews = [_review(kubectl.namespace, *each) for each in _asked()]
    answers = kubectl.create([{"apiVersion": "v1", "kind": "List", "items": reviews}])
    refused = [each for each in answers if not each["status"].get("allowed")]
    return [_words(each["spec"]["resourceAttributes"]) for each in refused]


def lacks_namespace(kubectl: Kubectl) -> bool:
    """Whether the namespace is not there; who may not look at it does not know."""
    try:
        kubectl.find("namespaces", kubectl.namespace)
    except ClusterRefusedError as exc:
        return "NotFound" in str(exc)
    return False


def _asked() -> Iterator[tuple[str, str, str]]:
    for group, kind in _MADE:
        yield "create", group, kind
    yield from _MORE


def _review(namespace: str, verb: str, group: str, kind: str) -> Object:
    resource, _, part = kind.partition("/")
    asked = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": part}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in asked.items() if value}},
    }


def _words(asked: Object) -> str:
    part = f"/{asked['subresource']}" if asked.get("subresource") else ""
    group = f".{asked['group']}" if asked.get("group") else ""
    return f"{asked['verb']} {asked['resource']}{part}{group}"
