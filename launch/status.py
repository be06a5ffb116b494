"""``edldist status``: who is here, and how fast, from one answer of the coordinator."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from rich.table import Table

from edldist.wire.messages import MemberStatus, Status
from edldist.wire.query import query_status
from edldist_launch.console import PlainConsole
from edldist_launch.progress import duration, number

__all__ = ["show_status"]

# What fits a terminal of 80 columns; --json has everything.
TEACHER_COLUMNS = {"samples": "samples", "held": "held", "students": "serves"}
STUDENT_COLUMNS = {"starved_s": "starved s", "teachers": "workers"}


def show_status(coordinator: str, as_json: bool, console: PlainConsole) -> int:
    """Print the state of a job.

    Raises:
        CoordinatorUnreachableError: nobody answered within two seconds.
    """
    status = query_status(coordinator, since=0, timeout_s=2.0)
    if as_json:
        print(json.dumps(_document(status), indent=2))
        return 0
    members = sorted(status.members, key=lambda member: (member.role, member.group, member.id))
    teachers = [member for member in members if member.role == "teacher"]
    students = [member for member in members if member.role == "student"]
    console.print(
        f"coordinator {coordinator} · up {duration(status.uptime_s)} · "
        f"{_count(teachers, 'teacher worker')} · {_count(students, 'student rank')}",
        soft_wrap=True,
    )
    if teachers:
        console.print(_table("teacher workers", "teacher", teachers, TEACHER_COLUMNS))
    if students:
        console.print(_table("student ranks", "rank", students, STUDENT_COLUMNS))
    for member in [*teachers, *students]:
        for remark in _remarks(member):
            console.print(f"{member.id} {remark}", style="yellow", soft_wrap=True)
    return 0


def _count(members: list[MemberStatus], what: str) -> str:
    return f"{len(members)} {what}" + ("" if len(members) == 1 else "s")


def _table(title: str, second: str, members: list[MemberStatus], columns: dict[str, str]) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("id", overflow="fold")
    table.add_column(second)
    table.add_column("host", overflow="fold")
    for heading in ("up", "silent", "samples/s", *columns.values()):
        table.add_column(heading, justify="right", no_wrap=True)
    for member in members:
        row = [member.id, member.group or str(member.info.get("rank", "-")), member.host]
        row += [duration(member.joined_s), f"{member.silent_s:.1f}s", _mean_rate(member)]
        row += [number(member.stats[key]) if key in member.stats else "-" for key in columns]
        table.add_row(*row)
    return table


def _remarks(member: MemberStatus) -> list[str]:
    """What a person should know about a member beyond its figures."""
    stats, remarks = member.stats, []
    if stats.get("quarantine"):
        remarks.append(f"gets no work: {stats['quarantine']}")
    if stats.get("draining"):
        remarks.append("finishes what it holds, and leaves")
    if stats.get("out_of_memory"):
        times, size = stats["out_of_memory"], stats.get("batch_size")
        remarks.append(f"ran out of memory ({times}x): at most {size} samples a pass now")
    if stats.get("skipped"):
        remarks.append(f"left out {stats['skipped']} samples that no worker could label")
    return remarks


def _mean_rate(member: MemberStatus) -> str:
    """Samples per second of the member's whole life, where that life's length is known.

    A member that outlived a coordinator is older than this coordinator can tell, unless it says
    so itself (``up_s``).
    """
    samples, up_s = member.stats.get("samples"), member.stats.get("up_s")
    if up_s is None and member.info.get("rejoin") is not True:
        up_s = member.joined_s
    if not isinstance(samples, int | float) or not isinstance(up_s, int | float) or up_s <= 0:
        return "-"
    return f"{samples / up_s:.0f}"


def _document(status: Status) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(status)
    document.pop("type", None)
    return document
