"""The group of all commands, and the entry of the console script."""

from __future__ import annotations

import os

import click

from edldist import __version__
from edldist_launch.cli.bench import bench
from edldist_launch.cli.clusters.clusters import render, submit
from edldist_launch.cli.clusters.slurm import placer
from edldist_launch.cli.completion import completion
from edldist_launch.cli.doctor import doctor
from edldist_launch.cli.init import init
from edldist_launch.cli.keygen import keygen
from edldist_launch.cli.label import label
from edldist_launch.cli.options.options import link_options, option
from edldist_launch.cli.options.verbosity import chosen_level, verbosity_options
from edldist_launch.cli.planner import plan
from edldist_launch.cli.roles.coordinator import coordinator
from edldist_launch.cli.roles.student import student
from edldist_launch.cli.roles.teacher import teacher
from edldist_launch.cli.run import run
from edldist_launch.cli.scale import scale
from edldist_launch.cli.schema import schema
from edldist_launch.cli.stop import stop
from edldist_launch.cli.tune import tune
from edldist_launch.cli.watch.logs import logs
from edldist_launch.cli.watch.report import report
from edldist_launch.cli.watch.status import status
from edldist_launch.cli.watch.top import top
from edldist_launch.cli.watch.tracing import trace
from edldist_launch.cli.watch.wait import wait
from edldist_launch.process.exits import run_command
from edldist_launch.process.init import leave_process_one

__all__ = ["cli", "main"]


def _say_version(context: click.Context, parameter: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        from edldist.wire.messages import PROTOCOL

        click.echo(f"edldist, version {__version__} (wire protocol {PROTOCOL.name})")
        context.exit()


@verbosity_options
@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="info",
    help="What to log on stderr.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_say_version,
    help="Show the version, and the wire protocol, which all processes of a job must share.",
)
@click.pass_context
def cli(context: click.Context, log_level: str) -> None:
    """Elastic knowledge distillation.

    Teachers and students run as separate elastic groups, linked by a queue of soft labels. Every
    option can be given as a variable EDLDIST_<OPTION> too; the option wins.
    """
    os.environ["EDLDIST_LOG_LEVEL"] = chosen_level(context, log_level)


for command in (
    *(doctor, run, label, tune, status, top, scale, logs, wait, stop, coordinator, teacher, student, trace),
    *(*submit.commands.values(), *render.commands.values()),
):
    if all(parameter.name != "keys" for parameter in command.params):  # this file may be imported anew
        link_options(command)

for command in (
    *(
        init,
        doctor,
        keygen,
        run,
        label,
        tune,
        plan,
        submit,
        render,
        status,
        top,
        scale,
        logs,
        wait,
        stop,
        report,
        schema,
    ),
    *(completion, coordinator, teacher, student, bench, placer, trace),
):
    cli.add_command(command)

for command in (
    *(command for command in cli.commands.values() if command not in (submit, render, bench)),
    *(*submit.commands.values(), *render.commands.values()),
):
    if all(parameter.name != "quiet" for parameter in command.params):
        verbosity_options(command)


def main() -> None:
    """Entry of the console script; ends the process with the exit codes of the design."""
    leave_process_one()
    run_command(cli, "edldist")
