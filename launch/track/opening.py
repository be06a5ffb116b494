"""A run's trackers, out of its job file and this process's variables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edldist.config import JobConfig
from edldist_launch.track.choice import choose
from edldist_launch.track.feed import TrackerFeed
from edldist_launch.track.tracker import Run

__all__ = ["feed_of", "settings_of"]

_PRIVATE = ("env", "kubernetes", "slurm")
"""Sections that may hold what is nobody else's: variables, names of Secrets, of accounts and of clusters."""


def feed_of(
    name: str, folder: Path, environment: Mapping[str, str], job: JobConfig | None = None
) -> TrackerFeed:
    """The trackers of a run; none of them is begun before the first figures come.

    Args:
        name: of the job.
        folder: its output folder.
        environment: the variables of this process.
        job: the job file; None for a run that has none, which has the trackers that variables begin.
    """
    chosen = choose(None if job is None else job.trackers, environment)
    settings = {} if job is None else settings_of(job)
    return TrackerFeed(chosen, Run(name, folder, settings, {}))


def settings_of(job: JobConfig) -> dict[str, Any]:
    """What trackers may know of a job file."""
    settings: dict[str, Any] = _public(job.model_dump(mode="json", exclude_defaults=True))
    return settings


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _public(value[key]) for key in value if key not in _PRIVATE}
    return [_public(each) for each in value] if isinstance(value, list) else value
