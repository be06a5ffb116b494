"""``edldist teacher``: one teacher worker, and its part of this machine's CPUs."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from edldist.bounds import LONGEST_WAIT_S, MOST, MOST_THREADS
from edldist.errors import ConfigError
from edldist.grace import DRAIN_S
from edldist_launch.cli.options.begin import begin
from edldist_launch.cli.options.option_types import (
    DEVICE,
    FACTORY,
    MODEL,
    NAME,
    WAIT_S,
    BatchSize,
    Override,
    Seconds,
    version,
)
from edldist_launch.cli.options.options import (
    coordinator_option,
    http_option,
    import_from_option,
    import_places,
    option,
)

__all__ = ["teacher"]


def _model_args(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
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


def _own_id(context: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    """A name on the command line is of one process; all that a shell starts inherit its variables."""
    source = context.get_parameter_source(parameter.name or "")
    if given is None or source is not click.core.ParameterSource.ENVIRONMENT:
        return given
    return f"{given[:90]}-{os.urandom(4).hex()}"


def _found_paths(settings: Mapping[str, Any], beside: Path) -> dict[str, Any]:
    """What the worker loads, looked for from the current folder and from that of the job file.

    Where a job is handed over before its ``prepare`` has made the weights, nobody knew which of the two.

    Raises:
        ConfigError: it could be of two different files.
    """
    from edldist_launch.plan.paths import find, lead_paths

    found = lead_paths(
        "--",
        lambda option, path: find(option, path, (Path.cwd(), beside.absolute())) or path,
        kwargs=settings["model_args"],
        **{name: settings[name] for name in ("model", "weights", "vocabulary")},
    )
    return {"model_args" if name == "kwargs" else name: value for name, value in found.items()}


def _share_cpus() -> str:
    """Take a teacher worker's part of this machine's CPUs, and say it.

    They are shared with the teacher workers that run here now, and with one student at least.
    """
    from edldist.cpus import usable_cpus
    from edldist_launch.machine.cpu_shares import commands_here, limit_threads, sharers_of

    if chosen := os.environ.get("OMP_NUM_THREADS"):
        return f"CPU threads: {chosen} (OMP_NUM_THREADS)"
    commands = list(commands_here())
    sharers = 1 + sharers_of("teacher", commands) + max(1, sharers_of("student", commands))
    threads = limit_threads(os.environ, sharers)
    return (
        f"CPU threads: {threads} of {usable_cpus()}, shared with {sharers - 1} other teacher workers and "
        "students of this machine (set OMP_NUM_THREADS to choose)"
    )


@click.command()
@coordinator_option
@option(
    "--model",
    type=MODEL,
    metavar="MODULE:FACTORY",
    required=True,
    help="What makes the model; or hf:FOLDER[#CLASS], a folder of Hugging Face's save_pretrained; or an "
    "HTTP engine, vllm:http://HOST:PORT[#NAME] or sglang:http://HOST:PORT[#NAME].",
)
@option(
    "--model-arg",
    "model_args",
    type=Override("EDLDIST_MODEL_ARG"),
    multiple=True,
    metavar="NAME=VALUE",
    callback=_model_args,
    help="An argument of the factory (with hf:, of from_pretrained; of an engine, see docs/teachers.md), the "
    "value in YAML, as in layers=3. "
    "Repeatable; the variable holds several, parted and quoted as in a shell.",
)
@option(
    "--name", type=NAME, metavar="NAME", default="teacher", help="Teacher group that this worker serves in."
)
@option("--device", type=DEVICE, metavar="DEVICE", default="auto", help="auto, cpu, cuda, cuda:N ...")
@option(
    "--batch-size",
    type=BatchSize(min=1, max=MOST),
    metavar="N",
    default=64,
    help="Most samples in a forward pass, or auto to find the number by measuring.",
)
@option(
    "--codec",
    metavar="CODEC",
    default="dense",
    help="How labels travel: dense[:fp16|bf16|fp32], int8, topk:K, rs:N and others (docs/codecs.md).",
)
@option(
    "--weights",
    type=click.Path(),
    help="File, index of shards, or folder of either, to load into the model; or follow:PLACE, where "
    "somebody publishes weights (edldist.PublishedWeights): each newer version is loaded between two passes.",
)
@option(
    "--outputs",
    metavar="NAMES",
    help="Outputs of the model that are sent, as in logits or logits,features (default: all).",
)
@option(
    "--vocabulary",
    type=click.Path(),
    help="Folder or file of the model's tokenizer, where that does not lie beside the model: students that "
    "say which vocabulary they have compare it with theirs.",
)
@option(
    "--model-version",
    "version",
    type=version,
    metavar="TEXT",
    default="",
    show_default=False,
    help="What tells the model from an earlier one where its weights do not: workers of a group must agree.",
)
@option(
    "--compile/--no-compile",
    default=False,
    show_default=False,
    help="Run the model through torch.compile, for any number of samples; the first passes compile it. "
    "Tasks of deterministic jobs run uncompiled.",
)
@option("--autocast", type=click.Choice(["bf16", "fp16"]), help="Run the model under autocast.")
@option(
    "--channels-last/--no-channels-last",
    default=False,
    show_default=False,
    help="Keep weights and images in channels-last memory format.",
)
@option(
    "--dataset",
    type=FACTORY,
    metavar="MODULE:FACTORY",
    help="What makes the data set: students then send sample indices instead of inputs.",
)
@option(
    "--dataset-inputs",
    metavar="KEYS",
    help="Entries of a sample that the model takes, as in image,mask or 0 "
    "(default: the first of a tuple, all of a dict).",
)
@option(
    "--dataset-threads",
    type=click.IntRange(min=1, max=MOST_THREADS),
    default=1,
    help="Threads that read the data set; with more than one it must be thread-safe.",
)
@option(
    "--allow-nonfinite/--refuse-nonfinite",
    default=False,
    show_default=False,
    envvar="EDLDIST_ALLOW_NONFINITE",
    help="Whether labels may hold NaN or infinity (default: refuse).",
)
@option(
    "--drain-s",
    type=Seconds(min=0, max=LONGEST_WAIT_S),
    default=DRAIN_S,
    help="Time to finish work when asked to stop; less than whoever asks it waits before it kills.",
)
@option("--connect-timeout-s", type=WAIT_S, default=300.0, help="How long to look for a coordinator.")
@option(
    "--id",
    "worker_id",
    type=NAME,
    metavar="ID",
    callback=_own_id,
    help="Name of this worker (default: made up). EDLDIST_ID, which several may inherit, is its beginning.",
)
@option(
    "--attempt",
    type=click.IntRange(min=0, max=MOST),
    metavar="N",
    default=0,
    help="How often a process was started under this id before: a later one takes the place of an earlier "
    "one that still runs somewhere.",
)
@option(
    "--attempt-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Count the starts there, instead: as a container's in its pod, which starts it again.",
)
@http_option
@import_from_option
def teacher(
    codec: str, import_from: str | None, attempt_file: Path | None, attempt: int, **settings: Any
) -> int:
    """Run one teacher worker.

    Exit codes: 143 drained, as it was asked to stop, 130 somebody insisted on that, 2 the model or an option
    is wrong, 3 it is not the teacher that the group's other workers are (another model, other weights,
    another version, codec or output names), 1 anything else.
    """
    from edldist.config import check_codec_name

    try:
        check_codec_name(codec)
    except ValueError as exc:
        raise ConfigError(f"--codec {codec}: {exc}") from exc
    from edldist.keys.open_link import check_reach
    from edldist_launch.process.importing import make_importable
    from edldist_launch.process.starts import count_start

    check_reach(settings["coordinator"])  # before a model is loaded, which may take minutes
    threads = _share_cpus()  # before anything imports torch, which would not see it
    make_importable(*import_places(import_from))
    if import_from is not None:
        settings |= _found_paths(settings, Path(import_from))
    from edldist.teacher.worker import WorkerOptions, run_worker

    begin(f"teacher {settings['worker_id'] or settings['name']}")
    logging.getLogger(__name__).info("%s", threads)
    if attempt_file is not None:
        attempt = count_start(attempt_file)
    return run_worker(WorkerOptions(codec=codec, attempt=attempt, **settings))
