"""Ranks that share one batch: a tensor parallel group of a device mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.harness import local_job
from tests.integration.ranks import run_ranks

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

RANK = "tests.integration.tensor_parallel_rank"
PLAN = {"samples": 26, "batch_size": 4, "epochs": 2}  # 7 batches an epoch, the last one of 2


def numbers(values: list[Any]) -> list[float]:
    return [number for value in values for number in (numbers(value) if isinstance(value, list) else [value])]


def test_ranks_of_a_tensor_parallel_group_train_on_the_same_batches_as_one_rank_and_go_on_so(tmp_path: Path):
    with local_job() as job:
        for _ in range(2):
            job.teacher(model="Doubled", batch_size=4)
        plan = {**PLAN, "coordinator": job.address}
        (alone,) = run_ranks(RANK, {"whole": plan}, 1, tmp_path)
        kept = {**plan, "checkpoints": str(tmp_path / "checkpoints")}
        parted = {"whole": plan, "first": {**kept, "stop_after": 9}, "rest": kept}
        ranks = run_ranks(RANK, parted, 2, tmp_path)
        assert job.errors == []
    for rank in ranks:
        assert rank["whole"]["ids"] == alone["whole"]["ids"]
        assert rank["rest"]["from"] == 9
        assert rank["first"]["ids"] + rank["rest"]["ids"] == alone["whole"]["ids"]
        assert rank["rest"]["teachers"] == alone["whole"]["teachers"]
        for run, losses in (
            ("whole", rank["whole"]["losses"]),
            ("rest", rank["first"]["losses"] + rank["rest"]["losses"]),
        ):
            assert losses == pytest.approx(alone["whole"]["losses"], abs=1e-6)
            assert numbers(rank[run]["weights"]) == pytest.approx(
                numbers(alone["whole"]["weights"]), abs=1e-6
            )
