"""Ranks that have different numbers of positions that count."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.ranks import run_ranks


def test_the_averaged_gradient_is_that_of_all_positions_together(tmp_path: Path) -> None:
    plans = {"mask": [True, True, True, False, True, False]}
    (alone,) = run_ranks("tests.integration.loss_rank", plans, 1, tmp_path)
    two = run_ranks("tests.integration.loss_rank", plans, 2, tmp_path)
    assert alone["count"] == 4 and [rank["count"] for rank in two] == [2, 2]
    for rank in two:
        assert rank["grad"] == pytest.approx(alone["grad"], rel=1e-12)


def test_a_rank_without_any_takes_part_with_nothing(tmp_path: Path) -> None:
    plans = {"mask": [False, False, False, True, True, False]}
    (alone,) = run_ranks("tests.integration.loss_rank", plans, 1, tmp_path)
    two = run_ranks("tests.integration.loss_rank", plans, 2, tmp_path)
    for rank in two:
        assert rank["grad"] == pytest.approx(alone["grad"], rel=1e-12)
