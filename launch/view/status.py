"""``edldist status``: who is here, how fast, and who waits for whom, from one answer of the coordinator."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edldist.errors import CoordinatorUnreachableError
from edldist.keys.open_link import INSECURE, link_words
from edldist.observe.troubles import troubles
from edldist.observe.waiting import waits
from edldist.wire.messages import GroupStatus, MemberStatus, Status
from edldist.wire.query import StatusClient
from edldist.wording import duration, number
from edldist_launch.contract.backend import JobState
from edldist_launch.record.earlier import read_result
from edldist_launch.view.console import PlainConsole, shown
from edldist_launch.view.placed import not_joined, refused
from edldist_launch.view.progress import show_result, why_it_ended
from edldist_launch.view.seen import TIMEOUT_S, Engine, Seen, ask_engine, has_ended, watch_job
from edldist_launch.view.whereabouts import coordinator_of

__all__ = ["show_status", "show_status_of_folder"]

# What fits a terminal of 80 columns; --json has everything.
TEACHER_COLUMNS = {"samples": "samples", "held": "held", "students": "serves"}
STUDENT_COLUMNS = {"starved_s": "starved s", "teachers": "workers"}


def show_status(coordinator: str, as_json: bool, console: PlainConsole, watch: bool = False) -> int:
    """Print the state of a job: once, or again every second until it is interrupted.

    Raises:
        CoordinatorUnreachableError: nobody answered within two seconds; not while watching.
    """
    if watch:
        _watch(watch_job(coordinator), coordinator, as_json, console)
        return 0
    with contextlib.closing(StatusClient(coordinator)) as client:
        _show(Seen(client.query(0, TIMEOUT_S)), coordinator, as_json, console)
    return 0


def show_status_of_folder(
    folder: Path, as_json: bool, console: PlainConsole, watch: bool = False, engine: Engine | None = None
) -> int:
    """Print the state of the job that writes to a folder, or its result once it has ended.

    Args:
        engine: tells how the job's processes are placed, if somebody placed them.

    Raises:
        ConfigError: the folder is none that a job writes to.
        CoordinatorUnreachableError: the job neither runs nor left a result: it was killed.
        LaunchError: nobody knows where its coordinator is: the engine does not tell.
    """
    coordinator = coordinator_of(folder, engine, watch)
    if coordinator is not None and watch and read_result(folder / "result.json") is None:
        _watch(watch_job(coordinator, folder, engine), coordinator, as_json, console)
    placed = ask_engine(engine)
    ended = has_ended(placed)
    if (coordinator is not None or ended) and (result := read_result(folder / "result.json")) is not None:
        _show_end(result, folder, as_json, console)
        return 0
    if coordinator is None or ended:
        _show(Seen(None, placed), "", as_json, console)
        return 0
    try:
        with contextlib.closing(StatusClient(coordinator)) as client:
            seen = Seen(client.query(0, TIMEOUT_S), placed)
    except CoordinatorUnreachableError as exc:
        if not isinstance(placed, JobState):
            raise CoordinatorUnreachableError(
                f"the job of {folder} left no result.json, and its coordinator at {coordinator} does not "
                "answer: it was killed, or runs where this machine does not reach it"
            ) from exc
        print(f"no answer of the coordinator at {coordinator}", file=sys.stderr)
        seen = Seen(None, placed)
    _show(seen, coordinator, as_json, console)
    return 0


def _watch(answers: Iterator[Seen], coordinator: str, as_json: bool, console: PlainConsole) -> None:
    if as_json or not console.is_terminal:
        silent = False  # the engine, which is said once
        for seen in answers:
            if isinstance(seen.placed, str) and not silent:
                print(f"the engine does not tell how the job is: {seen.placed}", file=sys.stderr)
            silent = isinstance(seen.placed, str)
            if seen.status is None:
                print(f"no answer of the coordinator at {coordinator}", file=sys.stderr)
            elif as_json:
                print(json.dumps(_document(seen)), flush=True)
            else:
                console.print(_screen(Seen(seen.status, None) if silent else seen, coordinator))
        return
    latest: RenderableType = Text("")
    with Live(console=console, auto_refresh=False, transient=False, vertical_overflow="crop") as live:
        silent_since: float | None = None
        for seen in answers:
            now = time.monotonic()
            if seen.status is not None:
                silent_since = None
                latest = _screen(seen, coordinator)
                live.update(latest, refresh=True)
                continue
            silent_since = silent_since or now - TIMEOUT_S
            complaint = f"no answer of the coordinator at {coordinator} for {duration(now - silent_since)}"
            said = [complaint, seen.placed] if isinstance(seen.placed, str) else [complaint]
            live.update(Group(latest, *(Text(shown(line), style="yellow") for line in said)), refresh=True)


def _show(seen: Seen, coordinator: str, as_json: bool, console: PlainConsole) -> None:
    if as_json:
        print(json.dumps(_document(seen), indent=2))
    else:
        console.print(_screen(seen, coordinator))


def _show_end(result: dict[str, Any], folder: Path, as_json: bool, console: PlainConsole) -> None:
    if as_json:
        print(json.dumps(result, indent=2))
        return
    try:
        show_result(console, result)
    except (KeyError, TypeError, ValueError):  # a file that somebody has changed, or one of few figures
        console.print(json.dumps(result, indent=2))
    if words := why_it_ended(result):
        console.print(Text(shown(words), style="yellow"), soft_wrap=True)


def _screen(seen: Seen, coordinator: str) -> RenderableType:
    members = list(seen.status.members) if seen.status is not None else []
    members.sort(key=lambda member: (member.role, _place(member), member.id))
    parts: list[RenderableType] = []
    if seen.status is not None:
        parts += _members(seen.status, members, coordinator)
        parts += [Text(shown(line), style="yellow") for line in refused(seen.status.refused, seen.placed)]
    if isinstance(seen.placed, JobState):
        if seen.status is None:
            why = f": {seen.placed.reason}" if seen.placed.reason else ""
            parts.append(Text(shown(f"job {seen.placed.name} · {seen.placed.phase}{why}")))
        parts += [Text(shown(line), style="yellow") for line in not_joined(seen.placed, members)]
    elif seen.placed is not None:
        parts.append(Text(shown(seen.placed), style="yellow"))
    return Group(*parts)


def _members(status: Status, members: list[MemberStatus], coordinator: str) -> list[RenderableType]:
    teachers = [member for member in members if member.role == "teacher"]
    students = [member for member in members if member.role == "student"]
    head = (
        f"coordinator {coordinator} · up {duration(status.uptime_s)} · "
        f"{_count(teachers, 'teacher worker')} · {_count(students, 'student rank')}"
    )
    parts: list[RenderableType] = [Text(shown(head))]
    if status.link:
        link = f"link {link_words(status.link)}"
        parts.append(Text(shown(link), style="yellow" if status.link == INSECURE else "dim"))
    if any(group.wanted is not None for group in status.groups):
        parts.append(_groups(status.groups))
    if teachers:
        parts.append(_table("teacher workers", "teacher", teachers, TEACHER_COLUMNS))
    if students:
        parts.append(_table("student ranks", "rank", students, STUDENT_COLUMNS))
    for member in [*teachers, *students]:
        for remark in [*troubles(member), *waits(member, members)]:
            parts.append(Text(shown(f"{member.id} {remark}"), style="yellow"))
    return parts


def _place(member: MemberStatus) -> tuple[int, str]:
    """Ranks in the order of their numbers, workers in that of their teachers."""
    rank = member.info.get("rank")
    return (rank if isinstance(rank, int) else -1, member.group)


def _count(members: list[MemberStatus], what: str) -> str:
    return f"{len(members)} {what}" + ("" if len(members) == 1 else "s")


def _groups(groups: Sequence[GroupStatus]) -> Table:
    """How many workers there are and should be, and what that number comes from."""
    table = _empty_table("teachers")
    table.add_column("name", overflow="fold")
    for heading in ("workers", "wanted", "of", "asked/s", "one gives/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("starved", justify="right")
    for group in groups:
        workers = f"{group.workers}" + (f" (+{group.draining} leaving)" if group.draining else "")
        wanted = "-" if group.wanted is None else f"{group.wanted}"
        bounds = "-" if group.least is None else f"{group.least}:{group.most}"
        rates = ["-" if value is None else f"{value:.0f}" for value in (group.demand, group.capacity)]
        starved = "-" if group.starved is None else f"{group.starved:.0%}"
        by = " (held)" if group.held is not None else ""
        table.add_row(*map(shown, (group.name, workers, wanted + by, bounds, *rates, starved)))
    return table


def _table(title: str, second: str, members: list[MemberStatus], columns: dict[str, str]) -> Table:
    table = _empty_table(title)
    table.add_column("id", overflow="fold")
    table.add_column(second)
    table.add_column("host", overflow="fold")
    for heading in ("up", "silent", "samples/s", *columns.values()):
        table.add_column(heading, justify="right", no_wrap=True)
    for member in members:
        is_teacher = member.role == "teacher"
        row = [member.id, member.group if is_teacher else str(member.info.get("rank", "-")), member.host]
        row += [duration(member.joined_s), f"{member.silent_s:.1f}s", _rate(member)]
        row += [number(member.stats[key]) if key in member.stats else "-" for key in columns]
        table.add_row(*map(shown, row))
    return table


def _empty_table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def _rate(member: MemberStatus) -> str:
    """Samples per second of the last seconds, as the coordinator saw the member's count grow."""
    return "-" if member.samples_per_s is None else f"{member.samples_per_s:.0f}"


def _document(seen: Seen) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if seen.status is not None:
        document = msgspec.to_builtins(seen.status)
        document.pop("type", None)
    if isinstance(seen.placed, JobState):
        document["placed"] = asdict(seen.placed)
    return document
