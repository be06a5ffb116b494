"""Checkpoints of several ranks: agreement on failures, and restore with another number of ranks."""

import json
import os
from pathlib import Path

import pytest

from tests.forked import Program, outcomes_of

PRELUDE = """
import json, os, sys
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from edldist.errors import CheckpointError
from edldist.checkpoint import lock, writer
from edldist.checkpoint.checkpointer import Checkpointer
from edldist.observe import reporter
events = []
reporter.event = lambda name, **fields: events.append(name)
torch.set_num_threads(1)
rank, world, place, meeting = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
mesh = None
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    mesh = dist.init_device_mesh("cpu", (world,))

class Sharded(torch.nn.Module):
    # 7 rows: unequal shards on 2 and on 3 ranks
    def __init__(self):
        super().__init__()
        rows = torch.zeros(7, 2)
        self.rows = torch.nn.Parameter(distribute_tensor(rows, mesh, [Shard(0)]) if mesh else rows)

def whole(tensor):
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).tolist()

class Own:
    # What each rank has for itself, beside what all share
    value = "unset"
    def state_dict(self):
        return {}
    def load_state_dict(self, state):
        pass
    def rank_state_dict(self):
        return {"value": self.value, "tensor": torch.full((2,), float(rank))}
    def load_rank_state_dict(self, state):
        self.value = state and [state["value"], state["tensor"].tolist()]

own = Own()
model, sharded = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(4))), Sharded()
optimizer = torch.optim.Adam(sharded.parameters(), lr=0.1, foreach=False)
wrapped = torch.nn.parallel.DistributedDataParallel(model) if world > 1 else model
state = {"model": wrapped, "sharded": sharded, "optimizer": optimizer, "own": own}
result = {}

def moments():
    return whole(optimizer.state[sharded.rows]["exp_avg"])

def next_rows():
    sharded.rows.grad = sharded.rows.detach() * 0 + 1.0
    optimizer.step()
    return whole(sharded.rows)
"""

SAVE = """
def step(amount):
    sharded.rows.grad = sharded.rows.detach() * 0 + amount
    if rank == 1:
        sharded.rows.grad *= 2
    optimizer.step()

checkpointer = Checkpointer(place)
lock.HANDOVER_S = 0.0
try:
    Checkpointer(place)
except CheckpointError as exc:
    result["second"] = str(exc)
torch.manual_seed(100 + rank)
step(1.0)
checkpointer.save(1, state, wait=True)

# One rank fails, in each phase of a save: all ranks count it, none waits for ever.
def broken(*args, **kwargs):
    raise OSError(28, "No space left on device", "somewhere")

def fails_on(culprit, target, name):
    kept = getattr(target, name)
    if rank == culprit:
        setattr(target, name, broken)
    checkpointer.save(2, state, wait=True)
    setattr(target, name, kept)
    return checkpointer.last_error

from torch.distributed.checkpoint import filesystem
result["errors"] = [
    fails_on(0, checkpointer._store, "begin"),
    fails_on(1, filesystem, "_write_item"),
    fails_on(0, writer, "write_tensors"),
    fails_on(1, writer, "digest"),
    fails_on(1, checkpointer._store, "seal"),
    fails_on(0, checkpointer._store, "commit"),
]
result["failures"] = checkpointer.failures
result["left"] = sorted(os.listdir(place))

checkpointer.save(2, {**state, **({"extra": model} if rank else {})})
try:
    checkpointer.wait()
except CheckpointError as exc:
    result["differ"] = str(exc)

with torch.no_grad():
    for parameter in model.parameters():
        parameter.fill_(5.0 + rank)  # under DDP rank 0's plain tensors count
own.value = f"of rank {rank}"
checkpointer.save(3, state)
own.value = "later"
total = torch.ones(1)
for _ in range(200):  # training's own collectives go on meanwhile
    dist.all_reduce(total)
    total /= world
result["total"] = total.item()
checkpointer.wait()
result["rows"], result["moments"] = whole(sharded.rows), moments()
result["draw"] = torch.rand(3).tolist()
step(9.0)

# The rank that chooses is cut off: no rank goes back to an older checkpoint.
def cut_off(name, file):
    raise ConnectionResetError(104, "Connection reset by peer")

kept, checkpointer._store.open = checkpointer._store.open, cut_off
try:
    checkpointer.restore(state)
except CheckpointError as exc:
    result["cut off"] = [str(exc), exc.final]
checkpointer._store.open = kept
result["step"] = checkpointer.restore(state)
result["again"] = [whole(sharded.rows), moments(), torch.rand(3).tolist()]
result["own"] = own.value
result["next"] = next_rows()
result["events"] = events
checkpointer.close()
"""

WHOLE = """
with torch.no_grad():
    sharded.rows.copy_(torch.arange(14.0).view(7, 2))
next_rows()
with Checkpointer(place) as checkpointer:
    checkpointer.save(3, state, wait=True)
result["files"] = sorted(os.listdir(place + "/step-00000003"))
result["rows"], result["moments"] = whole(sharded.rows), moments()
"""

RESTORE = """
with Checkpointer(place) as checkpointer:
    draws = []
    for _ in range(2):
        torch.rand(5)
        result["step"] = checkpointer.restore(state)
        draws.append(torch.rand(3).tolist())
    result["draws"] = draws
result["rows"], result["moments"] = whole(sharded.rows), moments()
result["own"] = own.value
result["model"] = sorted({value for p in model.parameters() for value in p.flatten().tolist()})
result["next"] = next_rows()
"""

FINISH = """
print(json.dumps(result))
if world > 1:
    dist.destroy_process_group()
"""


def run(world: int, script: str, place: Path, meeting: Path) -> list[dict]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDLDIST_") and k != "WORLD_SIZE"}
    ranks = [
        Program(
            *(PRELUDE + script + FINISH, str(rank), str(world), str(place), str(meeting)),
            environment=environment,
        )
        for rank in range(world)
    ]
    outcomes = outcomes_of(ranks, 150)
    for rank, (_, errors) in zip(ranks, outcomes, strict=True):
        assert rank.returncode == 0, errors
    return [json.loads(output.splitlines()[-1]) for output, _ in outcomes]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    place = folder / "checkpoints"
    return place, run(2, SAVE, place, folder / "meeting")


def test_a_save_fails_or_succeeds_on_all_ranks(saved):
    _, ranks = saved
    for result in ranks:
        assert result["failures"] == 6
        assert result["errors"] == ranks[0]["errors"]
        culprits = ("rank 0", "rank 1", "rank 0", "rank 1", "rank 1", "rank 0")
        for error, culprit in zip(result["errors"], culprits, strict=True):
            assert error.startswith(f"{culprit}: OSError: [Errno 28] No space left on device"), error
        assert "differ among ranks" in result["differ"]
        assert "in use by another job" in result["second"]
        assert result["total"] == 1.0
    assert ranks[0]["left"] == [".lock", "step-00000001"]
    assert ranks[0]["events"] == [
        "checkpoint_saved",
        *["checkpoint_failed"] * 7,
        "checkpoint_saved",
        "checkpoint_restored",
    ]
    assert ranks[1]["events"] == []


def test_a_store_out_of_reach_is_the_same_passing_error_on_all_ranks(saved):
    place, ranks = saved
    for result in ranks:
        text, final = result["cut off"]
        assert f"rank 0: {place}/step-00000003 cannot be read now" in text and "try again" in text
        assert not final
    assert "checkpoint_damaged" not in ranks[0]["events"]


def test_every_rank_gets_back_its_shards_and_its_random_state(saved):
    _, ranks = saved
    for result in ranks:
        assert result["step"] == 3
        assert result["again"] == [result["rows"], result["moments"], result["draw"]]
    assert ranks[0]["draw"] != ranks[1]["draw"]
    assert [result["own"] for result in ranks] == [[f"of rank {k}", [float(k)] * 2] for k in range(2)]
    assert len({tuple(row) for row in ranks[0]["moments"]}) == 2  # the shards do differ


@pytest.mark.parametrize("world", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_another_number_of_ranks_restores_the_same_state(saved, tmp_path, world):
    place, two = saved
    ranks = run(world, RESTORE, place, tmp_path / "meeting")
    for rank, result in enumerate(ranks):
        assert result["step"] == 3
        assert result["rows"] == two[0]["rows"]
        assert result["moments"] == two[0]["moments"]
        assert result["model"] == [5.0]
        assert result["own"] is None  # the ranks that it was of are not these
        for row, expected in zip(result["next"], two[0]["next"], strict=True):
            assert row == pytest.approx(expected, rel=1e-6)
        first, second = result["draws"]
        assert first == second  # the seed of a new rank is derived, not drawn
        if rank < 2:
            assert first == two[rank]["draw"]
    assert len({tuple(result["draws"][0]) for result in ranks}) == world


@pytest.mark.slow
def test_what_one_rank_saved_whole_is_restored_into_shards(tmp_path):
    place = tmp_path / "checkpoints"
    [one] = run(1, WHOLE, place, tmp_path / "meeting-1")
    assert one["files"] == [
        *("COMMITTED", "manifest.json", "rank-00000.json", "rank-00000.safetensors", "rng-00000.json"),
        *("state.json", "tensors.safetensors"),
    ]
    for result in run(2, RESTORE, place, tmp_path / "meeting-2"):
        assert (result["step"], result["rows"], result["moments"]) == (3, one["rows"], one["moments"])
