"""The Grafana dashboard, made of the panels; what a panel says of itself is the metrics' own help."""

from __future__ import annotations

from typing import Any

from edldist.coordinator.metrics.catalog import METRICS
from edldist.coordinator.metrics.spec import MetricSpec
from edldist_launch.monitoring.panels import ROWS, Panel, Query
from edldist_launch.monitoring.selector import select, series_in

__all__ = ["dashboard", "specs_of"]

_MATCHER = 'job=~"$job", instance=~"$instance"'
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_COLUMNS = 24
_HEIGHT, _NUMBER_HEIGHT = 8, 4
_LOOKS = {"lines": "timeseries", "stack": "timeseries", "number": "stat", "table": "table"}


def specs_of(query: str) -> list[MetricSpec]:
    """The metrics that a query asks for, the first of each name."""
    ends = ("_bucket", "_sum", "_count")
    asked = series_in(query)
    names = asked | {name.removesuffix(end) for name in asked for end in ends}
    known: dict[str, MetricSpec] = {}
    for spec in METRICS:
        if spec.series in names:
            known.setdefault(spec.series, spec)
    return list(known.values())


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for row in ROWS:
        panels.append(_row(row.title, top, len(panels) + 1))
        top += 1
        left = height = 0
        for panel in row.panels:
            if left + panel.width > _COLUMNS:
                left, top, height = 0, top + height, 0
            made = _panel(panel, len(panels) + 1)
            own = _NUMBER_HEIGHT if panel.look == "number" else _HEIGHT
            made["gridPos"] = {"x": left, "y": top, "w": panel.width, "h": own}
            left, height = left + panel.width, max(height, own)
            panels.append(made)
        top += height
    return {
        "title": "edldist",
        "uid": "edldist",
        "description": "A distillation job: teachers, students, and what lies between them.",
        "tags": ["edldist"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _variables() -> list[dict[str, Any]]:
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    up = "edldist_coordinator_uptime_seconds"
    asked = {
        "job": f"label_values({up}, job)",
        "instance": f'label_values({up}{{job=~"$job"}}, instance)',
    }
    every = {"includeAll": True, "multi": True, "current": {"text": "All", "value": "$__all"}}
    return [
        source,
        *(
            {"name": name, "type": "query", "datasource": _SOURCE, "query": query, "refresh": 2} | every
            for name, query in asked.items()
        ),
    ]


def _row(title: str, top: int, number: int) -> dict[str, Any]:
    place = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    named = {spec.name: spec for query in panel.queries for spec in specs_of(query.ask)}
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.look == "stack":
        defaults["custom"] = {"drawStyle": "bars", "fillOpacity": 80, "stacking": {"mode": "normal"}}
    elif panel.look == "lines":
        defaults["custom"] = {"drawStyle": "line", "fillOpacity": 8, "lineWidth": 1, "showPoints": "never"}
    return {
        "id": number,
        "type": _LOOKS[panel.look],
        "title": panel.title,
        "description": "\n\n".join(f"{spec.series}: {spec.help}" for spec in named.values()),
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {},
        "targets": [_target(query, panel, at) for at, query in enumerate(panel.queries)],
    }


def _target(query: Query, panel: Panel, at: int) -> dict[str, Any]:
    target = {
        "refId": chr(ord("A") + at),
        "datasource": _SOURCE,
        "expr": select(query.ask, _MATCHER),
        "legendFormat": query.called or "__auto",
    }
    return target | ({"instant": True, "format": "table"} if panel.look == "table" else {})
