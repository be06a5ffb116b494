"""A job that has no coordinator yet: what it waits for, until there is something to watch."""

from __future__ import annotations

from pathlib import Path

from edldist_launch.view.console import PlainConsole
from edldist_launch.view.seen import Engine, ask_engine, has_ended
from edldist_launch.view.status import show_status_of_folder
from edldist_launch.view.whereabouts import coordinator_of

__all__ = ["await_coordinator"]


def await_coordinator(folder: Path, engine: Engine, console: PlainConsole) -> None:
    """Say what a job waits for, and wait until it has a coordinator, or has ended.

    Raises:
        LaunchError: the engine does not tell.
    """
    if has_ended(ask_engine(engine)):
        return
    show_status_of_folder(folder, False, console, engine=engine)
    console.print("it is shown here as soon as its coordinator is there; Ctrl-C ends that")
    coordinator_of(folder, engine, wait=True)
