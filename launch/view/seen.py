"""What there is to see of a job, from its coordinator and from the engine that placed it: once, or again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edldist.errors import CoordinatorUnreachableError, LaunchError
from edldist.wire.messages import Status
from edldist.wire.query import StatusClient
from edldist_launch.contract.backend import JobState
from edldist_launch.contract.patience import OUTAGE_S
from edldist_launch.record.earlier import read_result

__all__ = ["TIMEOUT_S", "WATCH_EVERY_S", "Engine", "Seen", "ask_engine", "has_ended", "watch_job"]

TIMEOUT_S = 2.0
WATCH_EVERY_S = 1.0

Engine = Callable[[], JobState]
"""What tells how the engine that placed a job's processes sees them."""


@dataclass(frozen=True)
class Seen:
    """A job as its coordinator, and as its engine, tell it.

    Attributes:
        status: None: the coordinator did not answer, or is not there yet.
        placed: None: no engine was asked; text: why it could not tell.
    """

    status: Status | None
    placed: JobState | str | None = None


def ask_engine(engine: Engine | None) -> JobState | str | None:
    """How an engine sees a job; its words where it does not tell, None where there is none to ask."""
    try:
        return engine() if engine is not None else None
    except LaunchError as exc:
        return str(exc)


def has_ended(placed: JobState | str | None) -> bool:
    """Whether an engine says so of a job."""
    return isinstance(placed, JobState) and placed.phase in ("succeeded", "failed")


def watch_job(coordinator: str, folder: Path | None = None, engine: Engine | None = None) -> Iterator[Seen]:
    """What there is to see, once a second, until the folder has a result, or the engine says that it is over.

    Args:
        coordinator: its address; an engine may tell another one later.

    Raises:
        LaunchError: neither of both has told anything for ``OUTAGE_S``.
    """
    client = StatusClient(coordinator)
    heard = time.monotonic()
    try:
        while folder is None or read_result(folder / "result.json") is None:
            begun = time.monotonic()
            status: Status | None = None
            with contextlib.suppress(CoordinatorUnreachableError):
                status = client.query(0, TIMEOUT_S)
            placed = ask_engine(engine)
            if status is not None or isinstance(placed, JobState) or engine is None:
                heard = time.monotonic()
            elif time.monotonic() - heard > OUTAGE_S:
                raise LaunchError(
                    f"neither the coordinator at {coordinator} nor the engine has told for "
                    f"{OUTAGE_S / 60:.0f} minutes how the job is: {placed}"
                )
            yield Seen(status, placed)
            if has_ended(placed):
                return
            if isinstance(placed, JobState) and placed.coordinator not in (None, coordinator):
                client.close()
                coordinator = str(placed.coordinator)
                client = StatusClient(coordinator)
            time.sleep(max(0.0, begun + WATCH_EVERY_S - time.monotonic()))
    finally:
        client.close()
