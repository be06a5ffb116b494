"""The table of a run, on a terminal and in Markdown: rows with a budget first, then the rest."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from edldist_benchmarks.catalog import Outcome
from edldist_benchmarks.figures import Budget, Figure

__all__ = ["budget_words", "markdown_report", "number", "print_report"]

COLUMNS = ("row", "", "figure", "limit", "ratio", "budget", "met")
TABLES = (("budgets", True), ("beyond the budgets", False))


def print_report(console: Console, outcomes: Sequence[Outcome], machine: str) -> None:
    """Print every figure, then what was not measured or failed, with its reason."""
    console.print(machine, style="dim", highlight=False)
    for title, budgeted in TABLES:
        chosen = [o for o in outcomes if o.row.budgeted is budgeted and o.result.figures]
        if chosen:
            console.print(_table(title, chosen))
    for outcome in outcomes:
        for line in _remarks(outcome):
            style = "red" if outcome.status == "failed" else None
            console.print(line, style=style, highlight=False, markup=False)


def markdown_report(outcomes: Sequence[Outcome], machine: str) -> str:
    """The same for a page of documentation, with the pictures of the curves."""
    lines = [f"Measured on {machine}."]
    for title, budgeted in TABLES:
        chosen = [o for o in outcomes if o.row.budgeted is budgeted and o.result.figures]
        if not chosen:
            continue
        lines += ["", f"### {title.capitalize()}", "", _line(COLUMNS), "|---|---" + "|---:" * 4 + "|---|"]
        for outcome in chosen:
            for position, figure in enumerate(outcome.result.figures):
                name = f"`{outcome.row.name}`" if position == 0 else ""
                lines.append(_line([name, *(cell.strip() for cell in _cells(figure))]))
    for outcome in outcomes:
        lines += [
            line for curve in outcome.result.curves for line in ("", f"![{curve.title}]({curve.name}.png)")
        ]
    remarks = [f"- {line}" for outcome in outcomes for line in _remarks(outcome)]
    return "\n".join([*lines, "", *remarks]).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _remarks(outcome: Outcome) -> list[str]:
    name = outcome.row.name
    lines = [f"{name}: {note}" for note in outcome.result.notes]
    if outcome.status == "skipped":
        lines.append(f"{name}: not measured: {outcome.reason}")
    elif outcome.status == "failed":
        lines.append(f"{name}: FAILED: {outcome.reason}")
    return lines


def _table(title: str, outcomes: Sequence[Outcome]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None)
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in COLUMNS[2:6] else "left", overflow="fold")
    for outcome in outcomes:
        for position, figure in enumerate(outcome.result.figures):
            table.add_row(outcome.row.name if position == 0 else "", *_cells(figure))
    return table


def _cells(figure: Figure) -> list[str]:
    limit = "" if figure.limit is None else f"{number(figure.limit)} {figure.limit_name}".rstrip()
    return [
        figure.what,
        f"{number(figure.value)} {figure.unit}".rstrip(),
        limit,
        _ratio_words(figure),
        "" if figure.budget is None else budget_words(figure.budget, figure.unit),
        figure.verdict,
    ]


def _ratio_words(figure: Figure) -> str:
    if figure.ratio is None:
        return ""
    if figure.interval is None:
        return f"{figure.ratio:.2f}"
    low, high, _ = figure.interval
    return f"{figure.ratio:.3f} ({low:.3f} to {high:.3f})"


def number(value: float) -> str:
    """Three significant digits of small numbers, whole ones of large."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def budget_words(budget: Budget, unit: str) -> str:
    """``>= 0.85`` of a ratio, ``<= 1 s`` of a figure itself."""
    parts = []
    for sign, bound in ((">=", budget.at_least), ("<=", budget.at_most)):
        if bound is not None:
            parts.append(f"{sign} {bound:g}" + (f" {unit}" if budget.of == "value" and unit else ""))
    return " and ".join(parts)
