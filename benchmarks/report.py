"""The table of a run, for people. Rows stand in two tables: those with a budget, and the rest."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.catalog import Outcome
from benchmarks.figures import Budget, Figure

__all__ = ["budget_words", "number", "print_report"]

COLUMNS = ("row", "", "figure", "limit", "ratio", "budget", "met")


def print_report(console: Console, outcomes: Sequence[Outcome], machine: str) -> None:
    """Print every figure, then what was not measured or failed, with its reason."""
    console.print(machine, style="dim", highlight=False)
    for title, budgeted in (("budgets", True), ("beyond the budgets", False)):
        chosen = [o for o in outcomes if o.row.budgeted is budgeted and o.result.figures]
        if chosen:
            console.print(_table(title, chosen))
    for outcome in outcomes:
        for note in outcome.result.notes:
            console.print(f"{outcome.row.name}: {note}", highlight=False, markup=False)
    for outcome in outcomes:
        if outcome.status == "skipped":
            console.print(
                f"{outcome.row.name}: not measured: {outcome.reason}", highlight=False, markup=False
            )
        elif outcome.status == "failed":
            console.print(
                f"{outcome.row.name}: FAILED: {outcome.reason}", style="red", highlight=False, markup=False
            )


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
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if figure.budget is None else budget_words(figure.budget, figure.unit),
        {True: "yes", False: "NO", None: ""}[figure.met],
    ]


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
