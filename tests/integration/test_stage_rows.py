"""Where the time of tasks goes in a real worker, as its coordinator writes it down."""

from __future__ import annotations

import contextlib
import json
import signal
import urllib.request
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import edldist
from edldist.coordinator.course.stage_file import STAGES_FILE
from edldist.wire.messages import STAGES
from tests.integration.commands import WITHIN_S
from tests.integration.commands import edldist as command
from tests.integration.members import until

PASS_S = 0.05
"""What the model takes for a pass (``tests.models.takes_its_time``)."""
BATCH, BATCHES = 8, 60


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_stages_and_waits_of_a_task_add_up_to_its_time_in_the_worker(tmp_path: Path) -> None:
    ready, output = tmp_path / "ready.json", tmp_path / "out"
    with contextlib.ExitStack() as stack:
        listen = ("--bind", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", "--address-file", str(ready))
        coordinator = stack.enter_context(command("coordinator", *listen, "--output", str(output)))
        until(ready.exists, "the coordinator's address")
        told = json.loads(ready.read_text())
        options = ("--model", "tests.models:takes_its_time", "--batch-size", str(BATCH), "--device", "cpu")
        worker = stack.enter_context(command("teacher", "--coordinator", told["address"], *options))
        data = DataLoader(torch.zeros(BATCH * BATCHES, 64), batch_size=BATCH)
        loader = edldist.DistillLoader(
            data, lambda batch: {"x": batch}, coordinator=told["address"], agreement="off"
        )
        with contextlib.closing(loader):
            assert sum(1 for _ in loader) == BATCHES
            page = f"http://{told['http']}/metrics"
            metrics = until(lambda: _counted(page), "the stages of the last tasks")
        worker.send_signal(signal.SIGTERM)
        worker.wait(WITHIN_S)
        coordinator.send_signal(signal.SIGTERM)
        coordinator.wait(WITHIN_S)
    rows = [json.loads(line) for line in (output / STAGES_FILE).read_text().splitlines()]
    assert len(rows) >= 5, "four a second of a worker, for three seconds"
    for row in rows:
        assert list(row["stages"]) == list(row["wait_s"]) == list(STAGES)
        parts = sum(row["stages"].values()) + sum(row["wait_s"].values())
        assert abs(parts - row["total_s"]) <= 0.05 * row["total_s"], row
        assert row["stages"]["forward"] >= PASS_S, "the model alone takes so long"
        assert (row["batch"], row["bytes_in"]) == (row["tasks"] * BATCH, row["batch"] * 64 * 4)
        assert row["device"] == "cpu" and row["group"] == "teacher" and row["bytes_out"] > 0
    for family in ("edldist_teacher_stage_seconds", "edldist_teacher_stage_wait_seconds"):
        for stage in STAGES:
            assert f'{family}_count{{group="teacher",stage="{stage}"}}' in metrics
    assert 'edldist_worker_queue_samples{group="teacher",stage="decode"' in metrics


def _counted(page: str) -> str | None:
    with urllib.request.urlopen(page, timeout=WITHIN_S) as answer:
        text = answer.read().decode()
    counted = 'edldist_teacher_stage_seconds_count{group="teacher",stage="send"} '
    found = [line for line in text.splitlines() if line.startswith(counted)]
    return text if found and float(found[0].rpartition(" ")[2]) >= 10 else None
