"""``edldist status``: who is here, and how fast, from one answer of the coordinator."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from edldist.wire.messages import MemberStatus, Status
from edldist.wire.query import query_status
from launch.progress import duration, number

__all__ = ["show_status"]


def show_status(coordinator: str, as_json: bool, console: Console) -> int:
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
        f"{len(teachers)} teacher workers · {len(students)} student ranks",
        highlight=False,
    )
    if teachers:
        console.print(_table("teacher workers", teachers, "serves"))
    if students:
        console.print(_table("student ranks", students, "address"))
    return 0


def _table(title: str, members: list[MemberStatus], last: str) -> Table:
    """One kind of members; a column for every figure that one of them has."""
    keys = list(dict.fromkeys(key for member in members for key in member.stats))
    named = any(member.group for member in members)
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    table.add_column("id", no_wrap=True)
    if named:
        table.add_column("teacher")
    table.add_column("host")
    for column in ("pid", "joined", "silent", *keys):
        table.add_column(column, justify="right")
    table.add_column(last)
    for member in members:
        row = [member.id, *([member.group] if named else []), member.host, str(member.pid)]
        row += [duration(member.joined_s), f"{member.silent_s:.1f}s"]
        row += [number(member.stats[key]) if key in member.stats else "-" for key in keys]
        row.append(", ".join(member.links) or "-" if last == "serves" else member.address)
        table.add_row(*row)
    return table


def _document(status: Status) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(status)
    document.pop("type", None)
    return document
