"""How somebody looks at a job: what is sorted, filtered and paused. Keys go in, states come out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

__all__ = ["HELP", "PANELS", "Looks", "press"]

PANELS = ("workers", "students", "events")

HELP = (
    ("s", "sort the marked panel (▸) by its next column"),
    ("r", "turn its order"),
    ("/", "only rows with a text, as waits or cuda; Enter keeps it"),
    ("Esc", "all rows again"),
    ("Tab", "mark the next panel"),
    ("↑ ↓ PgUp PgDn", "move in the marked panel; Home, End"),
    ("p", "pause, and go on"),
    ("h ?", "this help; any key ends it"),
    ("q Ctrl-C", "quit"),
)


@dataclass(frozen=True)
class Looks:
    """The state of the view.

    Attributes:
        panel: the marked one.
        sort: by panel, the number of the column among those that sort it.
        turned: panels that are sorted the other way round.
        offset: by panel, how many rows above its window are not shown.
        filter: rows without it are left out.
        typing: whether keys go into the filter.
        paused, help, done: whether it is so.
    """

    panel: str = "workers"
    sort: Mapping[str, int] = field(default_factory=dict)
    turned: frozenset[str] = frozenset()
    offset: Mapping[str, int] = field(default_factory=dict)
    filter: str = ""
    typing: bool = False
    paused: bool = False
    help: bool = False
    done: bool = False


def press(looks: Looks, key: str, furthest: Mapping[str, int], page: int = 10) -> Looks:
    """The state after a key.

    Args:
        key: as ``Keys`` names it.
        furthest: by panel, the offset that shows its last rows.
        page: how far the page keys go.
    """
    if key == "interrupt":
        return replace(looks, done=True)
    if looks.typing:
        return _typed(looks, key)
    if looks.help:
        return replace(looks, help=False, done=key == "q")
    panel = looks.panel
    moves = {"up": -1, "down": 1, "k": -1, "j": 1, "page up": -page, "page down": page}
    if key in moves:
        return _moved(looks, looks.offset.get(panel, 0) + moves[key], furthest)
    if key in ("home", "end"):
        return _moved(looks, 0 if key == "home" else furthest.get(panel, 0), furthest)
    if key in ("tab", "back tab"):
        step = 1 if key == "tab" else -1
        return replace(looks, panel=PANELS[(PANELS.index(panel) + step) % len(PANELS)])
    if key == "s":
        sort = {**looks.sort, panel: looks.sort.get(panel, 0) + 1}
        return replace(looks, sort=sort, turned=looks.turned - {panel})
    if key == "r":
        return replace(looks, turned=looks.turned ^ {panel})
    if key == "/":
        return replace(looks, typing=True)
    if key == "escape":
        return replace(looks, filter="", offset={})
    if key in ("p", " "):
        return replace(looks, paused=not looks.paused)
    if key in ("h", "?"):
        return replace(looks, help=True)
    return replace(looks, done=True) if key == "q" else looks


def _typed(looks: Looks, key: str) -> Looks:
    if key == "enter":
        return replace(looks, typing=False)
    if key == "escape":
        return replace(looks, typing=False, filter="", offset={})
    if key == "backspace":
        return replace(looks, filter=looks.filter[:-1], offset={})
    return replace(looks, filter=looks.filter + key, offset={}) if len(key) == 1 else looks


def _moved(looks: Looks, offset: int, furthest: Mapping[str, int]) -> Looks:
    bounded = max(0, min(offset, furthest.get(looks.panel, 0)))
    return replace(looks, offset={**looks.offset, looks.panel: bounded})
