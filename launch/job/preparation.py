"""The job's own preparation: a script that runs to its end before anything else starts."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from edldist.config import ScriptConfig
from edldist.errors import ConfigError
from edldist_launch.contract.backend import ProcessState
from edldist_launch.job.stopped import Stopped
from edldist_launch.local.child import Child, describe_exit
from edldist_launch.local.last_words import own_error
from edldist_launch.plan import commands
from edldist_launch.plan.paths import check_weights, resolve_paths
from edldist_launch.plan.plan import Plan
from edldist_launch.process.importing import add_to_environment
from edldist_launch.process.interrupts import Interrupts
from edldist_launch.view.console import near
from edldist_launch.view.observers import Observers

__all__ = ["prepare"]

LOOK_S = 0.05


def prepare(
    plan: Plan,
    environment: Mapping[str, str],
    log: Path,
    interrupts: Interrupts,
    observers: Observers,
    end: Callable[[Child], None],
    tell: Callable[[ProcessState], None],
) -> Plan:
    """Run the preparation, if the job has one, and show what it prints.

    Args:
        environment: of every process of the job.
        log: where its output goes.
        end: asks a child to leave, and returns when it is gone.
        tell: is told its process when that has started, and when it has ended.

    Returns:
        The plan with the paths of weights that were made beside the job file, where nobody looked before.

    Raises:
        Stopped: it failed, was interrupted, or did not make the weights that the job names.
    """
    script = plan.job.prepare
    if script is None:
        return plan
    _run(plan, script, environment, log, interrupts, observers, end, tell)
    try:
        job = resolve_paths(plan.job, plan.beside / "job.yaml")
        check_weights(job, plan.beside)
    except ConfigError as exc:
        raise Stopped("failed", str(exc)) from exc
    observers.job(job)
    return replace(plan, job=job)


def _run(
    plan: Plan,
    script: ScriptConfig,
    environment: Mapping[str, str],
    log: Path,
    interrupts: Interrupts,
    observers: Observers,
    end: Callable[[Child], None],
    tell: Callable[[ProcessState], None],
) -> None:
    variables = {**environment, "EDLDIST_OUTPUT": str(plan.output)}
    add_to_environment(variables, os.getcwd(), str(plan.beside))
    child = Child("prepare", commands.prepare_command(sys.executable, script), variables, log)
    observers.say(f"preparing: {near(Path(script.script))}")
    child.start()
    observers.event("prepare_started", pid=child.pid)
    process = ProcessState("prepare", str(child.pid), "running", socket.gethostname())
    tell(process)
    try:
        shown = child.log_start
        while child.running and not interrupts.asked:
            shown += _show_output(child, shown, observers)
            time.sleep(LOOK_S)
        if interrupts.asked:
            end(child)
        _show_output(child, shown, observers)
    finally:
        child.kill()
    code = child.poll() or 0
    tell(
        replace(process, phase="failed" if code else "succeeded", reason=describe_exit(code) if code else "")
    )
    if interrupts.come_as(code):
        raise Stopped("interrupted", "stopped while preparing")
    observers.event("prepare_finished", code=code)
    if code != 0:
        said = own_error(child.output())
        where = near(Path(script.script))
        raise Stopped("failed", f"{where} failed ({describe_exit(code)}){f': {said}' if said else ''}")


def _show_output(child: Child, start: int, observers: Observers) -> int:
    """Show what a child's log holds from byte ``start`` on; how much that was."""
    output = child.read_log(start)
    if output:
        observers.echo(output)
    return len(output)
