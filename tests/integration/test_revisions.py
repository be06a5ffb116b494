"""Processes of another revision, whose messages have a field more: refused at once, both sides named."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edldist.wire.messages import PROTOCOL
from edldist_launch.process.tie import tied_command
from tests.harness import LocalJob, local_job

pytestmark = [pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 120.0
"""Less than anybody waits for a coordinator that does not answer."""
RANK = """\
import edldist
import torch

for _ in edldist.DistillLoader([{"id": torch.zeros(2)}], "id"):
    pass
"""
REPORTER = """\
import logging
import edldist
from edldist.observe import reporter

logging.basicConfig()
edldist.report(step=1)
reporter._reporter._thread.join(90)
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation of another revision: a greeting and a registration have one field more each."""
    site = tmp_path_factory.mktemp("other")
    for folder, name in (("edldist", "edldist"), ("launch", "edldist_launch")):
        shutil.copytree(ROOT / folder, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, field in (("labelling", "host: Name = "), ("control", "attempt: Count = 0")):
        path = site / "edldist" / "wire" / "messages" / f"{name}.py"
        text = path.read_text()
        assert f"    {field}" in text
        path.write_text(text.replace(f"    {field}", f"    more: Count = 0\n    {field}", 1))
    return site


@pytest.fixture(scope="module")
def job() -> Iterator[LocalJob]:
    with local_job() as made:
        yield made


def start(site: Path, job: LocalJob, *command: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
    environment |= {
        "PYTHONPATH": f"{site}:{ROOT}",
        "OMP_NUM_THREADS": "1",
        "EDLDIST_COORDINATOR": job.address,
    }
    return subprocess.Popen(
        tied_command([sys.executable, *command], parent=os.getpid()),
        env=environment,
        cwd=site,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_whoever_joins_or_asks_is_refused_at_once_and_told_why(
    other: Path, job: LocalJob, tmp_path: Path
) -> None:
    for name, text in (("rank", RANK), ("reporter", REPORTER)):
        (tmp_path / f"{name}.py").write_text(text)
    cli = str(other / "edldist_launch" / "__main__.py")
    commands = {
        "teacher": [cli, "teacher", "--model", "tests.models:identify", "--device", "cpu"],
        "status": [cli, "status"],
        "scale": [cli, "scale", "teacher=2"],
        "rank": [str(tmp_path / "rank.py")],
        "reporter": [str(tmp_path / "reporter.py")],
    }
    with contextlib.ExitStack() as ending:
        begun = {who: ending.enter_context(start(other, job, *command)) for who, command in commands.items()}
        for process in begun.values():
            ending.callback(process.kill)
        told = {who: process.communicate(timeout=WITHIN_S)[0] for who, process in begun.items()}
    for who, text in told.items():
        assert f"the process at {job.address} is of another revision of edldist" in text, (who, text)
        theirs, ours = re.findall(r"wire protocol (\S+), this process speaks (\S+?)\. ", text)[0]
        assert theirs == PROTOCOL.name != ours
    assert {who: process.returncode for who, process in begun.items()} == {
        "teacher": 2,
        "status": 2,
        "scale": 2,
        "rank": 1,
        "reporter": 0,
    }
    assert not job.errors
