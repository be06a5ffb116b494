"""The machine and the versions that figures were measured with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

from edldist.cpus import usable_cpus

__all__ = ["describe_machine", "machine_line"]

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("edldist", "torch", "pyzmq", "msgspec", "numpy")


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, kernel, versions, load, and the revision if this is a checkout."""
    return {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cpus(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "load_at_start": [round(load, 2) for load in os.getloadavg()],
        "revision": _revision(),
    }


def machine_line(machine: dict[str, Any]) -> str:
    """One line for a person."""
    packages = machine["packages"]
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB",
        machine["kernel"],
        f"Python {machine['python']}",
        *(f"{name} {packages[name]}" for name in ("torch", "pyzmq")),
    ]
    if machine["revision"]:
        parts.append(f"revision {machine['revision']}")
    return ", ".join(parts)


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The commit of this checkout, marked if files of it were changed since; None outside of one."""
    if not (ROOT / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{commit} with changes" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *args], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
