"""What the system lets a process have: CPUs, memory, descriptors, processes, memory that is shared."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil

from edldist.cpus import usable_cpus
from edldist.errors import SharedMemoryError
from edldist.wire.shm.allowance import memory_bytes
from edldist.wire.shm.memfile import address_of, make_file, open_file
from edldist_launch.doctor.finding import Finding, fail, ok, warn
from edldist_launch.machine.room import LEAST_PROCESS_BYTES

__all__ = [
    "check_cpus",
    "check_descriptors",
    "check_memory",
    "check_processes",
    "check_shared_files",
    "check_shm",
]

LEAST_JOB_PROCESSES = 4
"""A coordinator, a teacher worker, a student node and a rank."""
GOOD_FREE_BYTES = 2 << 30
LEAST_DESCRIPTORS = 256
GOOD_DESCRIPTORS = 1_024
LEAST_PROCESSES = 256
SHM = Path("/dev/shm")
LEAST_SHM_BYTES = 16 << 20
GOOD_SHM_BYTES = 256 << 20
"""Containers get 64 MiB unless they are told otherwise: a few batches of images."""


def check_cpus() -> Iterator[Finding]:
    """How many CPUs there are, and are left by quotas."""
    usable, all_cpus = usable_cpus(), os.cpu_count() or 1
    bound = f" of {all_cpus}, by its affinity or a quota" if usable < all_cpus else ""
    chosen = os.environ.get("OMP_NUM_THREADS")
    threads = f"; OMP_NUM_THREADS={chosen} decides the threads of each process" if chosen else ""
    yield ok("cpus", f"{usable}{bound}{threads}")


def check_memory() -> Iterator[Finding]:
    """The machine's memory, or what a container may use of it."""
    limit, free = memory_bytes(), psutil.virtual_memory().available
    whole = psutil.virtual_memory().total
    here = f"{_size(limit)}" + (
        f" of {_size(whole)}, by a limit of its control group" if limit < whole else ""
    )
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        yield warn(
            "memory",
            f"a process may map {_size(soft)} only (ulimit -v): torch maps far more than it uses",
            "ulimit -v unlimited",
        )
    least = LEAST_JOB_PROCESSES * LEAST_PROCESS_BYTES
    if min(limit, free) < least:
        yield fail(
            "memory",
            f"{here}, {_size(free)} free: the smallest job takes {_size(least)}",
            "give the container more memory, or end what uses it",
        )
    elif min(limit, free) < GOOD_FREE_BYTES:
        yield warn(
            "memory",
            f"{here}, {_size(free)} free: every process that imports torch takes some 300 MiB",
            "give the container more memory, or run few processes",
        )
    else:
        yield ok("memory", f"{here}, {_size(free)} free")


def check_descriptors() -> Iterator[Finding]:
    """Open files: a member is one for the coordinator, a tensor of a data loader's worker for a rank."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = f"{_number(soft)} (at most {_number(hard)})"
    if hard != resource.RLIM_INFINITY and hard < LEAST_DESCRIPTORS:
        yield fail(
            "descriptors", f"{said} open files: a rank needs some hundred", "raise ulimit -Hn to 65536"
        )
    elif soft != resource.RLIM_INFINITY and soft < GOOD_DESCRIPTORS:
        yield warn(
            "descriptors",
            f"{said} open files: a rank whose data loader has workers may need more",
            f"ulimit -n {_number(hard)}",
        )
    else:
        yield ok("descriptors", f"{said} open files")


def check_processes() -> Iterator[Finding]:
    """How many processes and threads a user may have."""
    soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if soft != resource.RLIM_INFINITY and soft < LEAST_PROCESSES:
        yield warn(
            "processes",
            f"this user may have {soft} processes and threads: a job has some ten for each worker and rank",
            "ulimit -u 4096",
        )
    else:
        yield ok("processes", f"{_number(soft)} processes and threads of this user")


def check_shm() -> Iterator[Finding]:
    """``/dev/shm``, through which torch's data loaders hand over what their workers read."""
    probe = SHM / f"edldist-doctor-{os.getpid()}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
        room = os.statvfs(SHM)
    except OSError as exc:
        yield fail(
            "shared memory",
            f"{SHM} cannot be written ({exc.strerror}): data loaders with workers fail",
            f"mount a tmpfs at {SHM}, or use num_workers=0",
        )
        return
    size = room.f_blocks * room.f_frsize
    said = f"{SHM} has {_size(size)}, {_size(room.f_bavail * room.f_frsize)} free"
    remedy = "give the container more (docker run --shm-size 8g; in Kubernetes an emptyDir of medium Memory)"
    if size < LEAST_SHM_BYTES:
        yield fail("shared memory", f"{said}: data loaders with workers die of a bus error", remedy)
    elif size < GOOD_SHM_BYTES:
        yield warn("shared memory", f"{said}: data loaders with workers may die of a bus error", remedy)
    else:
        yield ok("shared memory", said)


def check_shared_files() -> Iterator[Finding]:
    """Files of memory without a name: the way of tensors between processes of one host."""
    try:
        lent = make_file(1 << 20)
        try:
            borrowed, size = open_file(address_of(lent), sealed=True, writable=True)
            os.close(borrowed)
        finally:
            os.close(lent)
    except SharedMemoryError as exc:
        yield warn(
            "memory files",
            f"{exc}: tensors go through sockets even on one host",
            "allow memfd_create, and /proc/PID/fd of one's own processes, in the container's profile",
        )
        return
    yield ok("memory files", "tensors of one host go through shared memory")


def _size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _number(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
