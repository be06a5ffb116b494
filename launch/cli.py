"""The command line. Nothing heavy is imported before a command needs it: ``--help`` answers at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edldist.bounds import LONGEST_WAIT_S, MOST, MOST_RANKS_A_NODE, MOST_THREADS
from edldist.errors import ConfigError
from edldist_launch.exits import run_command
from edldist_launch.init import leave_process_one
from edldist_launch.option_types import (
    ADDRESS,
    BIND,
    DEVICE,
    FACTORY,
    HTTP,
    MODEL,
    NAME,
    TTL_S,
    WAIT_S,
    BatchSize,
    Option,
    Override,
    Ranks,
    Seconds,
    version,
)

__all__ = ["cli", "main"]


def _model_args(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of a factory, by name."""
    if not given:
        return {}
    from edldist.config import parse_argument

    try:
        arguments = [parse_argument(text) for text in given]
    except ConfigError as exc:
        raise click.BadParameter(str(exc)) from exc
    names = [name for name, _ in arguments]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise click.BadParameter(f"{', '.join(twice)} is given twice.")
    return dict(arguments)


def _option(*names: str, **settings: Any) -> Callable[[Any], Any]:
    """An option that ``EDLDIST_<OPTION>`` sets too; the option wins."""
    variable = "EDLDIST_" + names[0].removeprefix("--").split("/")[0].replace("-", "_").upper()
    settings.setdefault("envvar", variable)
    settings.setdefault("show_default", settings.get("default") is not None)
    return click.option(*names, cls=Option, **settings)


def _own_id(context: click.Context, option: click.Parameter, given: str | None) -> str | None:
    """A name on the command line is of one process; all that a shell starts inherit its variables."""
    source = context.get_parameter_source(option.name or "")
    if given is None or source is not click.core.ParameterSource.ENVIRONMENT:
        return given
    return f"{given[:90]}-{os.urandom(4).hex()}"


def _on_command_line(name: str) -> bool:
    """Whether an option of this command was given there, and not by its variable."""
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def _begin(prefix: str) -> None:
    """Log with a prefix, and go on whatever becomes of the terminal: for commands that work for hours."""
    from edldist.observe.logs import install_logging
    from edldist.observe.streams import install_steady_streams

    install_steady_streams()
    install_logging(prefix)


coordinator_option = _option(
    "--coordinator", type=ADDRESS, metavar="URL", required=True, help="Address of the coordinator."
)

import_from_option = _option(
    "--import-from",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Another folder to import from, after the current one: `run` gives that of the job file.",
)


def _share_cpus() -> str:
    """Take a teacher worker's part of this machine's CPUs, and say it.

    They are shared with the teacher workers that run here now, and with one student at least.
    """
    from edldist.cpus import usable_cpus
    from edldist_launch.sharers import commands_here, sharers_of
    from edldist_launch.torchrun import limit_threads

    if chosen := os.environ.get("OMP_NUM_THREADS"):
        return f"CPU threads: {chosen} (OMP_NUM_THREADS)"
    commands = list(commands_here())
    sharers = 1 + sharers_of("teacher", commands) + max(1, sharers_of("student", commands))
    threads = limit_threads(os.environ, sharers)
    return (
        f"CPU threads: {threads} of {usable_cpus()}, shared with {sharers - 1} other teacher workers and "
        "students of this machine (set OMP_NUM_THREADS to choose)"
    )


def _import_places(import_from: str | None) -> list[str]:
    return [os.getcwd(), *([os.path.abspath(import_from)] if import_from else [])]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@_option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    help="What to log on stderr.",
)
@click.version_option(package_name="edldist", prog_name="edldist")
def cli(log_level: str) -> None:
    """Elastic knowledge distillation.

    Teachers and students run as separate elastic groups, linked by a queue of soft labels. Every
    option can be given as a variable EDLDIST_<OPTION> too; the option wins.
    """
    os.environ["EDLDIST_LOG_LEVEL"] = log_level


@cli.command()
@click.argument("job", type=click.Path(path_type=Path))
@_option(
    "--set",
    "overrides",
    type=Override("EDLDIST_SET"),
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the job: a dotted key and a YAML value, as in teachers.0.replicas=3. Repeatable; the "
    "variable holds several, parted and quoted as in a shell.",
)
@_option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for everything written (default: out/NAME, or the next free one of out/NAME-2, ...).",
)
@_option(
    "--fresh",
    is_flag=True,
    help="Begin anew: what an earlier run recorded in the folder moves into earlier-N there.",
)
@_option(
    "--extend",
    is_flag=True,
    help="Go on from the folder's last checkpoint, though the run is finished or the job has changed.",
)
@_option("--dry-run", is_flag=True, help="Print the resolved job, and start nothing.")
def run(
    job: Path, overrides: tuple[str, ...], output: Path | None, fresh: bool, extend: bool, dry_run: bool
) -> int:
    """Run the whole job of a JOB file on this machine.

    Starts a coordinator, the teacher workers and the students, watches over them, and writes
    result.json, events.jsonl, logs and checkpoints to --output. The same command again goes on with a run
    that was interrupted, from its last checkpoint.
    """
    if fresh and extend:
        raise click.UsageError("--fresh begins anew and --extend goes on: give one of them.")
    from edldist_launch.earlier import Beginning

    beginning: Beginning = "fresh" if fresh else "extend" if extend else "resume"
    if dry_run:
        from edldist_launch.dry_run import describe_run

        print(describe_run(job, overrides, output, beginning), end="")
        return 0
    from edldist_launch.run import run_job

    _begin("run")
    return run_job(job, overrides, output, beginning)


@cli.command()
def schema() -> None:
    """Print the JSON schema of a job file, by which editors complete and check it.

    Write it beside the job file (edldist schema > edldist.schema.json), and let the job file begin with
    the line "# yaml-language-server: $schema=edldist.schema.json".
    """
    import json

    from edldist.config import job_schema

    print(json.dumps(job_schema(), indent=2))


@cli.command()
@_option(
    "--bind",
    type=BIND,
    metavar="URL",
    default="tcp://127.0.0.1:7070",
    help="Where members connect; port 0: any.",
)
@_option(
    "--http",
    type=HTTP,
    metavar="HOST:PORT",
    default="127.0.0.1:7071",
    help="Where /status is served; port 0: any.",
)
@_option("--heartbeat-interval-s", type=TTL_S, default=1.0, help="How often members report.")
@_option("--heartbeat-ttl-s", type=TTL_S, default=3.0, help="Silence after which one is lost.")
@_option(
    "--max-students-per-worker",
    type=click.IntRange(min=1, max=MOST),
    default=16,
    help="Students that one teacher worker serves at most, where there are workers enough.",
)
@_option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for the job's record: events.jsonl, result.json and curves.png.",
)
@_option("--ready-file", type=click.Path(dir_okay=False), hidden=True)
def coordinator(
    bind: str,
    http: str,
    heartbeat_interval_s: float,
    heartbeat_ttl_s: float,
    max_students_per_worker: int,
    output: Path | None,
    ready_file: str | None,
) -> int:
    """Run the coordinator: who is here, and who serves whom.

    With --output it writes down what edldist run would: teachers and students may be started by hand, on any
    number of machines.
    """
    from edldist.coordinator.server import CoordinatorOptions, run_coordinator

    _begin("coordinator")
    options = CoordinatorOptions(
        bind=bind,
        http=http,
        heartbeat_interval_s=heartbeat_interval_s,
        heartbeat_ttl_s=heartbeat_ttl_s,
        ready_file=ready_file,
        max_students_per_worker=max_students_per_worker,
    )
    if output is None:
        return run_coordinator(options)
    from edldist_launch.record import open_record
    from edldist_launch.scribe import Scribe

    with open_record(output) as folder, Scribe(folder) as scribe:
        return run_coordinator(options, scribe.tell)


@cli.command()
@coordinator_option
@_option(
    "--model",
    type=MODEL,
    metavar="MODULE:FACTORY",
    required=True,
    help="What makes the model; or hf:FOLDER[#CLASS], a folder of Hugging Face's save_pretrained.",
)
@_option(
    "--model-arg",
    "model_args",
    type=Override("EDLDIST_MODEL_ARG"),
    multiple=True,
    metavar="NAME=VALUE",
    callback=_model_args,
    help="An argument of the factory (with hf:, of from_pretrained), the value in YAML, as in layers=3. "
    "Repeatable; the variable holds several, parted and quoted as in a shell.",
)
@_option(
    "--name", type=NAME, metavar="NAME", default="teacher", help="Teacher group that this worker serves in."
)
@_option("--device", type=DEVICE, metavar="DEVICE", default="auto", help="auto, cpu, cuda, cuda:N ...")
@_option(
    "--batch-size",
    type=BatchSize(min=1, max=MOST),
    metavar="N",
    default=64,
    help="Most samples in a forward pass, or auto to find the number by measuring.",
)
@_option("--codec", metavar="CODEC", default="dense", help="How labels travel: dense[:fp16|bf16|fp32].")
@_option(
    "--weights", type=click.Path(), help="File, index of shards, or folder of either, to load into the model."
)
@_option(
    "--outputs",
    metavar="NAMES",
    help="Outputs of the model that are sent, as in logits or logits,features (default: all).",
)
@_option(
    "--model-version",
    "version",
    type=version,
    metavar="TEXT",
    default="",
    show_default=False,
    help="What tells the model from an earlier one where its weights do not: workers of a group must agree.",
)
@_option(
    "--compile/--no-compile",
    default=False,
    show_default=False,
    help="Run the model through torch.compile, for any number of samples; the first passes compile it. "
    "Tasks of deterministic jobs run uncompiled.",
)
@_option("--autocast", type=click.Choice(["bf16", "fp16"]), help="Run the model under autocast.")
@_option(
    "--channels-last/--no-channels-last",
    default=False,
    show_default=False,
    help="Keep weights and images in channels-last memory format.",
)
@_option(
    "--dataset",
    type=FACTORY,
    metavar="MODULE:FACTORY",
    help="What makes the data set: students then send sample indices instead of inputs.",
)
@_option(
    "--dataset-inputs",
    metavar="KEYS",
    help="Entries of a sample that the model takes, as in image,mask or 0 "
    "(default: the first of a tuple, all of a dict).",
)
@_option(
    "--dataset-threads",
    type=click.IntRange(min=1, max=MOST_THREADS),
    default=1,
    help="Threads that read the data set; with more than one it must be thread-safe.",
)
@_option(
    "--allow-nonfinite/--refuse-nonfinite",
    default=False,
    show_default=False,
    envvar="EDLDIST_ALLOW_NONFINITE",
    help="Whether labels may hold NaN or infinity (default: refuse).",
)
@_option(
    "--drain-s", type=Seconds(min=0, max=LONGEST_WAIT_S), default=30.0, help="Time to finish work on SIGTERM."
)
@_option("--connect-timeout-s", type=WAIT_S, default=300.0, help="How long to look for a coordinator.")
@_option(
    "--id",
    "worker_id",
    type=NAME,
    metavar="ID",
    callback=_own_id,
    help="Name of this worker (default: made up). EDLDIST_ID, which several may inherit, is its beginning.",
)
@import_from_option
def teacher(codec: str, import_from: str | None, **settings: Any) -> int:
    """Run one teacher worker.

    Exit codes: 0 drained, 2 the model or an option is wrong, 3 it is not the teacher that the group's other
    workers are (another model, other weights, another version, codec or output names), 1 anything else.
    """
    from edldist.config import check_codec_name

    try:
        check_codec_name(codec)
    except ValueError as exc:
        raise ConfigError(f"--codec {codec}: {exc}") from exc
    from edldist_launch.folder import make_importable

    threads = _share_cpus()  # before anything imports torch, which would not see it
    make_importable(*_import_places(import_from))
    from edldist.teacher.worker import WorkerOptions, run_worker

    _begin(f"teacher {settings['worker_id'] or settings['name']}")
    logging.getLogger(__name__).info("%s", threads)
    return run_worker(WorkerOptions(codec=codec, **settings))


@cli.command(context_settings={"allow_interspersed_args": False})
@coordinator_option
@_option("--nnodes", default="1", help='Nodes, as in "1", or a range, as in "1:4".')
@_option(
    "--nproc-per-node",
    type=Ranks(min=1, max=MOST_RANKS_A_NODE),
    metavar="N",
    default=1,
    help="Ranks on this node; gpu: as many as it has GPUs; auto: the same, or its cores where it has none.",
)
@_option(
    "--max-restarts",
    type=click.IntRange(min=0, max=MOST),
    default=3,
    help="Restarts in a row without progress.",
)
@_option(
    "--run-id",
    metavar="ID",
    help="Nodes of one run share it; a new run needs a new one "
    "(default: made of the command and the job's folder, the same for nodes that start the same).",
)
@_option("--connect-timeout-s", type=WAIT_S, default=300.0, help="How long to look for a coordinator.")
@import_from_option
@click.argument("script", type=click.Path())
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def student(script: str, args: tuple[str, ...], import_from: str | None, **settings: Any) -> int:
    """Run a training SCRIPT under torchrun on this node; ARGS are passed through to it.

    With a range of nodes, start the same command on each of them; nodes may come and go.
    """
    from edldist_launch.folder import add_to_environment
    from edldist_launch.student import run_student

    add_to_environment(os.environ, *_import_places(import_from))
    _begin("student")
    return run_student(script=script, args=args, **settings)


@cli.command()
@_option(
    "--coordinator",
    type=ADDRESS,
    metavar="URL",
    help="Address of the coordinator (default: tcp://127.0.0.1:7070).",
)
@_option(
    "--output",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="The output folder of a job, in place of its coordinator's address; shows its result after its end.",
)
@_option("--json", "as_json", is_flag=True, help="Print JSON.")
@_option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C or the job's end.")
def status(coordinator: str | None, output: Path | None, as_json: bool, watch: bool) -> int:
    """Show the members of a job, their figures, and who waits for whom and why."""
    if coordinator is not None and output is not None:
        if _on_command_line("coordinator") and _on_command_line("output"):
            raise click.UsageError("--coordinator and --output both say which job: give one of them.")
        output = output if _on_command_line("output") else None
    from edldist_launch.console import PlainConsole
    from edldist_launch.status import show_status, show_status_of_folder

    try:
        if output is not None:
            return show_status_of_folder(output, as_json, PlainConsole(), watch)
        return show_status(coordinator or "tcp://127.0.0.1:7070", as_json, PlainConsole(), watch)
    except KeyboardInterrupt:
        if watch:
            return 0  # the way to end it
        raise


@cli.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def bench(args: tuple[str, ...]) -> int:
    """Measure every figure beside its limit."""
    from edldist_launch.bench import run_bench
    from edldist_launch.folder import add_to_environment

    add_to_environment(os.environ, os.getcwd())
    run_bench(args)


def main() -> None:
    """Entry of the console script; ends the process with the exit codes of the design."""
    leave_process_one()
    run_command(cli, "edldist")
