"""Loss spikes in loops over real labels: each sample is learnt from once, or counted as left out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import edldist
from edldist.checkpoint.checkpointer import Checkpointer
from tests.harness import local_job
from tests.integration.epochs import BATCH, EPOCHS, SAMPLES, sampled, shuffled
from tests.integration.ranks import run_ranks

pytestmark = pytest.mark.timeout(240)

RANK = "tests.integration.spike_rank"


def trained(
    job: Any, make: Any, folder: Path, spikes: set[int], without: set[int], epochs: int | None = EPOCHS
) -> dict[str, Any]:
    """A loop whose losses at those visits are not finite, or that passes over those batches."""
    torch.manual_seed(11)
    loader = job.loader(make(), inputs="id", epochs=epochs, high_watermark=4)
    model = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Linear(16, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    guard = edldist.SpikeGuard(loader, epochs=EPOCHS, window=5, least=5, tolerance=1e6)
    state = {"model": model, "optimizer": optimizer, "loader": loader, "guard": guard}
    taken: list[list[int]] = []
    starts: list[tuple[int, int]] = []
    visits = step = 0
    with Checkpointer(folder) as checkpointer:
        checkpointer.save(step, state)
        for batch, labels in guard:
            if loader.start[0] * SAMPLES // BATCH + loader.start[1] // BATCH in without:
                continue
            assert labels["logits"][:, 0].tolist() == batch["id"].tolist()
            loss = (model(batch["x"]) - labels["logits"].float()).square().mean()
            loss = loss * math.nan if visits in spikes else loss
            visits += 1
            optimizer.zero_grad()
            loss.backward()
            if guard.spiked(step, loss):
                starts.append(loader.start)
                step = guard.roll_back(checkpointer, state)
                del taken[step:]
                continue
            optimizer.step()
            taken.append(batch["id"].tolist())
            step += 1
            if step % 4 == 0:
                checkpointer.save(step, state)
    stats = loader.stats()
    loader.close()
    return {
        "taken": taken,
        "starts": starts,
        "weights": [each.detach() for each in model.parameters()],
        "stats": stats,
        "guard": guard,
    }


@pytest.mark.parametrize("make", [sampled, shuffled])
@pytest.mark.parametrize("epochs", [None, EPOCHS])
def test_a_loop_with_spikes_ends_as_one_that_never_had_their_batches(
    memory_job: Any, tmp_path: Path, make: Any, epochs: int | None
) -> None:
    """One in the second epoch, whose checkpoint is of the first; one in the last batch of all."""
    memory_job.teacher(batch_size=3)
    run = trained(memory_job, make, tmp_path / "a", {7, 20}, set(), epochs)
    left = {epoch * SAMPLES // BATCH + at // BATCH for epoch, at in run["starts"]}
    assert left == {7, 17}
    clean = trained(memory_job, make, tmp_path / "b", set(), left, epochs)
    assert run["taken"] == clean["taken"] and len(run["taken"]) == 16
    assert all(torch.equal(one, two) for one, two in zip(run["weights"], clean["weights"], strict=True))
    assert run["stats"]["left_out"] == 2 * BATCH, "each once"
    assert (run["guard"].spikes, run["guard"].rollbacks) == (2, 2)


@pytest.mark.slow
def test_ranks_decide_alike_and_take_clippy_s_steps_on_sharded_weights(tmp_path: Path) -> None:
    """A sample of one rank spoils its loss: all of them go back, and leave out the same global batch."""
    with local_job() as job:
        job.teacher()
        plan = {"coordinator": job.address, "spoilt": 9}
        plans = {
            "spoilt": plan | {"checkpoints": str(tmp_path / "two")},
            "differ": plan | {"checkpoints": str(tmp_path / "differ"), "differ": True},
        }
        ranks = run_ranks(RANK, plans, 2, tmp_path)
        (found,) = run_ranks(RANK, {"spoilt": plan | {"checkpoints": str(tmp_path / "one")}}, 1, tmp_path)
        assert job.errors == []
    alone, together = found["spoilt"], [rank["spoilt"] for rank in ranks]
    for rank in together:
        assert rank["rollbacks"] == alone["rollbacks"] == 1
        assert rank["weights"] == pytest.approx(alone["weights"], abs=1e-9)
    assert [one + two for one, two in zip(*(rank["taken"] for rank in together), strict=True)] == alone[
        "taken"
    ]
    second = [number for batch in alone["taken"][7:] for number in batch]
    assert len(second) == len(set(second)) == 22 and 9 not in second
    assert sum(rank["left_out"] for rank in together) == alone["left_out"] == 4
    for rank in ranks:
        assert (
            "different figures (rank 0: loss; rank 1: loss, extra): give the same" in rank["differ"]["error"]
        )
        sharded = rank["sharded"]
        for one, two in zip(sharded["whole"], sharded["sharded"], strict=True):
            assert one == pytest.approx(two, rel=1e-6)
        assert all(one == pytest.approx(two, rel=1e-6) and one < 1 for one, two in sharded["scales"])
