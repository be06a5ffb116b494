"""A job's objects are made all, or none; and removed all, but for its claim.

The student's Job is made first and owns the others, so that Kubernetes removes them with it: when somebody
deletes it, when it has ended for so long as it is kept, and when a submission broke off that had only just
begun. What is of teachers is owned by another Job between, which runs until the students have ended and is
removed then at once: workers are expensive. Whatever is left carries the job's label, and is found by it.

::

    nothing there --may it all be made?--> Jobs --> everything else --> all there
                         |                   |            |
                         no                  +--refused---+--> Job deleted, and with it what it owns
                                             +--no answer-+--> the same, once there is one; else said

All that one submission makes carries a label of its own: one that fails removes nothing of another, of the
same job, which was faster.
"""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Sequence
from typing import Any

from edldist.errors import LaunchError
from edldist_launch.kubernetes.kubectl import ClusterRefusedError, ClusterUnreachableError, Kubectl
from edldist_launch.kubernetes.kustomization import Object
from edldist_launch.kubernetes.render import JOB, KIND
from edldist_launch.kubernetes.state import names

__all__ = ["OWNED", "WATCHED", "place", "remove", "try_out"]

WATCHED = "jobs.batch,deployments.apps,pods,persistentvolumeclaims"
"""What tells the state of a job."""
OWNED = "jobs.batch,deployments.apps,pods,services,configmaps,secrets,poddisruptionbudgets.policy"
SUBMISSION = "edldist/submission"
"""Label: which submission made it."""
_CLAIM = "PersistentVolumeClaim"
GONE_S = 120.0
LOOK_S = 0.5


def place(objects: Sequence[Object], kubectl: Kubectl) -> None:
    """Make all objects of a job, or none.

    Raises:
        ClusterRefusedError: one cannot be made, with the API's own words; nothing is left.
        ClusterUnreachableError: the cluster went away meanwhile; the message says what may be left.
    """
    lacking = try_out(objects, kubectl)
    new_claims = [each for each in lacking if each["kind"] == _CLAIM]
    job, end = (next(each for each in lacking if _kind(each) == kind) for kind in ("student", "end"))
    others = [each for each in lacking if each is not job and each is not end and each["kind"] != _CLAIM]
    mark = secrets.token_hex(4)
    try:
        kubectl.create([_marked(each, mark) for each in new_claims])
        (made,) = kubectl.create([_marked(job, mark)])
        (until,) = kubectl.create([_owned(_marked(end, mark), made)])
        owners = [until if _kind(each) == "teacher" else made for each in others]
        kubectl.create([_owned(_marked(each, mark), by) for each, by in zip(others, owners, strict=True)])
    except LaunchError as exc:
        _undo(job, mark, kubectl, exc)
        raise


def try_out(objects: Sequence[Object], kubectl: Kubectl) -> list[Object]:
    """Those objects of a job that are to be made: not a claim that is there. The API would take them all.

    Raises:
        ClusterRefusedError: it would not, with its own words.
        ClusterUnreachableError: it does not answer.
    """
    there = {
        each["metadata"]["name"] for each in kubectl.get("persistentvolumeclaims", _selector(objects[0]))
    }
    lacking = [each for each in objects if each["kind"] != _CLAIM or each["metadata"]["name"] not in there]
    kubectl.create(lacking, dry_run=True)
    return lacking


def remove(selector: str, kubectl: Kubectl, wait_s: float = GONE_S) -> None:
    """Remove everything of a job but its claim, and wait until it is gone.

    Args:
        selector: the labels by which it is found.

    Raises:
        LaunchError: the API refuses, or something is still there after ``wait_s``.
    """
    kubectl.delete("jobs.batch", selector)
    deadline = time.monotonic() + wait_s
    while left := kubectl.get(OWNED, selector):
        if time.monotonic() > deadline:
            still = ", ".join(names(left)[:5])
            raise LaunchError(f"after {wait_s:g} s namespace {kubectl.namespace} still has: {still}")
        time.sleep(LOOK_S)


def _kind(each: Object) -> str:
    return str(each["metadata"]["labels"][KIND])


def _owned(each: Object, owner: Object) -> Object:
    reference: dict[str, Any] = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return {**each, "metadata": {**each["metadata"], "ownerReferences": [reference]}}


def _marked(each: Object, mark: str) -> Object:
    """An object, and its pods if it makes some, that tell which submission made them."""
    marked = copy.deepcopy(each)
    for template in (marked, marked.get("spec", {}).get("template")):
        if template is not None:
            template["metadata"]["labels"][SUBMISSION] = mark
    return marked


def _undo(job: Object, mark: str, kubectl: Kubectl, reason: LaunchError) -> None:
    """Remove what this submission made, after a failure.

    Raises:
        ClusterUnreachableError: there is still no answer.
    """
    label = job["metadata"]["labels"][JOB]
    ours = f"{JOB}={label},{SUBMISSION}={mark}"
    try:
        remove(ours, kubectl)
        if not kubectl.get("jobs.batch", f"{JOB}={label}"):  # else another submission uses the claim by now
            kubectl.delete("persistentvolumeclaims", ours)
    except ClusterRefusedError as exc:
        raise ClusterUnreachableError(f"{reason}. What was made of it could not be removed: {exc}") from exc
    except LaunchError as exc:
        raise ClusterUnreachableError(
            f"{reason}. What was made of it may still be in namespace {kubectl.namespace} "
            f"(label {JOB}={label}): `edldist stop` removes it"
        ) from exc


def _selector(each: Object) -> str:
    return f"{JOB}={each['metadata']['labels'][JOB]}"
