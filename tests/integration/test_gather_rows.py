"""Two gloo ranks under DDP have the gradient of one process with the whole batch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.gather_rank import QUERIES, step
from tests.integration.ranks import run_ranks

SHARES = [[4, 4], [3, 5], [8, 0]]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    return run_ranks("tests.integration.gather_rank", {"shares": SHARES}, 2, folder)


@pytest.mark.parametrize("plan", range(len(SHARES)), ids=lambda plan: str(SHARES[plan]))
def test_the_gradient_of_the_gathered_batch_is_that_of_one_process(
    two: list[dict[str, Any]], plan: int
) -> None:
    alone = step([QUERIES])
    for rank, told in enumerate(two):
        found = told["steps"][plan]
        assert found["grad"] == pytest.approx(alone["grad"], rel=1e-5, abs=1e-7)
        assert found["numbers"] == alone["numbers"] and found["flags"] == alone["flags"]
        assert found["begin"] == 2 * sum(SHARES[plan][:rank])


def test_half_precision_rows_are_gathered_and_their_gradients_summed(two: list[dict[str, Any]]) -> None:
    one, other = (told["half"]["grad"] for told in two)
    assert one == other == pytest.approx(step([QUERIES])["grad"], rel=0.1, abs=0.01)


def test_rows_that_are_not_alike_are_named_on_all_ranks(two: list[dict[str, Any]]) -> None:
    one, other = (told["unfit"] for told in two)
    shapes, dtypes, gradients, dims = one
    assert one == other and two[0]["empty"] == [0, 3]
    assert "rank 1 has torch.float32 [b, 4] without a gradient, and rank 0 torch.float32 [b, 3]" in shapes
    assert "torch.float64 [b, 3]" in dtypes and "[b, 3] with a gradient" in gradients and "[b, 3, 1]" in dims
