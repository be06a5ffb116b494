"""What a tracker is, and what it is told of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edldist.errors import EdlDistError

__all__ = ["Figures", "Run", "Tracker", "TrackerError", "not_importable", "not_installed"]


class TrackerError(EdlDistError):
    """A tracker is not installed, or wants something that it was not given."""


@dataclass(frozen=True)
class Run:
    """The run that is tracked.

    Attributes:
        job: its name.
        folder: its output folder; what a tracker keeps locally goes there.
        settings: the job file, without what may be secret.
        known: ids that trackers gave this run when it began, by tracker; a run that goes on is theirs, too.
    """

    job: str
    folder: Path
    settings: Mapping[str, Any]
    known: Mapping[str, str]


@dataclass(frozen=True)
class Figures:
    """Numbers of one moment, by name.

    Attributes:
        step: of the training loop.
        t: unix seconds.
    """

    step: int
    t: float
    values: Mapping[str, float]


def not_installed(name: str) -> str:
    """That a tracker's library is not here, and what to do."""
    return f"{name} is not installed: pip install 'edldist[{name}]'"


def not_importable(name: str, exc: ImportError) -> TrackerError:
    """Why a tracker's library cannot be used: it is not there, or something that it needs itself is not."""
    if exc.name is None or exc.name.partition(".")[0] == name:
        return TrackerError(not_installed(name))
    return TrackerError(f"{name} is installed, and cannot be imported: {exc}")


class Tracker(Protocol):
    """One place to which figures go. Owned by the feed's thread; whatever it raises is said once.

    Made by a function of a ``Run``, which imports the library, and may raise anything too.
    """

    @property
    def id(self) -> str:
        """What it knows the run by; empty where it needs nothing to go on with it."""
        ...

    def log(self, figures: Figures) -> None: ...

    def end(self, status: str, result: Mapping[str, float]) -> None:
        """The run is over.

        Args:
            status: completed, failed or interrupted.
            result: the last figures of ``result.json``.
        """
        ...
