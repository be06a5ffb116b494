"""What both pages are made of: a document that holds all that it needs, tables, figures and words. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from edldist.observe.printable import printable
from edldist.wording import duration, number
from edldist_launch.view.report.findings import Finding

__all__ = ["FIGURES", "STATUS_TONES", "clock", "document", "figure_of", "said", "table", "text"]

_STYLE = Path(__file__).with_name("style.css")

STATUS_TONES = {"completed": "good", "failed": "bad", "killed": "bad", "interrupted": "wait"}

FIGURES = {
    "steps": "steps",
    "epochs": "epochs",
    "samples": "samples",
    "samples_per_s": "samples/s",
    "wall_s": "wall time",
    "starved_s": "waited for labels",
    "backpressure_s": "with a full buffer",
    "teachers": "workers joined, left, lost",
    "tasks": "tasks done, again, hedged",
    "student_restarts": "student restarts",
    "spikes": "loss spikes",
    "rollbacks": "rollbacks",
}
"""Figures of ``result.json``, in the order and by the names in which a person reads them."""

_PARTS = {"teachers": ("joined", "left", "lost"), "tasks": ("done", "requeued", "hedged")}


def text(value: object) -> str:
    """Words of anybody as part of a page: they are text there, whatever they hold."""
    return escape(printable(str(value)))


def clock(t: object) -> str:
    """A moment in the time of who made the report; a dash for what is none."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(t)))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return "-"


def figure_of(result: Mapping[str, Any], key: str) -> str:
    """A figure of a result in words; empty where the result has none."""
    value = result.get(key)
    if value is None:
        return ""
    if key in _PARTS:
        parts = [value.get(part) if isinstance(value, Mapping) else None for part in _PARTS[key]]
        return " · ".join("-" if part is None else _grouped(part) for part in parts)
    if key.endswith("_s") and key != "samples_per_s" and _is_number(value):
        return duration(float(value)) if value >= 10 else f"{value:.1f}s"
    return _grouped(value)


def _grouped(value: object) -> str:
    if _is_number(value) and abs(value) >= 1_000:  # type: ignore[arg-type]
        return f"{value:,.0f}"
    return number(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def said(found: Sequence[Finding]) -> str:
    """Findings as a list."""
    if not found:
        return '<p class="quiet">Nothing: no worker, rank or task was lost, and nobody waited for long.</p>'
    items = "".join(f'<li class="{each.tone}">{text(each.words)}</li>' for each in found)
    return f'<ul class="findings">{items}</ul>'


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = (), numbers: bool = False) -> str:
    """A table whose cells are parts of a page already; the first of each row says what it is."""
    kind = ' class="number"' if numbers else ""
    first = "".join(f'<th scope="col"{kind}>{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(cell if cell.startswith("<td") else f"<td{kind}>{cell}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    top = f"<thead><tr>{first}</tr></thead>" if head else ""
    return f'<div class="scroll"><table>{top}<tbody>{body}</tbody></table></div>'


def document(title: str, parts: Iterable[str], made_by: str) -> str:
    """A page that asks nobody for anything: it may not, whatever is in it.

    Args:
        parts: of the page, in their order.
        made_by: which edldist made it, and when.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(parts)}\n<footer>{text(made_by)}</footer>\n</main>\n</body>\n</html>\n"
    )
