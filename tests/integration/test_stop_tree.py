"""A signal to every process of a job at once, as systemd and ``scancel --full`` send it.

Those of a data loader are among them, and the coordinator, to which the others say what they did.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.launching import Start, folder, result, running, start, until

__all__ = ["folder", "start"]  # fixtures

pytestmark = pytest.mark.timeout(240)

SCRIPT = """
import os, time
import edldist
import torch.distributed as dist
from torch.utils.data import DataLoader

world = int(os.environ["WORLD_SIZE"])
if world > 1:
    dist.init_process_group("gloo")

class Count:
    step = 0
    def state_dict(self): return {"step": self.step}
    def load_state_dict(self, state): self.step = state["step"]

count = Count()
checkpointer = edldist.Checkpointer(os.path.join(os.environ["EDLDIST_OUTPUT"], "checkpoints"))
batches = iter(DataLoader(range(1_000_000), num_workers=1))  # its process is one of the tree
next(batches)
while not edldist.should_stop():
    count.step += 1
    if count.step == 1:
        print(f"training, {world} rank(s)", flush=True)
    time.sleep(0.02)
time.sleep(1.0)  # a step, and a save, that take their time
checkpointer.save(count.step, {"count": count}, wait=True)
edldist.report(step=count.step)
print(f"saved {count.step}", flush=True)
"""


TERM, WARNING = signal.SIGTERM, signal.SIGUSR1


@pytest.mark.parametrize(
    ("nnodes", "ranks", "sent"),
    [
        ("1", 1, (TERM, TERM, TERM)),
        pytest.param("1:2", 2, (TERM, TERM, TERM), marks=pytest.mark.slow),
        pytest.param("1", 1, (WARNING, TERM, TERM), marks=pytest.mark.slow),
    ],
    ids=["one node", "two nodes", "warned before"],
)
def test_a_tree_that_is_told_to_end_again_and_again_saves_first(
    start: Start, folder: Path, nnodes: str, ranks: int, sent: tuple[signal.Signals, ...]
) -> None:
    (folder / "s.py").write_text(SCRIPT)
    job_file = folder / "job.yaml"
    job_file.write_text(job_file.read_text().replace("script: s.py", f"script: s.py, nnodes: '{nnodes}'"))
    job = start(student=None)
    logs = folder / "out" / "logs"
    told = f"training, {ranks} rank(s)"
    until(lambda: "".join(log.read_text() for log in logs.glob("student-*.log")).count(told) == ranks, 60)
    children = psutil.Process(job.pid).children(recursive=True)
    tree = [job.pid, *(child.pid for child in children)]
    (coordinator,) = (child.pid for child in children if "coordinator" in child.cmdline())
    students = [child.pid for child in children if "student" in child.cmdline()]
    assert len(students) == ranks
    for signum in sent:  # Slurm at a time limit, and whoever else
        random.shuffle(tree)
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        time.sleep(0.1)  # far less than a save takes, and enough to be heard as another one
    # The coordinator is there until the last has left: nobody waits for one that is gone, 12 s in a row.
    while job.poll() is None:
        if not running(coordinator):
            assert not [pid for pid in students if running(pid)]
        time.sleep(0.01)
    output, _ = job.communicate()
    assert job.returncode == 130, output
    said = "".join(log.read_text() for log in logs.glob("student-*.log"))
    saved = re.search(r"saved (\d+)\n", said)
    assert saved, said
    assert result(folder)["steps"] == int(saved[1])
    assert f"interrupted: the same command goes on from the checkpoint of step {saved[1]}" in output
    until(lambda: not any(running(pid) for pid in tree))
