"""A scene as lines of a terminal of any size. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from edldist.keys.open_link import INSECURE
from edldist.wording import duration, number, rate, share
from edldist_launch.view.console import shown
from edldist_launch.view.top.columns import GAP, STUDENTS, WORKERS, Column, Row, fitting
from edldist_launch.view.top.looks import HELP, Looks
from edldist_launch.view.top.scene import EventRow, Scene

__all__ = ["Frame", "draw"]

_BAR = "bold white on grey23"
_MARKED = "bold black on cyan"
_SPARKS = "▁▂▃▄▅▆▇█"
_LEAST_ROWS = 2
_LOUD = {"wait": "yellow", "bad": "red"}
_WEIGHTS = {"workers": 4, "students": 3, "events": 2}
_FEW_LINES = 30
"""A terminal of fewer has little room for notes."""


@dataclass(frozen=True)
class Frame:
    """What a terminal shows.

    Attributes:
        lines: at most as many as it has.
        furthest: by panel, the offset that shows its last rows.
        page: rows of the marked panel.
    """

    lines: Sequence[Text]
    furthest: Mapping[str, int]
    page: int


def draw(scene: Scene, looks: Looks, width: int, height: int | None) -> Frame:
    """A frame.

    Args:
        width: columns of the terminal.
        height: its lines; None for as many as it takes.
    """
    head = [*_head(scene, looks, width), *_groups(scene, width)]
    foot = [] if height is None else [_foot(scene, looks)]
    if looks.help and height is not None:
        keys = [Text.assemble((f"  {key:<20}", "bold"), text) for key, text in HELP]
        return Frame(_cut([*head[:2], Text(), *keys], foot, width, height), {}, 1)
    few = height is not None and height < _FEW_LINES
    head += [Text(shown(note), style="yellow") for note in scene.notes[: 2 if few else 6]]
    workers = _chosen("workers", scene.workers, WORKERS, looks)
    students = _chosen("students", scene.students, STUDENTS, looks)
    events = [event for event in reversed(scene.events) if looks.filter.lower() in event.words.lower()]
    if "events" in looks.turned:
        events.reverse()
    needs = {"workers": len(workers), "students": len(students), "events": len(events)}
    given = needs if height is None else _shares(needs, height - len(head) - len(foot) - len(needs))
    furthest = {panel: max(0, needs[panel] - given[panel]) for panel in needs}
    at = {panel: min(looks.offset.get(panel, 0), furthest[panel]) for panel in needs}
    window = {panel: slice(at[panel], at[panel] + given[panel]) for panel in needs}
    marks = {panel: looks.panel == panel and height is not None for panel in needs}
    lines = [
        *head,
        *_table("workers", WORKERS, workers, window["workers"], looks, width, marks["workers"]),
        *_table("students", STUDENTS, students, window["students"], looks, width, marks["students"]),
        _title("events", events, window["events"], width, marks["events"]),
        *(_event(event) for event in events[window["events"]]),
    ]
    return Frame(_cut(lines, foot, width, height), furthest, max(1, given[looks.panel] - 1))


def _cut(lines: list[Text], foot: list[Text], width: int, height: int | None) -> list[Text]:
    if height is not None:
        lines = lines[: max(0, height - len(foot))]
        lines += [Text() for _ in range(height - len(foot) - len(lines))]
    lines = [*lines, *foot]
    for line in lines:
        line.no_wrap = True
        if height is None:
            line.rstrip()  # nobody sees where a bar ends
        line.truncate(width, overflow="ellipsis")
    return lines


def _shares(needs: Mapping[str, int], room: int) -> dict[str, int]:
    """Rows of each panel: some of each, then by weight, to those that want more."""
    given = {panel: min(need, _LEAST_ROWS) for panel, need in needs.items()}
    while sum(given.values()) < room:
        wanting = [panel for panel in needs if given[panel] < needs[panel]]
        if not wanting:
            break
        given[min(wanting, key=lambda panel: given[panel] / _WEIGHTS[panel])] += 1
    return given


def _head(scene: Scene, looks: Looks, width: int) -> list[Text]:
    figures = scene.figures
    title = Text(shown(scene.job or "edldist top"), style="bold")
    if scene.link:
        title.append(f"  {shown(scene.link)}", style="bold red" if scene.link == INSECURE else "not bold dim")
    if looks.paused:
        title.append("  paused: p goes on", style="yellow")
    facts = []
    if figures.step is not None:
        facts.append(f"step {figures.step}" + (f"/{figures.steps}" if figures.steps else ""))
    if figures.eta_s is not None:
        facts.append(f"eta {duration(figures.eta_s)}")
    facts += [_counted(scene.workers, "worker"), _counted(scene.students, "rank")]
    if scene.up_s is not None:
        facts.append(f"up {duration(scene.up_s)}")
    title.append("  ".join(["", *facts, shown(scene.coordinator)]), style="not bold")
    rates = Text.assemble(
        (rate(figures.samples_per_s), "bold green"),
        " samples/s ",
        (_sparks(scene.rates, max(8, min(60, width // 4))), "green"),
        f"  {rate(figures.steps_per_s)} steps/s",
        f"  starved {duration(figures.starved_s)}",
    )
    for name, value in figures.metrics.items():
        rates.append(f"  {shown(name)} {shown(number(value))}")
    lines = [title, rates]
    if scene.silent_s is not None:
        words = f"the coordinator has not answered for {duration(scene.silent_s)}; labels flow without it"
        lines.append(Text.assemble((words, "bold yellow"), f"  {shown(scene.trouble)}"))
    return lines


def _counted(rows: Sequence[object], what: str) -> str:
    return f"{len(rows)} {what}" + ("" if len(rows) == 1 else "s")


def _sparks(values: Sequence[float], width: int) -> str:
    last = values[-width:]
    most = max(last, default=0.0)
    if most <= 0:
        return ""
    return "".join(_SPARKS[min(7, int(value / most * 7.999))] for value in last)


def _groups(scene: Scene, width: int) -> list[Text]:
    """A line for each teacher group: how many there are and should be, and what that comes from."""
    name_width = max((len(group.name) for group in scene.groups), default=0)
    lines = []
    for group in scene.groups:
        short = group.wanted is not None and group.workers < group.wanted
        line = Text.assemble(("teacher ", "dim"), f"{shown(group.name):<{min(name_width, 28)}}  ")
        line.append(f"{group.workers}", style="bold yellow" if short else "bold")
        line.append(" here" if group.wanted is None else f" of {group.wanted} workers")
        if group.least is not None and group.least != group.most:
            line.append(f" ({group.least} to {group.most})")
        if group.draining:
            line.append(f", {group.draining} leaving", style="yellow")
        if group.held is not None:
            line.append(", held by hand")
        if group.starved is not None:
            line.append(f"  starved {share(group.starved)}", style="yellow" if group.starved > 0.1 else "")
        if group.demand is not None:
            line.append(f"  asked {rate(group.demand)}/s")
        if group.capacity is not None:
            line.append(f"  one gives {rate(group.capacity)}/s")
        lines.append(line)
    return lines


def _chosen(panel: str, rows: Sequence[Row], columns: Sequence[Column[Row]], looks: Looks) -> list[Row]:
    """The rows that pass the filter, sorted."""
    wanted = looks.filter.lower()
    kept = [
        row
        for row in rows
        if not wanted or wanted in " ".join(str(column.cell(row)) for column in columns).lower()
    ]
    column = _sorting(panel, columns, looks)
    assert column.key is not None
    turned = panel in looks.turned
    kept.sort(key=lambda row: row.id)
    return sorted(kept, key=column.key, reverse=column.falling != turned)


def _sorting(panel: str, columns: Sequence[Column[Row]], looks: Looks) -> Column[Row]:
    sorting = [column for column in columns if column.key is not None]
    return sorting[looks.sort.get(panel, 0) % len(sorting)]


def _table(
    panel: str,
    columns: Sequence[Column[Row]],
    rows: Sequence[Row],
    window: slice,
    looks: Looks,
    width: int,
    marked: bool,
) -> list[Text]:
    kept = fitting(columns, rows, width - 2)
    by = _sorting(panel, columns, looks)
    arrow = "▼" if by.falling != (panel in looks.turned) else "▲"
    headings = []
    for column, size in kept:
        name = f"{column.heading}{arrow}" if column is by else column.heading
        headings.append(name[:size].rjust(size) if column.right else name[: size + 1].ljust(size))
    gap = " " * GAP
    text = f"{'▸' if marked else ' '} " + gap.join(headings)
    if by not in [column for column, _ in kept]:
        text += f"  {arrow} {by.heading}"
    lines = [_bar(text, len(rows), window, width, marked)]
    for row in rows[window]:
        line = Text("  ")
        for number_, (column, size) in enumerate(kept):
            cell = column.cell(row)
            text_ = cell.copy() if isinstance(cell, Text) else Text(" ".join(cell.split()))
            text_.truncate(size, overflow="ellipsis")
            text_.align("right" if column.right else "left", size)
            line.append_text(Text(gap) if number_ else Text()).append_text(text_)
        lines.append(line)
    return lines


def _title(panel: str, rows: Sequence[EventRow], window: slice, width: int, marked: bool) -> Text:
    return _bar(f"{'▸' if marked else ' '} {panel}", len(rows), window, width, marked)


def _bar(text: str, count: int, window: slice, width: int, marked: bool) -> Text:
    """A panel's first line, with which of its rows are shown unless all are."""
    stop = min(window.stop, count)
    where = f" {window.start + 1}-{stop} of {count} " if stop - window.start < count else ""
    line = Text(text)
    line.truncate(max(1, width - len(where)), overflow="crop")
    line.append(" " * max(0, width - len(where) - len(line)) + where)
    line.stylize(_MARKED if marked else _BAR)
    return line


def _event(event: EventRow) -> Text:
    return Text.assemble((f"  {event.clock}  ", "dim"), (shown(event.words), _LOUD.get(event.tone, "")))


def _foot(scene: Scene, looks: Looks) -> Text:
    if looks.typing:
        return Text.assemble(("show only rows with: ", "bold"), shown(looks.filter), ("▏", "blink"))
    keys = (("q", "quit"), ("s", "sort"), ("r", "turn"), ("/", "filter"), ("Tab", "panel"), ("p", "pause"))
    line = Text()
    if looks.filter:  # first: a narrow terminal has no room for all of the line
        line.append(f" only rows with {shown(looks.filter)!r}: Esc ends it ", style="yellow")
    for key, what in (*keys, ("h", "help")):
        line.append(f" {key} ", style="bold reverse").append(f" {what}  ")
    return line
