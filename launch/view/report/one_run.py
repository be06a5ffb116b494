"""The report of one run. Pure: what is known of it in, a page out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edldist.wording import duration, number
from edldist_launch.view.report.chart import draw_chart
from edldist_launch.view.report.charts import charts_of, draw_timeline, tone_of
from edldist_launch.view.report.evidence import Evidence
from edldist_launch.view.report.findings import findings
from edldist_launch.view.report.page import (
    FIGURES,
    STATUS_TONES,
    clock,
    document,
    figure_of,
    said,
    table,
    text,
)

__all__ = ["report_of"]

WORTH_A_CARD = ("student_restarts", "spikes", "rollbacks")
"""Only where there were any."""
MOST_EVENTS = 400
"""Rows of the table of events: of more, the first and the last ones."""


def report_of(evidence: Evidence, made_by: str) -> str:
    """The page.

    Args:
        made_by: which edldist made it, and when.
    """
    name = str(evidence.result.get("job") or _started(evidence).get("job") or evidence.name)
    return document(f"{name}: {evidence.status}", _parts(evidence, name), made_by)


def _started(evidence: Evidence) -> Mapping[str, Any]:
    return next((event for event in evidence.events if event["event"] == "job_started"), {})


def _parts(evidence: Evidence, name: str) -> Iterator[str]:
    tone = STATUS_TONES.get(evidence.status, "quiet")
    began = evidence.events[0]["t"] if evidence.events else None
    facts = [f"began {clock(began)}"] if began is not None else []
    if isinstance(wall_s := evidence.result.get("wall_s"), int | float):
        facts.append(f"took {duration(float(wall_s))}")
    facts.append(str(evidence.folder.absolute()))
    yield (
        f'<header><h1>{text(name)}</h1><span class="pill {tone}">{text(evidence.status)}</span>'
        f"<p>{text(' · '.join(facts))}</p></header>"
    )
    yield f"<h2>What went wrong, and what held it up</h2>{said(findings(evidence))}"
    if evidence.result:
        yield f"<h2>Figures</h2>{_figures(evidence.result)}"
    charts = "".join(map(draw_chart, charts_of(evidence.series)))
    if charts:
        yield f'<h2>Course</h2><div class="charts">{charts}</div>'
    if evidence.series.happened:
        yield f"<h2>What happened</h2>{draw_timeline(evidence.series.happened)}{_events(evidence)}"
    if environment := _environment(evidence):
        yield f"<h2>Environment</h2>{table(environment)}"
    if evidence.job:
        yield (
            "<h2>Job</h2><details><summary>The job file as it was resolved</summary>"
            f"<pre>{text(evidence.job)}</pre></details>"
        )


def _figures(result: Mapping[str, Any]) -> str:
    told = {key: words for key, words in FIGURES.items() if result.get(key) or key not in WORTH_A_CARD}
    cards = [(words, figure_of(result, key)) for key, words in told.items()]
    metrics = result.get("metrics")
    if isinstance(metrics, Mapping):
        cards += [(str(name), number(value)) for name, value in metrics.items()]
    shown = "".join(f"<div><dt>{text(w)}</dt><dd>{text(value)}</dd></div>" for w, value in cards if value)
    return f'<dl class="figures">{shown}</dl>'


def _events(evidence: Evidence) -> str:
    told = evidence.series.happened
    half = MOST_EVENTS // 2
    shown = told if len(told) <= MOST_EVENTS else [*told[:half], *told[-half:]]
    rows = [[clock(each.t), f'<td class="{tone_of(each.event)}">{text(each.words)}</td>'] for each in shown]
    left_out = len(told) - len(rows)
    if left_out > 0:
        rows.insert(half, ["...", f"{left_out:,} more are in events.jsonl"])
    noun = "event" if len(told) == 1 else "events"
    return f"<details><summary>{len(told):,} {noun}</summary>{table(rows)}</details>"


def _environment(evidence: Evidence) -> list[list[str]]:
    """Versions and machine of who watched, and each device that taught."""
    known = [(key, value) for key, value in evidence.environment.items() if key not in ("t", "event")]
    rows = [[text(key.replace("_", " ")), text(value)] for key, value in known]
    devices: dict[tuple[str, str, str], set[str]] = {}
    for event in evidence.events:
        if event["event"] == "teacher_joined":
            place = (
                str(event.get("name")),
                str(event.get("host")),
                str(event.get("device") or "unknown"),
            )
            devices.setdefault(place, set()).add(str(event.get("id")))
    for (group, host, device), who in sorted(devices.items()):
        noun = "worker" if len(who) == 1 else "workers"
        rows.append([text(f"teacher {group}"), text(f"{len(who)} {noun} on {host}, device {device}")])
    ranks: dict[str, set[str]] = {}
    for event in evidence.events:
        if event["event"] == "student_joined":
            ranks.setdefault(str(event.get("host")), set()).add(str(event.get("rank")))
    for host, those in sorted(ranks.items()):
        rows.append(["student", text(f"{len(those)} rank{'s' * (len(those) > 1)} on {host}")])
    return rows
