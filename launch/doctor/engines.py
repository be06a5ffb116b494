"""Engines that place jobs on other machines, if their clients are here. None of them is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence

from edldist.errors import LaunchError
from edldist.grace import KILL_S
from edldist_launch.doctor.finding import Finding, ok, warn
from edldist_launch.kubernetes.kubectl import Answer, Kubectl
from edldist_launch.kubernetes.rights import lacks_namespace, missing_rights

__all__ = ["check_kubernetes", "check_podman", "check_slurm"]

ANSWER_S = 10.0


def check_slurm(kill_s: float = KILL_S) -> Iterator[Finding]:
    """Whether Slurm's commands reach their controller, which partitions there are, and how it ends processes.

    Args:
        kill_s: how long the job's processes may take to leave.
    """
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        yield ok("slurm", "not here (edldist submit slurm needs sbatch)")
        return
    good, said = _ask(["sinfo", "--noheader", "--format=%P %a %D"])
    if good:
        rows = [line.split() for line in said.splitlines() if line.strip()]
        listed = ", ".join(sorted({row[0] for row in rows})) or "none"
        yield ok("slurm", f"partitions: {listed}")
        yield from _slurm_times(kill_s)
    else:
        yield warn("slurm", f"sinfo: {said}", "is slurm.conf here that of a cluster, and its controller up?")


def _slurm_times(kill_s: float) -> Iterator[Finding]:
    """How long this cluster lets processes leave that it ends, where that is less than they may take.

    Kubernetes is told that time with each pod; Slurm has its own.
    """
    good, said = _ask(["scontrol", "show", "config"])
    settings = dict(re.findall(r"(?m)^(\w+)\s*=\s*(\S*)", said)) if good else {}
    short = []
    if 0 <= (wait_s := _seconds(settings.get("KillWait"))) < kill_s:
        short.append(f"KillWait is {wait_s} s (scancel, time limits)")
    good, said = _ask(["scontrol", "show", "partition", "-o"])
    for line in said.splitlines() if good else ():
        partition = dict(re.findall(r"(\w+)=(\S*)", line))
        preempted = partition.get("PreemptMode", "OFF") not in ("OFF", "GANG")
        if preempted and 0 <= (grace_s := _seconds(partition.get("GraceTime"))) < kill_s:
            name = partition.get("PartitionName", "?")
            short.append(f"GraceTime of partition {name} is {grace_s} s (preemption)")
    if short:
        yield warn(
            "slurm times",
            f"{'; '.join(short)}: less than grace.kill_s, {kill_s:g} s, which processes may take to leave in "
            "order; those that need it lose the steps since the last checkpoint",
            "have them leave sooner (grace: {drain_s, student_s, kill_s} in the job file), save more often "
            "(checkpoint: {every_steps}), or ask the cluster's keepers for more",
        )


def _seconds(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else -1


def check_kubernetes() -> Iterator[Finding]:
    """Whether kubectl reaches a cluster, and what this user may not do there of all that a job takes."""
    if shutil.which("kubectl") is None:
        yield ok("kubernetes", "not here (edldist submit k8s needs kubectl)")
        return
    kubectl = Kubectl(None, None, _run_kubectl)
    choose = "choose another (kubectl config set-context --current --namespace NAME, or kubernetes.namespace)"
    try:
        absent = lacks_namespace(kubectl)  # first: of a server that is not there, kubectl says so plainly
        missing = [] if absent else missing_rights(kubectl)
    except LaunchError as exc:
        yield warn("kubernetes", str(exc), "is there a kubeconfig, and does this machine reach its server?")
        return
    if absent:
        yield warn("kubernetes", f"the cluster has no namespace {kubectl.namespace}", choose)
    elif missing:
        said = f"in namespace {kubectl.namespace} you may not: {', '.join(missing)}"
        yield warn("kubernetes", said, f"ask for a role there, or {choose}")
    else:
        yield ok(
            "kubernetes", f"kubectl reaches a cluster, and may run jobs in namespace {kubectl.namespace}"
        )


def check_podman() -> Iterator[Finding]:
    """What builds and runs images here."""
    found = [name for name in ("podman", "docker") if shutil.which(name) is not None]
    yield ok("containers", ", ".join(found) or "neither podman nor docker is here (only to build an image)")


def _run_kubectl(arguments: Sequence[str], given: str) -> Answer:
    """``kubectl``, which has as long as any engine has to answer."""
    try:
        command = ["kubectl", *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=ANSWER_S)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return 1, "", f"kubectl {arguments[0]}: {exc}"
    return done.returncode, done.stdout, done.stderr


def _ask(command: Sequence[str]) -> tuple[bool, str]:
    """Whether a command succeeded, and what it said, or the last line of why not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ANSWER_S)
    except subprocess.TimeoutExpired:
        return False, f"no answer within {ANSWER_S:.0f} s"
    except OSError as exc:
        return False, exc.strerror or str(exc)
    if done.returncode == 0:
        return True, done.stdout.strip()
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return False, lines[-1] if lines else f"exit code {done.returncode}"
