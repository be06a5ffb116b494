"""Positions that a mask leaves out of a loss are as if they were not there."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edldist import losses
from edldist.errors import InputError
from tests.unit.loss_cases import DTYPES, kd_alone, randn


def kd_with_indices(student: Tensor, teacher: Tensor, **options: Any) -> Tensor:
    target = torch.arange(student.shape[:-1].numel()).reshape(student.shape[:-1]) % student.shape[-1]
    if (mask := options.get("mask")) is not None:
        target = target.masked_fill(~mask, 1_000)  # padding need be no class
    return losses.kd(student, teacher, target, **options)


def kd_with_probabilities(student: Tensor, teacher: Tensor, **options: Any) -> Tensor:
    target = torch.full(student.shape, 1 / student.shape[-1])
    if (mask := options.get("mask")) is not None:
        target = target.masked_fill(~mask.unsqueeze(-1), math.nan)
    return losses.kd(student, teacher, target, **options)


def mse_of_directions(student: Tensor, teacher: Tensor, **options: Any) -> Tensor:
    return losses.mse(student, teacher, normalize=True, **options)


MASKED = [kd_alone, kd_with_indices, kd_with_probabilities, losses.mse, mse_of_directions, losses.cosine]


@pytest.mark.parametrize("loss", MASKED)
class TestMaskOfPositions:
    @pytest.mark.parametrize("filling", [0.0, 7.0, math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_padding_is_as_if_absent(
        self, generator: torch.Generator, loss: Callable[..., Tensor], filling: float, dtype: torch.dtype
    ) -> None:
        student, teacher = randn(generator, 3, 4, 5, dtype=dtype), randn(generator, 3, 4, 5, dtype=dtype)
        mask = torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [False] * 4])
        # The targets of kd are made by place: the positions that count have to come first.
        flat = mask.flatten().nonzero().flatten()
        assert flat.tolist() == list(range(6))
        bare = student.flatten(0, 1)[:6].double().requires_grad_()
        want = loss(bare, teacher.flatten(0, 1)[:6].double())
        want.backward()
        padded = student.masked_fill(~mask[..., None], filling).requires_grad_()
        got = loss(padded, teacher.masked_fill(~mask[..., None], filling), mask=mask)
        got.backward()
        assert got.item() == pytest.approx(want.item(), rel=1e-5, abs=1e-6)
        assert padded.grad is not None and bare.grad is not None
        assert (padded.grad[~mask] == 0).all()
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-6}.get(dtype, 1e-2)
        torch.testing.assert_close(padded.grad[mask].double(), bare.grad, rtol=tolerance, atol=tolerance / 10)
        each = loss(padded, teacher, mask=mask, reduction="none")
        assert (each[~mask] == 0).all()
        total = loss(padded, teacher, mask=mask, reduction="sum")
        torch.testing.assert_close(each.sum(), total)

    def test_nothing_but_padding_is_zero_with_no_gradient(
        self, generator: torch.Generator, loss: Callable[..., Tensor]
    ) -> None:
        student = torch.full((2, 3, 4), math.nan, requires_grad=True)
        mask = torch.zeros(2, 3, dtype=torch.bool)
        for reduction in ("mean", "sum"):
            student.grad = None
            got = loss(student, torch.zeros(2, 3, 4), mask=mask, reduction=reduction)
            got.backward()
            assert got.item() == 0.0 and student.grad is not None and (student.grad == 0).all()

    def test_a_mask_of_ones_changes_nothing(
        self, generator: torch.Generator, loss: Callable[..., Tensor]
    ) -> None:
        student, teacher = randn(generator, 2, 3, 4), randn(generator, 2, 3, 4)
        mask = torch.ones(2, 3, dtype=torch.bool)
        torch.testing.assert_close(loss(student, teacher, mask=mask), loss(student, teacher))


@pytest.mark.parametrize("loss", [kd_alone, losses.mse, losses.cosine])
@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(2, 3),
        torch.ones(2, 3, 4, dtype=torch.bool),
        torch.ones(2, dtype=torch.bool),
        torch.ones(2, 3, dtype=torch.bool, device="meta"),
    ],
)
def test_refuses_a_mask_that_does_not_fit(loss: Callable[..., Tensor], mask: Tensor) -> None:
    with pytest.raises(InputError, match="mask"):
        loss(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), mask=mask)


def test_cosine_takes_a_mask_of_the_shape_without_its_dimension(generator: torch.Generator) -> None:
    student, teacher = randn(generator, 3, 5, 4), randn(generator, 3, 5, 4)
    mask = torch.rand(3, 4, generator=generator) < 0.5
    want = losses.cosine(student.transpose(1, 2), teacher.transpose(1, 2), mask=mask)
    for dim in (1, -2):
        torch.testing.assert_close(losses.cosine(student, teacher, dim=dim, mask=mask), want)


def test_an_ignored_label_still_has_a_soft_term_and_padding_has_none(generator: torch.Generator) -> None:
    student, teacher = randn(generator, 2, 3), randn(generator, 2, 3)
    target = torch.tensor([1, -100])
    hard = F.cross_entropy(student[:1], target[:1])
    soft = losses.kd(student, teacher, alpha=1.0, reduction="none")
    got = losses.kd(student, teacher, target, alpha=0.5)
    torch.testing.assert_close(got, (0.5 * hard + 0.5 * soft.sum()) / 2)
    masked = losses.kd(student, teacher, target, alpha=0.5, mask=target != -100)
    torch.testing.assert_close(masked, 0.5 * hard + 0.5 * soft[0])
