"""Rules, dashboard and the page about the metrics: made of one list, and as it says now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edldist.coordinator.course.happenings import OWN_EVENTS
from edldist.coordinator.metrics.catalog import METRICS
from edldist.wire.events import FROM_MEMBERS
from edldist_launch.monitoring.alerts import ALERTS, RECORDED
from edldist_launch.monitoring.dashboard import dashboard, specs_of
from edldist_launch.monitoring.files import made_files
from edldist_launch.monitoring.panels import ROWS
from edldist_launch.monitoring.selector import select, series_in
from edldist_launch.monitoring.tables import shown_in

ROOT = Path(__file__).resolve().parents[2]
MADE = made_files(ROOT)
QUERIES = [
    *(query.ask for row in ROWS for panel in row.panels for query in panel.queries),
    *(alert.query for alert in ALERTS),
    *(rule.query for rule in RECORDED),
]


@pytest.mark.parametrize("path", MADE, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_made_of_the_list_is_as_it_says_now(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == MADE[path], f"make monitoring writes {path} anew"


@pytest.mark.parametrize("query", QUERIES)
def test_queries_ask_for_what_there_is(query: str) -> None:
    known = {spec.series for spec in METRICS}
    ends = ("_bucket", "_sum", "_count")
    for series in series_in(query):
        base = next((series.removesuffix(end) for end in ends if series.endswith(end)), series)
        assert base in known, f"{series} is no metric"
    labels = {label for spec in specs_of(query) for label in spec.labels} | {"le"}
    for listed in re.findall(r"(?:by|without|ignoring|on) \(([^)]*)\)", query):
        assert {label.strip() for label in listed.split(",")} <= labels, query
    for names in re.findall(r'event=~?"([^"]*)"', query):
        assert set(names.split("|")) <= {*OWN_EVENTS, *FROM_MEMBERS}


def test_every_metric_is_seen_somewhere() -> None:
    assert [spec.name for spec in METRICS if not shown_in(spec)] == []


def test_alerts_say_what_to_do() -> None:
    for alert in ALERTS:
        assert alert.name.startswith("Edldist") and len(alert.advice.split()) >= 10
        labels = {label for spec in specs_of(alert.query) for label in spec.labels}
        assert set(re.findall(r"\$labels\.(\w+)", alert.summary)) <= labels


def test_a_matcher_narrows_every_series_and_nothing_else() -> None:
    query = (
        'sum without (worker) (rate(edldist_a_total{x="1"}[1m])) / edldist_b > edldist:c:rate1m and up == 1'
    )
    assert select(query, 'job="j"') == (
        'sum without (worker) (rate(edldist_a_total{job="j", x="1"}[1m])) / edldist_b{job="j"} '
        '> edldist:c:rate1m and up{job="j"} == 1'
    )
    assert select("edldist_b", "") == "edldist_b"


def test_panels_neither_overlap_nor_leave_the_page() -> None:
    made = dashboard()
    seen: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & seen, panel["title"]
        seen |= cells
        assert panel["type"] == "row" or panel["description"], "what it shows is said"
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
