"""``edldist doctor --job``: a few seconds of a running job, and what is to be said of them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

from edldist.errors import CoordinatorUnreachableError, EdlDistError, RefusedError
from edldist.wire.messages import Status
from edldist.wire.query import StatusClient
from edldist_launch.doctor.bottleneck import diagnose
from edldist_launch.doctor.finding import Finding, warn
from edldist_launch.doctor.job_figures import figures_between
from edldist_launch.doctor.job_path import PathFigures, path_figures
from edldist_launch.view.traces import processes_of, take_trace

__all__ = ["examine_job"]

ANSWER_S = 5.0
SAMPLE = 4
"""One task in so many is followed: what is asked for are medians."""


def examine_job(coordinator: str, seconds: float) -> list[Finding]:
    """Look at a job for so long.

    Raises:
        CoordinatorUnreachableError: it does not answer, or no more: the job ended meanwhile.
        RefusedError: this is no operator's key.
        EdlDistError: the coordinator was started again meanwhile.
    """
    with contextlib.closing(StatusClient(coordinator)) as client:
        before = client.query(0, ANSWER_S)
        untraced: list[Finding] = []
        paths: dict[str, PathFigures] | None = None
        begun = time.monotonic()
        if before.members:
            try:
                paths = path_figures(processes_of(take_trace(coordinator, seconds, SAMPLE)))
            except RefusedError as exc:
                untraced = [warn("trace", f"no trace says where tasks spend their time: {exc}", "ask again")]
        time.sleep(max(0.0, seconds - (time.monotonic() - begun)))
        try:
            after = client.query(0, ANSWER_S)
        except CoordinatorUnreachableError as exc:
            raise CoordinatorUnreachableError(
                f"the coordinator at {coordinator} answered, and {seconds:g} s later it did not: the job has "
                "ended, or its coordinator is being started again"
            ) from exc
    if after.incarnation != before.incarnation:
        raise EdlDistError("the coordinator was started again while it was asked: ask once more")
    figures = figures_between(before, after)
    return [*diagnose(figures, paths, _link_bytes_per_s(after)), *untraced]


def _link_bytes_per_s(status: Status, host: Callable[[], str] = socket.gethostname) -> float | None:
    """What the fastest network of this machine carries, where it is the one of all students."""
    if {member.host for member in status.members if member.role == "student"} != {host()}:
        return None
    import psutil

    speeds = [
        each.speed for name, each in psutil.net_if_stats().items() if each.isup and not name.startswith("lo")
    ]
    most = max(speeds, default=0)  # megabits per second; 0 where the system does not say
    return most * 1e6 / 8 or None
