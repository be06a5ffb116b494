"""The command line as a test calls it, in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from click.testing import CliRunner, Result

from edldist_launch.cli import cli
from edldist_launch.plan.commands import own_command


def invoke(*args: str, **variables: str) -> Result:
    clean: dict[str, str | None] = {key: None for key in os.environ if key.startswith("EDLDIST_")}
    clean["OMP_NUM_THREADS"] = "1"  # which a command would choose for this very process
    return CliRunner().invoke(cli, args, env={**clean, **variables}, standalone_mode=False)


def edldist(*args: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """The real thing, in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
    return subprocess.run(
        own_command(*args),
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment, **variables},
        check=False,
        timeout=150,
    )
