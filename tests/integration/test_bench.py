"""The benchmarks for real, as short as they get: figures come out, and no process is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edldist_benchmarks.figures import Settings
from edldist_launch.plan.commands import own_command

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[2]
TEACHER = "edldist_benchmarks.teachers:noop"


@contextlib.contextmanager
def bench(output: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    command = own_command("bench", *args, "--output", str(output))
    environment = os.environ | {"TMPDIR": str(output)}  # one that is killed leaves its folder behind
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_children(process: subprocess.Popen[str], needle: str) -> list[psutil.Process]:
    """All descendants, as soon as one of them has ``needle`` in its command line."""
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        children = psutil.Process(process.pid).children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.Error):
                if needle in " ".join(child.cmdline()):
                    return children
        time.sleep(0.02)
    raise AssertionError(f"no child with {needle!r}")


@pytest.mark.slow
def test_rows_are_measured_and_written(tmp_path: Path) -> None:
    with bench(tmp_path, "small", "startup", "--repeats", "1", "--seconds", "0.1") as process:
        output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    rows = {row["name"]: row for row in json.loads((tmp_path / "bench.json").read_text())["rows"]}
    assert list(rows) == ["small", "startup"]
    (path,) = rows["small"]["figures"]
    assert path["value"] > 0 and path["limit"] > 0 and path["limit_name"] == "bare echo"
    assert path["budget"] == {"of": "ratio", "at_least": 0.6, "at_most": None}
    _, torch_free = rows["startup"]["figures"]
    assert torch_free["value"] == 0 and torch_free["met"] is True


@pytest.mark.parametrize(
    "signum",
    [signal.SIGKILL, *(pytest.param(s, marks=pytest.mark.slow) for s in (signal.SIGINT, signal.SIGTERM))],
)
def test_however_it_ends_its_processes_end_too(tmp_path: Path, signum: signal.Signals) -> None:
    with bench(tmp_path, "small", "--seconds", "600") as process:
        children = wait_for_children(process, TEACHER)
        assert len(children) >= 2
        process.send_signal(signum)
        process.communicate(timeout=150)
    assert process.returncode == (-signum if signum == signal.SIGKILL else 130)
    _, alive = psutil.wait_procs(children, timeout=150)
    assert not alive


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(TEACHER, id="while it starts", marks=pytest.mark.slow),
        pytest.param("edldist_benchmarks.echo", id="while it is measured", marks=pytest.mark.slow),
    ],
)
def test_a_row_whose_worker_dies_fails_at_once_and_leaves_nothing(tmp_path: Path, moment: str) -> None:
    with bench(tmp_path, "small", "--seconds", "600") as process:
        children = wait_for_children(process, moment)
        (worker,) = [child for child in children if "teacher" in child.cmdline()]
        worker.kill()
        output, _ = process.communicate(timeout=150)
    assert process.returncode == 1, output
    assert "small: FAILED: ProcessEndedError: teacher-1 ended with -9" in output
    _, alive = psutil.wait_procs(children, timeout=150)
    assert not alive


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_training_is_measured_with_an_interval_at_one_rank_and_at_two(tmp_path: Path) -> None:
    with bench(tmp_path, "training", "--repeats", "1", "--seconds", "0.1") as process:
        output, _ = process.communicate(timeout=880)
    assert process.returncode == 0, output
    (row,) = json.loads((tmp_path / "bench.json").read_text())["rows"]
    figures = row["figures"]
    assert len(figures) == 8 and {figure["what"].partition(",")[0] for figure in figures} == {
        "1 rank",
        "2 ranks",
    }
    for figure in figures:
        assert figure["interval"]["low"] <= figure["ratio"] <= figure["interval"]["high"]
        assert figure["met"] is None, "three turns decide nothing"
    assert output.count("involuntary switches") == 4


@pytest.mark.slow
def test_the_pair_for_the_gpu_runs_at_toy_size_without_one() -> None:
    command = [
        sys.executable,
        "-m",
        "edldist_benchmarks.gpu",
        "--tiny",
        "--repeats",
        "1",
        "--seconds",
        "0.02",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # threads that spin starve each other here
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    for figure in ("teacher worker", "student alone", "both, through", "copies under"):
        assert figure in done.stdout


@pytest.mark.gpu
def test_the_pair_runs_on_a_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    from edldist_benchmarks.gpu import measure_gpu

    result = measure_gpu(Settings(1, 1.0))
    assert [figure.what for figure in result.figures][:2] == ["teacher worker", "student alone"]
