"""``edldist coordinator``: where it listens, and the record that it may keep."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edldist.bounds import MOST
from edldist.errors import ConfigError
from edldist_launch.cli.options.begin import begin
from edldist_launch.cli.options.option_types import BIND, HTTP, NAME, TTL_S, advertised
from edldist_launch.cli.options.options import option

if TYPE_CHECKING:
    from edldist.coordinator.scaling.scaling import Bounds

__all__ = ["coordinator"]


def _scale(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, Bounds]:
    """The bounds of each teacher group."""
    if not given:
        return {}
    from edldist.coordinator.scaling.scaling import Bounds

    bounds: dict[str, Bounds] = {}
    for text in given:
        name, equals, number = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=N or NAME=MIN:MAX[:START], such as teacher=1:8.")
        if name in bounds:
            raise click.BadParameter(f"{name} is given twice.")
        try:
            bounds[NAME(name)] = Bounds.parse(number)
        except ConfigError as exc:
            raise click.BadParameter(f"{name}={exc}") from exc
    return bounds


@click.command()
@option(
    "--bind",
    type=BIND,
    metavar="URL",
    default="tcp://127.0.0.1:7070",
    help="Where members connect; port 0: any.",
)
@option(
    "--http",
    type=HTTP,
    metavar="HOST:PORT",
    help="Where /status, /history, /metrics and /scaling/GROUP are served; port 0: any (default: "
    "127.0.0.1:7071, or any free port where another coordinator has it).",
)
@option(
    "--http-host",
    "http_hosts",
    multiple=True,
    metavar="NAME",
    help="A name by which browsers and scrapers may call that server, beside its addresses, localhost and "
    "this host's own name. Repeatable; the variable holds several, parted by spaces.",
)
@option(
    "--http-token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A file, which others cannot read, with what an autoscaler must know (Authorization: Bearer TOKEN) "
    "that asks for /scaling/GROUP.",
)
@option(
    "--http-token-all",
    is_flag=True,
    help="Ask for that token on every page that tells of the job, but /healthz. A browser has none to show.",
)
@option("--heartbeat-interval-s", type=TTL_S, default=1.0, help="How often members report.")
@option("--heartbeat-ttl-s", type=TTL_S, default=3.0, help="Silence after which one is lost.")
@option(
    "--max-students-per-worker",
    type=click.IntRange(min=1, max=MOST),
    default=16,
    help="Students that one teacher worker serves at most, where there are workers enough.",
)
@option(
    "--scale",
    multiple=True,
    metavar="NAME=MIN:MAX[:START]",
    callback=_scale,
    help="Decide how many workers a teacher group should have, between these bounds; or NAME=N: so many, "
    "until somebody asks for another number. Repeatable; the variable holds several, parted by spaces.",
)
@option(
    "--scale-policy",
    type=click.Choice(["demand", "watermark"]),
    default="demand",
    help="By what students could take and workers give; or EDL-Dist's rule: one more for each buffer that "
    "runs low, one fewer when all are full.",
)
@option(
    "--scale-leaving",
    type=click.Choice(["slowest", "any"]),
    default="slowest",
    help="Which workers leave where fewer are wanted: the slowest, as under edldist run and on Slurm, or "
    "any, as Kubernetes chooses. Then those that stay have to be enough whichever they are.",
)
@option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for the job's record: events.jsonl, result.json, report.html and curves.png.",
)
@option(
    "--job-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="The job file that this is the record of; it is copied there.",
)
@option(
    "--submission",
    metavar="ID",
    default="",
    help="Of the job: a coordinator that takes another one's place goes on with the figures of the record "
    "where this is the same.",
)
@option(
    "--address-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Where to say where it listens, for members with --coordinator file:FILE.",
)
@option(
    "--history-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Where the course of the run is kept, and gone on with after a restart (default: history.json of "
    "--output).",
)
@option(
    "--stages-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Where rows are added that say how long the stages of single tasks took in teacher workers "
    "(default: stages.jsonl of --output).",
)
@option(
    "--advertise",
    type=advertised,
    metavar="HOST",
    help="By which host others reach one that listens everywhere, for that file.",
)
def coordinator(
    bind: str,
    http: str | None,
    http_hosts: tuple[str, ...],
    http_token_file: Path | None,
    http_token_all: bool,
    heartbeat_interval_s: float,
    heartbeat_ttl_s: float,
    max_students_per_worker: int,
    scale: dict[str, Bounds],
    scale_policy: str,
    scale_leaving: str,
    output: Path | None,
    job_file: Path | None,
    submission: str,
    address_file: str | None,
    history_file: str | None,
    stages_file: str | None,
    advertise: str | None,
) -> int:
    """Run the coordinator: who is here, and who serves whom.

    With --output it writes down what edldist run would: teachers and students may be started by hand, on any
    number of machines.
    """
    from edldist.coordinator.course.history_file import HISTORY
    from edldist.coordinator.course.stage_file import STAGES_FILE
    from edldist.coordinator.options import CoordinatorOptions
    from edldist.coordinator.running import run_coordinator
    from edldist.coordinator.scaling.scaling import Rules
    from edldist.keys.private import read_token

    if job_file is not None and output is None:
        raise click.UsageError("--job-file is copied into the record: give --output, too.")
    begin("coordinator")
    options = CoordinatorOptions(
        bind=bind,
        http=http or CoordinatorOptions.http,
        http_or_any=http is None,
        http_hosts=http_hosts,
        http_token=None if http_token_file is None else read_token(http_token_file, "--http-token-file"),
        http_token_all=http_token_all,
        heartbeat_interval_s=heartbeat_interval_s,
        heartbeat_ttl_s=heartbeat_ttl_s,
        address_file=address_file,
        history_file=history_file or (None if output is None else str(output / HISTORY)),
        stages_file=stages_file or (None if output is None else str(output / STAGES_FILE)),
        advertise=advertise,
        max_students_per_worker=max_students_per_worker,
        scale=scale,
        scaling=Rules(policy=scale_policy, slowest_leave=scale_leaving == "slowest"),
    )
    if output is None:
        return run_coordinator(options)
    from edldist_launch.record.folder import open_record
    from edldist_launch.track.opening import feed_of
    from edldist_launch.view.scribe import Scribe

    job = None
    if job_file is not None:
        from edldist.config import load_job

        job = load_job(job_file)
    name = job.name if job is not None else None
    trackers = feed_of(name or output.name, output.absolute(), os.environ, job)
    told = job is not None
    with (
        open_record(output, job) as folder,
        Scribe(folder, job=name, submission=submission, nodes_tell=told, trackers=trackers) as scribe,
    ):
        return run_coordinator(options, scribe.tell)
