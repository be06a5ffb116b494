"""``losses.pairwise`` against its definition in float64, pair by pair."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, rel_entr
from torch import Tensor

from edldist import losses
from edldist.errors import ConfigError, InputError
from tests.unit.loss_cases import randn


def by_definition(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """Of one list."""
    found = []
    for i, j in combinations(range(len(student)), 2):
        p, q = (expit((float(side[i]) - float(side[j])) / temperature) for side in (teacher, student))
        found.append(temperature**2 * (rel_entr(p, q) + rel_entr(1 - p, 1 - q)))
    return float(np.mean(found))


def test_two_items_by_hand() -> None:
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.zeros(1, 2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert losses.pairwise(student, teacher).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0, 30.0])
def test_agrees_with_its_definition(generator: torch.Generator, temperature: float) -> None:
    student, teacher = randn(generator, 5, 6), randn(generator, 5, 6)
    each = np.array(
        [by_definition(ours, theirs, temperature) for ours, theirs in zip(student, teacher, strict=True)]
    )
    for reduction, expected in (("none", each), ("sum", each.sum()), ("mean", each.mean())):
        got = losses.pairwise(student, teacher, temperature=temperature, reduction=reduction)  # type: ignore[arg-type]
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-9)
    single = losses.pairwise(student.float(), teacher.float(), temperature=temperature)
    assert single.dtype == torch.float32 and single.item() == pytest.approx(each.mean(), rel=1e-4)


def test_only_differences_count(generator: torch.Generator) -> None:
    teacher = randn(generator, 3, 5)
    assert losses.pairwise(teacher + 7.0, teacher).item() == pytest.approx(0.0, abs=1e-12)


def test_masked_items_are_as_if_absent(generator: torch.Generator) -> None:
    student, teacher = randn(generator, 3, 6), randn(generator, 3, 6)
    mask = torch.tensor([[True] * 4 + [False] * 2, [False] + [True] * 5, [True] + [False] * 5])
    expected = [
        by_definition(student[0, :4], teacher[0, :4], 2.0),
        by_definition(student[1, 1:], teacher[1, 1:], 2.0),
    ]
    student = student.masked_fill(~mask, math.nan).requires_grad_()
    got = losses.pairwise(
        student, teacher.masked_fill(~mask, math.inf), temperature=2.0, mask=mask, reduction="none"
    )
    np.testing.assert_allclose(got.detach().numpy(), [*expected, 0.0], rtol=1e-10)
    mean = losses.pairwise(student, teacher.masked_fill(~mask, math.nan), temperature=2.0, mask=mask)
    assert mean.item() == pytest.approx(sum(expected) / 2)
    mean.backward()
    assert student.grad is not None and student.grad.isfinite().all() and (student.grad[~mask] == 0).all()


def test_a_list_of_one_has_no_pairs() -> None:
    one = torch.ones(2, 1, requires_grad=True)
    loss = losses.pairwise(one, torch.zeros(2, 1))
    loss.backward()
    assert loss.item() == 0.0 and one.grad is not None and (one.grad == 0).all()
    assert losses.pairwise(torch.zeros(0, 3), torch.zeros(0, 3)).item() == 0.0


def test_gradcheck(generator: torch.Generator) -> None:
    teacher, student = randn(generator, 3, 4), randn(generator, 3, 4).requires_grad_()
    mask = torch.tensor([[True] * 4, [True, False, True, True], [False] * 4])
    assert torch.autograd.gradcheck(
        lambda s: losses.pairwise(s, teacher, temperature=2.0, mask=mask), (student,)
    )


def test_extreme_scores_stay_finite() -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = losses.pairwise(student, -student.detach())
    loss.backward()
    assert loss.item() == pytest.approx((2e4 + 1e4 + 1e4) / 3)
    assert student.grad is not None and student.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan, math.inf, "4", True])
def test_refuses_a_bad_temperature(temperature: Any) -> None:
    with pytest.raises(ConfigError, match=r"pairwise: temperature="):
        losses.pairwise(torch.zeros(2, 3), torch.zeros(2, 3), temperature=temperature)


@pytest.mark.parametrize("mask", [torch.ones(2, 3), torch.ones(2, 4, dtype=torch.bool), [[True] * 3] * 2])
def test_refuses_a_bad_mask(mask: Any) -> None:
    with pytest.raises(InputError, match="pairwise: the mask"):
        losses.pairwise(torch.zeros(2, 3), torch.zeros(2, 3), mask=mask)
