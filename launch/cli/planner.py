"""``edldist plan``: how many workers a job deserves, by the logs of its runs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click

from edldist.bounds import MOST, MOST_WORKERS
from edldist_launch.cli.options.options import option

__all__ = ["plan"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_S = 1e9
MOST_HOURS = 1e8


class _Length(click.ParamType[float]):
    """A length of time: ``2h``, ``90m``, ``1h30m``, or seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", text, re.ASCII)
        whole = re.fullmatch(r"(?:\d+(?:\.\d+)?[smhd])+|\d+(?:\.\d+)?", text, re.ASCII)
        seconds = sum(float(count) * _UNITS[unit or "s"] for count, unit in parts) if whole else 0.0
        if not 0 < seconds <= LONGEST_S:
            self.fail(f"{text!r} is no time above 0: write it as in 2h, 90m, 1h30m or 300s.", param, ctx)
        return seconds


class _Count(click.ParamType[tuple[str, int]]):
    """``TYPE=N``: workers on a type of device."""

    name = "count"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        device, _, count = str(value).rpartition("=")
        if not device.strip() or not re.fullmatch(r"\d{1,6}", count, re.ASCII) or int(count) > MOST_WORKERS:
            self.fail(f"{value!r}: write TYPE=N, as in cpu=8, with N from 0 to {MOST_WORKERS}.", param, ctx)
        return device.strip(), int(count)


class _Share(click.FloatRange):
    """A number of a range; "not a number" is in none, though no comparison says so."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value!r} is no number in the range {self._describe_range()}.", param, ctx)
        return number


@click.command()
@click.argument(
    "logs", nargs=-1, required=True, metavar="LOGS...", type=click.Path(path_type=Path, file_okay=False)
)
@option(
    "--efficiency",
    type=_Share(min=0, min_open=True, max=1),
    help="The student is to reach this share of its own speed (default: 0.95).",
)
@option(
    "--deadline", type=_Length(), metavar="TIME", help="The run is to be done in this time, as in 2h or 90m."
)
@option(
    "--budget",
    type=_Share(min=0, min_open=True, max=MOST_HOURS),
    metavar="WORKER_HOURS",
    help="The run may cost so many worker hours, and is to be as fast as that allows.",
)
@option(
    "--most",
    type=_Count(),
    multiple=True,
    metavar="TYPE=N",
    help="Workers that there may be on a type of device, as the logs call it. Repeatable; types that are not "
    "named may not be used then (default: as many as are of any use, on all types).",
)
@option("--batch-size", type=click.IntRange(min=1, max=MOST), help="Plan with this batch size alone.")
@option(
    "--samples",
    type=click.IntRange(min=1, max=MOST),
    help="Of the run (default: as many as the last of LOGS).",
)
@option("--teacher", metavar="NAME", help="Plan for the workers of this teacher, where LOGS have several.")
@option(
    "--write",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the plan as keys of a job file, for `edldist run JOB.yaml --set @FILE`.",
)
@option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write plan.json, and plan.png with the frontier, to this folder.",
)
@option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def plan(
    logs: tuple[Path, ...],
    efficiency: float | None,
    deadline: float | None,
    budget: float | None,
    most: tuple[tuple[str, int], ...],
    batch_size: int | None,
    samples: int | None,
    teacher: str | None,
    write: Path | None,
    output: Path | None,
    as_json: bool,
) -> int:
    """Find the fewest workers that do for a job, by the LOGS of its runs.

    LOGS are output folders of `edldist run`. What each stage of a worker takes by batch size is fitted to
    them, the job is replayed in virtual time with other batch sizes, depths and numbers of workers, and the
    setting with the fewest worker seconds that meets the target is told, with its figures and all that
    they rest on. Passes of two sizes at least have to be in LOGS; the last says what the student takes.

    Exit codes: 0 planned, 1 no plan meets the target (the nearest is told), 2 usage, or too little in LOGS.
    """
    from edldist_launch.planner.logs import read_logs
    from edldist_launch.planner.planning import make_plan
    from edldist_launch.planner.report import document, in_words
    from edldist_launch.planner.target import Kind, Target
    from edldist_launch.planner.writing import write_fragment, write_plan

    given: dict[Kind, float | None] = {
        "efficiency": efficiency,
        "deadline": deadline,
        "budget": None if budget is None else budget * 3600,
    }
    targets = [Target(kind, value) for kind, value in given.items() if value is not None]
    if len(targets) > 1:
        names = " and ".join(f"--{each.kind}" for each in targets)
        raise click.UsageError(f"{names} are given: a plan has one target.")
    target = targets[0] if targets else Target("efficiency", 0.95)
    runs = [read_logs(folder, teacher) for folder in dict.fromkeys(logs)]
    if len({run.teacher for run in runs}) > 1:
        names = ", ".join(f"{run.folder} has {run.teacher}" for run in runs)
        raise click.UsageError(f"the logs are of different teachers ({names}): say which with --teacher.")
    for run in runs:
        for words in run.damage:
            print(f"{run.folder}: {words}; left out", file=sys.stderr)
    allowed = dict(most) if most else None
    made = make_plan(runs, target, allowed, batch_size, samples)
    print(json.dumps(document(made), indent=2) if as_json else "\n".join(in_words(made)))
    if output is not None:
        for path in write_plan(made, output):
            print(path, file=sys.stderr if as_json else sys.stdout)
    if write is not None:  # it may be a file of that folder
        write_fragment(made, write)
    return 0 if made.met else 1
