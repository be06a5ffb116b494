"""A DistillLoader in a loop of Accelerate's: prepared in either order, on one rank and on two."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.harness import local_job
from tests.integration.ranks import run_ranks

pytest.importorskip("accelerate")
pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]

RANK = "tests.integration.accelerate_rank"
KINDS = [("shuffled", "inside"), ("dispatched", "inside"), ("stream", "inside"), ("elastic", "outside")]
SAMPLES, EPOCHS = 52, 2  # 13 batches of 4 samples over all ranks


def plan(coordinator: str | None, world: int, **changes: Any) -> dict[str, Any]:
    usual = {"samples": SAMPLES, "batch_size": 4 // world, "window": 4, "epochs": EPOCHS}
    return {"coordinator": coordinator, **usual, "data": "shuffled", "order": "inside", **changes}


@pytest.fixture(scope="module")
def coordinator():
    with local_job() as job:
        job.teacher(model="Doubled")
        yield job.address
        assert job.errors == []


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def world(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def quiet(coordinator, world, tmp_path_factory) -> list[dict[str, Any]]:
    """What each rank saw of every undisturbed run."""
    plans = {
        f"windows of 2, {data}": plan(coordinator, world, data=data, window=2)
        for data in ("shuffled", "dispatched")
    }
    plans["padded"] = plan(coordinator, world, samples=SAMPLES + 1, window=1, epochs=1)
    plans["padded, dispatched"] = {**plans["padded"], "data": "dispatched"}
    if world > 1:
        meeting = plan(coordinator, world, data="meeting", order="outside")
        plans |= {"meeting": meeting, "meeting in lock step": {**meeting, "lock_step": True}}
    for data, order in KINDS:
        plans[data] = plan(coordinator, world, data=data, order=order)
        plans[f"{data}, labels here"] = plan(None, world, data=data, order=order)
    return run_ranks(RANK, plans, world, tmp_path_factory.mktemp("quiet"))


def numbers(values: list[Any]) -> list[float]:
    return [number for value in values for number in (numbers(value) if isinstance(value, list) else [value])]


@pytest.mark.parametrize("data", [data for data, _ in KINDS])
def test_every_sample_counts_once_and_losses_are_those_of_labels_made_in_the_loop(quiet, data: str):
    for epoch in range(EPOCHS):
        every = itertools.chain(*(rank[data]["ids"][epoch] for rank in quiet))
        assert sorted(every) == list(range(SAMPLES)), "disjoint and complete"
    for rank in quiet:
        here = rank[f"{data}, labels here"]
        assert rank[data]["ids"] == here["ids"]
        for what in ("losses", "weights"):
            assert numbers(rank[data][what]) == pytest.approx(numbers(here[what]), abs=1e-6)


@pytest.mark.parametrize("data", [data for data, _ in KINDS])
def test_the_last_window_of_an_epoch_takes_its_step(quiet, data: str):
    assert [rank[data]["steps"] for rank in quiet] == [[[4, 8, 12, 13]] * EPOCHS] * len(quiet)


@pytest.mark.parametrize("run", ["padded", "padded, dispatched"])
def test_what_pads_the_last_batch_is_left_out_when_it_is_gathered(quiet, run: str):
    for rank in quiet:
        assert sorted(rank[run]["gathered"]) == list(range(SAMPLES + 1))


@pytest.mark.parametrize("data", ["shuffled", "dispatched"])
def test_a_run_that_was_killed_in_mid_epoch_goes_on_as_if_nothing_had_been(
    quiet, coordinator, world, data: str, tmp_path: Path
):
    kept = plan(coordinator, world, data=data, window=2, checkpoints=str(tmp_path / "checkpoints"))
    run_ranks(RANK, {"killed": {**kept, "die_after": 9}}, world, tmp_path, dies=True)
    resumed = run_ranks(RANK, {"resumed": kept}, world, tmp_path)
    for rank, rest in zip(quiet, (rank["resumed"] for rank in resumed), strict=True):
        whole = rank[f"windows of 2, {data}"]
        assert rest["from"] == 8, "of 7 steps an epoch, saved every two"
        assert rest["ids"] == [whole["ids"][1][2 * kept["batch_size"] :]]
        assert rest["steps"] == [[2, 4, 6, 8, 10, 11]]
        assert rest["losses"] == pytest.approx(whole["losses"][-11:], abs=1e-6)
        assert numbers(rest["weights"]) == pytest.approx(numbers(whole["weights"]), abs=1e-6)


def test_a_data_loader_that_meets_the_other_ranks_is_refused_or_read_in_lock_step_and_never_hangs(quiet):
    if len(quiet) == 1:
        pytest.skip("there is nobody to meet")
    assert all("(Meeting) does collectives while it is read" in rank["meeting"]["error"] for rank in quiet)
    told = [rank["meeting in lock step"]["ids"] for rank in quiet]
    assert all(sorted(one + other) == list(range(SAMPLES)) for one, other in zip(*told, strict=True))
