"""Engines that place jobs on other machines, if their clients are here. None of them is needed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence

from edldist_launch.doctor.finding import Finding, ok, warn

__all__ = ["check_kubernetes", "check_podman", "check_slurm"]

ANSWER_S = 10.0


def check_slurm() -> Iterator[Finding]:
    """Whether Slurm's commands reach their controller, and which partitions there are."""
    if shutil.which("sbatch") is None or shutil.which("sinfo") is None:
        yield ok("slurm", "not here (edldist submit slurm needs sbatch)")
        return
    good, said = _ask(["sinfo", "--noheader", "--format=%P %a %D"])
    if good:
        rows = [line.split() for line in said.splitlines() if line.strip()]
        listed = ", ".join(sorted({row[0] for row in rows})) or "none"
        yield ok("slurm", f"partitions: {listed}")
    else:
        yield warn("slurm", f"sinfo: {said}", "is slurm.conf here that of a cluster, and its controller up?")


def check_kubernetes() -> Iterator[Finding]:
    """Whether kubectl reaches a cluster in which this user may make jobs."""
    if shutil.which("kubectl") is None:
        yield ok("kubernetes", "not here (edldist submit k8s needs kubectl)")
        return
    good, said = _ask(["kubectl", "auth", "can-i", "create", "deployments.apps", "--request-timeout=5s"])
    if good:
        yield ok("kubernetes", "kubectl reaches a cluster, and may make deployments there")
    elif said == "no":
        yield warn(
            "kubernetes",
            "kubectl reaches a cluster, and may not make deployments in its namespace",
            "ask for a role there, or choose another (kubectl config set-context --current --namespace NAME)",
        )
    else:
        yield warn(
            "kubernetes", f"kubectl: {said}", "is there a kubeconfig, and does this machine reach its server?"
        )


def check_podman() -> Iterator[Finding]:
    """What builds and runs images here."""
    found = [name for name in ("podman", "docker") if shutil.which(name) is not None]
    yield ok("containers", ", ".join(found) or "neither podman nor docker is here (only to build an image)")


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
