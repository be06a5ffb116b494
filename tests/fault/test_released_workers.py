"""A second epoch that finds its labels in the store has its workers released while it runs.

Run with ``-s`` it prints the figures of docs/store.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edldist_launch.record.eventfile import read_events
from tests.fault.harness import EDLDIST, ROOT

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(600)]

SAMPLES, BATCH, STEP_S = 8_192, 16, 0.25
JOB = """\
name: twice
teachers: [{model: "tests.models:identify", version: "1", batch_size: 64,
  replicas: {min: 0, max: 2, start: 2}}]
student: {script: train.py}
store: {path: kept}
coordinator: {heartbeat_ttl_s: 1}
"""
SCRIPT = f"""\
import hashlib, time, torch, edldist
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
data = torch.arange({SAMPLES})
loader = edldist.DistillLoader(DataLoader(data, batch_size={BATCH}), teacher="teacher", checkpointed=False)
for epoch in range(2):
    seen, labels_digest = 0, hashlib.blake2b()
    for batch, labels in loader:
        seen += len(batch)
        labels_digest.update(labels["logits"].numpy().tobytes())
        time.sleep({STEP_S} if epoch else 0)
    figures = loader.stats()
    edldist.report(step=epoch, epoch=epoch, seen=seen, hits=figures["store_hits"],
                   misses=figures["store_misses"], digest=int(labels_digest.hexdigest()[:8], 16))
"""


def test_the_workers_of_a_second_epoch_leave_while_it_runs_and_label_nothing(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "train.py").write_text(SCRIPT)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(
        [*EDLDIST, "run", "job.yaml", "--output", "out"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-5_000:]
    events = list(read_events(tmp_path / "out" / "events.jsonl"))
    first, second = [event for event in events if event["event"] == "report"]
    assert first["seen"] == second["seen"] == SAMPLES, "every sample once, in both epochs"
    assert first["digest"] == second["digest"], "byte for byte the same labels"
    assert (first["hits"], first["misses"]) == (0, SAMPLES)
    assert (second["hits"], second["misses"]) == (SAMPLES, SAMPLES), "nothing was asked for again"
    (scaled,) = [event for event in events if event["event"] == "scaled" and event["wanted"] == 0]
    left = [event for event in events if event["event"] == "teacher_left"]
    assert len(left) == 2
    assert first["t"] < scaled["t"] < left[-1]["t"] < second["t"], "they leave while the second epoch runs"
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    lasted_s = second["t"] - first["t"]
    print(
        f"second epoch of {lasted_s:.0f} s: 0 of {SAMPLES} samples labelled; 2 workers asked to leave after "
        f"{scaled['t'] - first['t']:.1f} s ({scaled['reason']}), "
        f"gone after {left[-1]['t'] - first['t']:.1f} s; "
        f"{result['worker_s']:.0f} worker seconds of {2 * result['wall_s']:.0f}"
    )
    assert result["status"] == "completed" and result["samples"] == 2 * SAMPLES
    assert result["worker_s"] < 2 * result["wall_s"] - 0.2 * 2 * lasted_s
