"""Several runs side by side. Pure: what is known of them in, a page out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edldist.wording import number
from edldist_launch.view.report.chart import draw_chart
from edldist_launch.view.report.charts import overlaid
from edldist_launch.view.report.evidence import Evidence
from edldist_launch.view.report.findings import findings
from edldist_launch.view.report.page import FIGURES, STATUS_TONES, document, figure_of, said, table, text

__all__ = ["comparison_of", "names_of"]


def names_of(runs: Sequence[Evidence]) -> list[str]:
    """What tells the runs apart: the last parts of their folders, as many as it takes."""
    parts = [run.folder.absolute().parts for run in runs]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{run.name} ({number_})" for number_, run in enumerate(runs, 1)]


def comparison_of(runs: Sequence[Evidence], made_by: str) -> str:
    """The page.

    Args:
        runs: two or more.
        made_by: which edldist made it, and when.
    """
    return document(f"{len(runs)} runs compared", _parts(runs), made_by)


def _parts(runs: Sequence[Evidence]) -> Iterator[str]:
    names = names_of(runs)
    yield f"<header><h1>{len(runs)} runs side by side</h1></header>"
    head = ["", *(f'<span class="key k{at % 8}">{text(name)}</span>' for at, name in enumerate(names))]
    rows = [["ended", *(_status(run) for run in runs)]]
    for key, words in FIGURES.items():
        figures = [figure_of(run.result, key) or "-" for run in runs]
        if any(figure != "-" for figure in figures):
            rows.append([text(words), *map(text, figures)])
    metrics = dict.fromkeys(name for run in runs for name in _metrics(run))
    for name in metrics:
        rows.append([text(name), *(text(_metrics(run).get(name, "-")) for run in runs)])
    yield f"<h2>Figures</h2>{table(rows, head, numbers=True)}"
    yield f"<h2>Settings that differ</h2>{_settings(runs, head)}"
    charts = "".join(map(draw_chart, overlaid([*zip(names, (run.series for run in runs), strict=True)])))
    yield f'<h2>Course</h2><div class="charts">{charts}</div>'
    yield "<h2>What went wrong, and what held them up</h2>"
    for name, run in zip(names, runs, strict=True):
        yield f"<h3>{text(name)}</h3>{said(findings(run))}"


def _status(run: Evidence) -> str:
    return f'<td class="number {STATUS_TONES.get(run.status, "quiet")}">{text(run.status)}</td>'


def _metrics(run: Evidence) -> dict[str, str]:
    metrics = run.result.get("metrics")
    return {str(name): number(value) for name, value in metrics.items()} if isinstance(metrics, dict) else {}


def _settings(runs: Sequence[Evidence], head: Sequence[str]) -> str:
    if not all(run.settings for run in runs):
        return '<p class="quiet">Not every run has a job file that can be read.</p>'
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    missing = object()
    rows = [
        [text(key), *(text(run.settings.get(key, "not given")) for run in runs)]
        for key in keys
        if len({repr(run.settings.get(key, missing)) for run in runs}) > 1
    ]
    return table(rows, head) if rows else '<p class="quiet">None: the jobs are the same.</p>'
