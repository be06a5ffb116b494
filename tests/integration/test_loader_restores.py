"""Two ranks, each with a stream of its own: a checkpoint brings every one of them back to its own place."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edldist.wire.zmq.transport import ZmqTransport
from tests.harness import local_job

pytestmark = pytest.mark.timeout(240)

RANK = """
import json, sys
import torch
import torch.distributed as dist
import edldist
from edldist.errors import CheckpointError
address, meeting, place = sys.argv[1:4]
rank, world, batches, epochs = (int(word) for word in sys.argv[4:])
torch.set_num_threads(1)
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)

class Stream:
    # One state that changes while it is read; what is saved of it must not.
    def __init__(self):
        self.state = {"round": 0, "at": 0}
    def __iter__(self):
        while self.state["at"] < 6:
            self.state["at"] += 1
            yield torch.tensor([1000 * rank + 10 * self.state["round"] + self.state["at"]])
        self.state["at"] = 0
        self.state["round"] += 1
    def state_dict(self):
        return self.state
    def load_state_dict(self, state):
        self.state = state

loader = edldist.DistillLoader(Stream(), inputs=lambda batch: {"id": batch}, coordinator=address)
checkpointer = edldist.Checkpointer(place)
seen = []
try:
    checkpointer.restore({"loader": loader})
    while batches and loader.epoch < epochs:
        for batch, _ in loader:
            seen.append(batch.item())
            batches -= 1
            if not batches:
                break
    checkpointer.save(100 * loader.epoch + len(seen), {"loader": loader}, wait=True)
except CheckpointError as exc:
    seen = str(exc)
print(json.dumps(seen))
loader.close()
checkpointer.close()
"""


def run(tmp_path: Path, part: int, world: int, batches: int = -1, epochs: int = 3) -> list:
    """What the ranks see from the last checkpoint on: so many batches, or all until an epoch."""
    with local_job(ZmqTransport()) as job:
        job.teacher()
        places = [job.address, str(tmp_path / f"meet{part}"), str(tmp_path / "saved")]
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, *places, *map(str, (rank, world, batches, epochs))],
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]
        stop = threading.Timer(90, lambda: [process.kill() for process in processes])
        stop.start()
        try:
            outputs = [process.communicate()[0] for process in processes]
        finally:
            stop.cancel()
        assert [process.returncode for process in processes] == [0] * world
        return [json.loads(output.splitlines()[-1]) for output in outputs]


@pytest.mark.slow
def test_every_rank_goes_on_where_it_was_in_an_epoch_and_between_two_and_only_with_its_like(tmp_path):
    in_epoch = run(tmp_path, 1, world=2, batches=4)
    between = run(tmp_path, 2, world=2, epochs=1)
    rest = run(tmp_path, 3, world=2)
    for rank in range(2):
        whole = [1000 * rank + 10 * epoch + at for epoch in range(3) for at in range(1, 7)]
        assert (in_epoch[rank], between[rank], rest[rank]) == (whole[:4], whole[4:6], whole[6:])
    (told,) = run(tmp_path, 4, world=1)
    assert "saved by 2 rank(s)" in told and "there are 1 now" in told
