"""The tables of ``docs/metrics.md``: every metric, every alert, and where one is used by the other."""

from __future__ import annotations

from collections.abc import Iterable

from edldist.coordinator.metrics.catalog import METRICS
from edldist.coordinator.metrics.spec import MetricSpec
from edldist_launch.monitoring.alerts import ALERTS, RECORDED
from edldist_launch.monitoring.dashboard import specs_of
from edldist_launch.monitoring.panels import ROWS

__all__ = ["alert_table", "metric_table", "recorded_table", "shown_in"]


def shown_in(spec: MetricSpec) -> list[str]:
    """The panels that show a metric, by their titles, and the alerts that are made of it, by their names."""
    panels = [panel for row in ROWS for panel in row.panels]
    shown = [p.title for p in panels if any(_asks(query.ask, spec) for query in p.queries)]
    return shown + [f"`{alert.name}`" for alert in ALERTS if _asks(alert.query, spec)]


def _asks(query: str, spec: MetricSpec) -> bool:
    return any(each.name == spec.name for each in specs_of(query))


def metric_table() -> str:
    """One line a metric."""
    specs = {spec.name: spec for spec in reversed(METRICS)}
    return _table(
        ("metric", "kind", "labels", "what it says", "seen in"),
        (
            (
                f"`{spec.series}`",
                spec.kind,
                ", ".join(f"`{label}`" for label in spec.labels),
                spec.help,
                "; ".join(shown_in(spec)),
            )
            for spec in reversed(specs.values())
        ),
    )


def alert_table() -> str:
    """One line an alert."""
    return _table(
        ("alert", "severity", "after", "what is wrong", "what to do"),
        ((f"`{a.name}`", a.severity, a.held, _plain(a.summary), a.advice) for a in ALERTS),
    )


def recorded_table() -> str:
    """One line a recording rule."""
    return _table(("series", "is"), ((f"`{each.record}`", f"`{each.query}`") for each in RECORDED))


def _plain(summary: str) -> str:
    """A summary without the marks into which Prometheus writes values."""
    for mark, word in (("$labels.group", "G"), ("$labels.job_name", "J"), ("$value | humanize", "N")):
        summary = summary.replace(f"{{{{ {mark} }}}}", word)
    return summary


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
