"""The early ranker at toy size: its world, its late ranker, and the loop over the real label path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edldist.errors import InputError, PoisonTaskError
from edldist.losses import draw_candidates
from examples.early_ranker import data, models, prepare, recipe, student
from tests.harness import local_job


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a late ranker that has seen a short log."""
    torch.manual_seed(0)
    model = models.late_ranker()
    prepare.train(model, data.World().log(20_000, seed=0), epochs=4, seed=0)
    path = tmp_path_factory.mktemp("late") / "late.safetensors"
    save_file(model.state_dict(), path)
    return path


def late(weights: Path) -> models.LateRanker:
    model = models.late_ranker()
    model.load_state_dict(load_file(weights))
    return model


def test_the_world_is_the_same_for_everybody_and_visits_are_a_seeds() -> None:
    one, other = data.World(), data.World()
    assert torch.equal(one.features, other.features)
    log, again, next_ = one.log(500, seed=3), other.log(500, seed=3), one.log(500, seed=4)
    assert torch.equal(log.item, again.item) and torch.equal(log.clicked, again.clicked)
    assert not torch.equal(log.user, next_.user)
    relevance = one.relevance(log.user)
    assert relevance.shape == (500, data.ITEMS) and relevance.min() > 0.0 and relevance.max() < 1.0
    assert 0.01 < log.clicked.mean() < 0.3


def test_what_is_shown_brings_its_chance_less_the_mean_and_the_rest_nothing() -> None:
    odds = torch.tensor([[0.0, 2.0], [1.0, -1.0]])
    best = torch.tensor([2.0, 1.0]).sigmoid()
    expected = torch.tensor([[0.0, best[0] - best.mean()], [best[1] - best.mean(), 0.0]])
    torch.testing.assert_close(recipe.rewards(odds, "set"), expected)
    expected = torch.tensor([[0.0, best[0]], [best[1], 0.0]])
    torch.testing.assert_close(recipe.rewards(odds, "inclusion"), expected)


def test_the_late_ranker_learns_who_clicks(weights: Path) -> None:
    assert prepare.auc(late(weights), data.World().log(4000, seed=1)) > 0.6


@pytest.mark.timeout(120)
def test_the_loop_learns_from_what_it_draws(
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with local_job() as job:
        for _ in range(2):
            job.teacher(
                "examples.early_ranker.models:late_ranker",
                weights=str(weights),
                batch_size=32,
            )
        monkeypatch.setenv("EDLDIST_COORDINATOR", job.address)
        monkeypatch.setenv("EDLDIST_OUTPUT", str(tmp_path))
        monkeypatch.setattr(recipe, "TEST_USERS", 200)
        monkeypatch.setattr(recipe, "NOISE_DRAWS", 8)
        options = ["--steps", "6", "--candidates", "20", "--noise", "5"]
        monkeypatch.setattr(sys, "argv", ["student.py", *options])
        student.main()
        assert "clicks in 100 visits after 6 steps" in capsys.readouterr().out
        monkeypatch.setattr(sys, "argv", ["student.py", *options, "--candidates", "1001"])
        monkeypatch.setenv("EDLDIST_OUTPUT", str(tmp_path / "other"))
        with pytest.raises(InputError, match="1001 candidates cannot be drawn from 1,000 items"):
            student.main()
        assert job.errors == []


def test_an_item_that_there_is_not_is_named(weights: Path) -> None:
    with local_job() as job:
        job.teacher("examples.early_ranker.models:late_ranker", weights=str(weights))
        teachers = job.requests(("user", "candidates"), checkpointed=False)
        users, candidates = torch.zeros(2, data.FEATURES), torch.tensor([[0, 1], [2, data.ITEMS]])
        with pytest.raises(PoisonTaskError, match="item 1000 of"):
            teachers.request({"user": users, "candidates": candidates}).labels()
        drawn = draw_candidates(torch.zeros(2, data.ITEMS), 2)
        labels = teachers.request({"user": users, "candidates": drawn}).labels()
        torch.testing.assert_close(labels["logits"], late(weights)(users, drawn))
