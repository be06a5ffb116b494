"""Whether the cluster has what a job file names, asked before anything is made."""

from __future__ import annotations

from collections.abc import Iterator

from edldist.config import KubernetesConfig
from edldist.errors import ConfigError
from edldist_launch.kubernetes.kubectl import ClusterRefusedError, Kubectl
from edldist_launch.plan.plan import Plan

__all__ = ["check_named"]

_NOT_THERE = ("NotFound", "doesn't have a resource type")


def check_named(plan: Plan, kubectl: Kubectl) -> None:
    """Refuse a job that names a namespace, a queue, a claim, a Secret or a class that is not there.

    Of these the API itself misses the namespace alone; without the others the job's pods wait for ever. What
    this user may not look at is left to it.

    Raises:
        ConfigError: something is not there, with the API's own words.
        ClusterUnreachableError: the cluster does not answer.
    """
    named = _named(plan, plan.job.kubernetes or KubernetesConfig())
    for key, kind, name in dict.fromkeys([("namespace", "namespaces", kubectl.namespace), *named]):
        try:
            kubectl.find(kind, name)
        except ClusterRefusedError as exc:
            if any(words in str(exc) for words in _NOT_THERE):
                raise ConfigError(f"kubernetes.{key}: {name} is not there. {exc}") from exc


def _named(plan: Plan, settings: KubernetesConfig) -> Iterator[tuple[str, str, str]]:
    """The key, the kind and the name of everything that a job file names, but for the namespace."""
    for name in settings.pull_secrets:
        yield "pull_secrets", "secrets", name
    if settings.storage_class is not None:
        yield "storage_class", "storageclasses.storage.k8s.io", settings.storage_class
    if settings.claim is not None:
        yield "claim", "persistentvolumeclaims", settings.claim
    for role in plan.roles:
        placement = settings.of(role.kind, role.name)
        for volume in placement.volumes or ():
            if volume.claim is not None:
                yield "volumes", "persistentvolumeclaims", volume.claim
        for name in placement.secrets or ():
            yield "secrets", "secrets", name
        if placement.queue is not None and role.kind in ("teacher", "student"):
            yield "queue", "localqueues.kueue.x-k8s.io", placement.queue
        if placement.priority_class is not None:
            yield "priority_class", "priorityclasses.scheduling.k8s.io", placement.priority_class
