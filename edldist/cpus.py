"""How many CPUs this process may use: by its affinity, and by the quotas of its control groups.

A container with a quota of two CPUs on a machine of 64 sees all 64. Threads beyond the quota only wait for
each other, for as long as the kernel holds all of them back.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["quota_binds", "usable_cpus"]

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
_CONTROLLERS = ("cpu,cpuacct", "cpuacct,cpu", "cpu")


def usable_cpus(control_groups: Path = CONTROL_GROUPS, own_groups: Path = OWN_GROUPS) -> int:
    """CPUs of this process's affinity, or the whole ones of the smallest quota above it; at least 1.

    Args:
        control_groups: where control groups are mounted.
        own_groups: the list of those that this process is in.
    """
    cpus = _affine_cpus()
    for quota in _quotas(control_groups, own_groups):
        cpus = min(cpus, int(quota))
    return max(1, cpus)


def quota_binds() -> bool:
    """Whether libraries that look at this process's affinity would take more than it may use."""
    return usable_cpus() < _affine_cpus()


def _affine_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(control_groups: Path, own_groups: Path) -> Iterator[float]:
    """Every quota that binds this process, in CPUs."""
    for line in _read(own_groups).splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:  # version 2; beside version 1 it has no CPU controller
            for folder in _upwards(control_groups, group):
                limit, _, period = _read(folder / "cpu.max").partition(" ")
                yield from _ratio(limit, period)
        elif "cpu" in controllers.split(","):
            for mount in _CONTROLLERS:
                for folder in _upwards(control_groups / mount, group):
                    limit = _read(folder / "cpu.cfs_quota_us")
                    yield from _ratio(limit, _read(folder / "cpu.cfs_period_us"))


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """A group's folder and all above it. In a container the path may be the host's, and not be there."""
    folder = mount / group.strip("/")
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def _ratio(limit: str, period: str) -> Iterator[float]:
    try:
        quota_us, period_us = float(limit), float(period)
    except ValueError:
        return  # "max", or no such file: no limit
    if quota_us > 0 and period_us > 0:  # version 1 says -1 for no limit
        yield quota_us / period_us


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
