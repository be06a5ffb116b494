"""One whole job, as ``edldist run`` runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edldist_launch.process.tie import tied_command
from examples.common.errors import SweepError

__all__ = ["run_job"]

ROOT = Path(__file__).resolve().parents[2]


def run_job(job: Path, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run a job to its end; one that is unfinished in ``folder`` is gone on with.

    Each of its processes computes on one thread, so that figures do not depend on how many cores there are.
    What it shows goes to standard error. It is told to end when this process does.

    Args:
        settings: keys of the job file and their values, as for ``--set``.

    Returns:
        ``metrics`` of its ``result.json``.

    Raises:
        SweepError: it failed.
    """
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    command = [sys.executable, "-m", "edldist_launch", "run", str(job.resolve())]
    started = subprocess.Popen(
        tied_command([*command, "--output", str(folder.resolve()), *options], os.getpid()),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=sys.stderr,
        start_new_session=True,  # of Ctrl-C it is told once, by us
    )
    try:
        code = started.wait()
    except BaseException:
        started.terminate()
        started.wait()
        raise
    result = folder / "result.json"
    try:
        found = json.loads(result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = {"status": "without a result"}
    if code != 0 or found["status"] != "completed":
        raise SweepError(
            f"the job in {folder} ended with exit code {code} ({found['status']}): what its processes said "
            f"is in {folder / 'logs'}. Once it is mended, the same command goes on with it"
        )
    metrics: dict[str, Any] = found["metrics"]
    return metrics
