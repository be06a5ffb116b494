"""Where the coordinator of a folder's job listens: its engine tells, or what the job has recorded there."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from edldist.errors import ConfigError, LaunchError
from edldist_launch.contract.backend import JobState
from edldist_launch.contract.patience import Patience
from edldist_launch.record.eventfile import read_events
from edldist_launch.view.seen import WATCH_EVERY_S, Engine, has_ended

__all__ = ["coordinator_of"]


def coordinator_of(folder: Path, engine: Engine | None, wait: bool) -> str | None:
    """Where the coordinator of the folder's latest run listens; None where none does yet.

    Args:
        wait: until one does, while the job goes on.

    Raises:
        ConfigError: the folder is none that a job writes to, or its job has no coordinator yet.
        LaunchError: the engine does not tell, and the folder does not either.
    """
    if engine is None:
        return _recorded(folder)
    patience = Patience()
    state: JobState | None = None
    while True:
        try:
            state = patience.ask(engine, state)
        except LaunchError:
            with contextlib.suppress(ConfigError):
                return _recorded(folder)
            raise
        if state is not None and state.coordinator is not None:
            return state.coordinator
        if not wait or has_ended(state):
            return None
        time.sleep(WATCH_EVERY_S)


def _recorded(folder: Path) -> str:
    """The same by the folder's events."""
    try:
        started = [event for event in read_events(folder / "events.jsonl") if _is_start(event)]
    except OSError as exc:
        raise ConfigError(f"--output {folder}: no job writes there (no events.jsonl in it)") from exc
    if not started:
        raise ConfigError(f"--output {folder}: its job has started no coordinator yet")
    return str(started[-1]["address"])


def _is_start(event: dict[str, Any]) -> bool:
    return event["event"] == "coordinator_started" and "address" in event
