"""Distillation in a Hugging Face Trainer, on one rank and on two: the library itself, not a stand-in."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.harness import local_job
from tests.integration.ranks import run_ranks

pytest.importorskip("transformers")
pytest.importorskip("trl")
pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

RANK = "tests.integration.trainer_rank"
SAMPLES, BATCHES = 26, 7  # of 4 samples over all ranks, the last of 2


@pytest.fixture(scope="module")
def coordinator():
    with local_job() as job:
        job.teacher(model="Bigrams")
        yield job.address
        assert job.errors == []


@pytest.fixture(scope="module", params=[1, 2], ids=["one rank", "two ranks"])
def world(request) -> int:
    return request.param


def plan(coordinator: str | None, world: int, output: Path, **changes: Any) -> dict[str, Any]:
    usual = {"coordinator": coordinator, "batch_size": 4 // world, "dropout": 0.0, "output": str(output)}
    return usual | changes


@pytest.fixture(scope="module")
def quiet(coordinator, world, tmp_path_factory) -> list[dict[str, Any]]:
    """What each rank saw of every undisturbed run."""
    folder = tmp_path_factory.mktemp("quiet")
    plans = {
        "distilled": plan(coordinator, world, folder / "1", evaluate=True),
        "labels here": plan(None, world, folder / "2"),
        "sft": plan(coordinator, world, folder / "3", kind="sft"),
        "unlabelled": plan(coordinator, world, folder / "4", kind="unlabelled"),
        "sequential": plan(coordinator, world, folder / "5", kind="sequential"),
        "with dropout": plan(coordinator, world, folder / "6", dropout=0.1),
    }
    return run_ranks(RANK, plans, world, folder, timeout_s=400)


@pytest.mark.parametrize("kind", ["distilled", "sft", "unlabelled"])
def test_each_sample_counts_once_an_epoch_in_the_order_of_its_seed(quiet, kind: str):
    for epoch in range(2):
        batches = [rank[kind]["ids"][epoch * BATCHES : (epoch + 1) * BATCHES] for rank in quiet]
        assert sorted(itertools.chain(*itertools.chain(*batches))) == list(range(SAMPLES))
    orders = [list(itertools.chain(*rank[kind]["ids"])) for rank in quiet]
    assert all(order[: len(order) // 2] != order[len(order) // 2 :] for order in orders)


def test_an_order_of_the_trainers_own_is_kept_as_accelerate_deals_it(quiet):
    seen = [rank["sequential"]["ids"] for rank in quiet]
    first = [batches[0] for batches in seen]
    assert list(itertools.chain(*first)) == [0, 1, 2, 3]
    assert set(itertools.chain(*itertools.chain(*seen))) == set(range(SAMPLES))


@pytest.mark.parametrize("kind", ["distilled", "sft"])
def test_losses_and_weights_are_those_of_labels_made_and_a_loss_written_out_in_the_loop(quiet, kind: str):
    for rank in quiet:
        here = rank["labels here"]
        assert rank[kind]["ids"] == here["ids"] and rank[kind]["steps"] == here["steps"] == 8
        assert rank[kind]["losses"] == pytest.approx(here["losses"], abs=1e-6)
        assert rank[kind]["weights"] == pytest.approx(here["weights"], abs=1e-6)


def test_an_evaluation_is_the_trainers_own_and_needs_neither_a_teacher_nor_labels(quiet):
    for rank in quiet:
        distilled, plain = rank["distilled"]["evaluation"]
        assert distilled == pytest.approx(plain, abs=1e-9)
        assert rank["distilled"]["predictions"][0] == 7


def test_a_run_that_was_killed_in_mid_epoch_goes_on_as_if_nothing_had_been(
    quiet, coordinator, world, tmp_path: Path
):
    kept = plan(coordinator, world, tmp_path / "out", dropout=0.1)
    run_ranks(RANK, {"killed": {**kept, "die_after": 7}}, world, tmp_path, dies=True)
    resumed = run_ranks(RANK, {"resumed": {**kept, "resume": True}}, world, tmp_path)
    for rank, rest in zip(quiet, (rank["resumed"] for rank in resumed), strict=True):
        whole = rank["with dropout"]
        assert rest["steps"] == whole["steps"] == 8
        assert rest["ids"] == whole["ids"][BATCHES + 4 :], "of the sixth step, the second of its epoch"
        assert rest["losses"] == pytest.approx(whole["losses"][BATCHES + 4 :], abs=1e-6)
        assert rest["weights"] == pytest.approx(whole["weights"], abs=1e-6)
