"""The files that are made of the list of metrics, and what is in them now."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from edldist_launch.monitoring.alerts import groups
from edldist_launch.monitoring.dashboard import dashboard
from edldist_launch.monitoring.tables import alert_table, metric_table, recorded_table

__all__ = ["made_files"]

_MADE = "# Made by `make monitoring` of launch/monitoring/alerts.py: change it there.\n"
_MATCHER, _CLUSTER_MATCHER = 'job="edldist"', 'service="edldist-coordinator"'
_TABLES: dict[str, Callable[[], str]] = {
    "metrics": metric_table,
    "alerts": alert_table,
    "recorded": recorded_table,
}


def made_files(root: Path) -> dict[Path, str]:
    """What each file should hold.

    Args:
        root: of the repository, from which the hand-written parts of some of them are read.
    """
    page = root / "docs" / "metrics.md"
    return {
        root / "monitoring" / "rules.yaml": _MADE + _yaml({"groups": groups(_MATCHER)}),
        root / "monitoring" / "dashboard.json": json.dumps(dashboard(), indent=1) + "\n",
        root / "k8s" / "components" / "prometheus" / "rules.yaml": _MADE + _yaml(_object()),
        page: _with_tables(page.read_text(encoding="utf-8")),
    }


def _object() -> dict[str, Any]:
    """The rules as the Prometheus operator takes them."""
    labels = {
        "app.kubernetes.io/name": "edldist",
        "edldist/job": "edldist",
        "edldist/kind": "monitor",
    }
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "edldist-prometheus", "labels": labels},
        "spec": {"groups": groups(_CLUSTER_MATCHER)},
    }


def _yaml(value: dict[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=110, allow_unicode=True)


def _with_tables(text: str) -> str:
    """A page with the tables of now between its marks."""
    for name, make in _TABLES.items():
        begin, end = f"<!-- {name}: made by make monitoring -->\n", f"<!-- end of {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        text, times = pattern.subn(lambda _, m=make, b=begin, e=end: f"{b}{m()}\n{e}", text)  # type: ignore[misc]
        if times != 1:
            raise ValueError(f"docs/metrics.md has {times} places for the table of {name}, not one")
    return text
