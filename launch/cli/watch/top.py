"""``edldist top``: a job in a terminal, live."""

from __future__ import annotations

from pathlib import Path

import click

from edldist_launch.cli.options.jobs import coordinator_or_folder, either_option, engine_of, unnamed_job

__all__ = ["top"]


@click.command()
@either_option
def top(coordinator: str | None, output: Path | None) -> int:
    """Watch a job in this terminal: groups, workers, students, what happened.

    It asks the coordinator alone, once a second, and goes on when that is started again. Keys: s sorts, r
    turns the order, / shows only rows with a text, Tab goes to the next panel, arrows move, p pauses, h lists
    all of them, q quits. Of a job that is still prepared, or queued, it waits for the coordinator. Where the
    output is no terminal, it prints one frame.

    Which job: as for edldist status.
    """
    coordinator, output = coordinator_or_folder(coordinator, output)
    from edldist_launch.record.earlier import read_result
    from edldist_launch.view.console import PlainConsole
    from edldist_launch.view.status import show_status_of_folder
    from edldist_launch.view.top.loop import show_once, show_top
    from edldist_launch.view.top.opening import await_coordinator
    from edldist_launch.view.whereabouts import coordinator_of

    if coordinator is None and output is None:
        coordinator, output = unnamed_job()
    engine = None if output is None else engine_of(output)

    def where() -> str | None:
        if output is None:
            return coordinator
        return None if read_result(output / "result.json") else coordinator_of(output, engine, wait=False)

    console = PlainConsole()
    drawn = console.is_terminal and not console.is_dumb_terminal
    try:
        if drawn and output is not None and engine is not None and where() is None:
            await_coordinator(output, engine, console)
        if where() is not None:
            if not drawn:
                return show_once(where, console)
            if not show_top(where, console):
                return 0
        assert output is not None
        return show_status_of_folder(output, False, console, engine=engine)  # its end
    except KeyboardInterrupt:
        return 0  # the way to end it
