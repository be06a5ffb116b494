"""``losses.contrastive`` against its definition in float64, and rows of a rank that is alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from edldist import losses
from edldist.errors import ConfigError, InputError
from tests.unit.loss_cases import DTYPES, randn


def test_two_candidates_by_hand() -> None:
    scores = torch.tensor([[math.log(3.0), 0.0]])
    assert losses.contrastive(scores, torch.tensor([0])).item() == pytest.approx(-math.log(0.75), rel=1e-6)
    assert losses.contrastive(scores, torch.tensor([1])).item() == pytest.approx(-math.log(0.25), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_agrees_with_its_definition(generator: torch.Generator, temperature: float) -> None:
    scores, positive = randn(generator, 5, 8), torch.randint(8, (5,), generator=generator)
    scaled = scores.numpy() / temperature
    each = logsumexp(scaled, axis=-1) - scaled[np.arange(5), positive.numpy()]
    for reduction, expected in (("none", each), ("sum", each.sum()), ("mean", each.mean())):
        got = losses.contrastive(scores, positive, temperature=temperature, reduction=reduction)  # type: ignore[arg-type]
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)
    by_two = losses.contrastive(scores, positive, temperature=temperature, count=2)
    assert by_two.item() == pytest.approx(each.sum() / 2)


def test_any_leading_dimensions(generator: torch.Generator) -> None:
    scores, positive = randn(generator, 2, 3, 7), torch.randint(7, (2, 3), generator=generator)
    flat = losses.contrastive(scores.flatten(0, 1), positive.flatten(), reduction="none")
    assert torch.equal(losses.contrastive(scores, positive, reduction="none"), flat.view(2, 3))


@pytest.mark.parametrize("filling", [0.0, 50.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_false_negatives_that_are_masked_are_as_if_absent(
    generator: torch.Generator, filling: float, dtype: torch.dtype
) -> None:
    scores, positive = randn(generator, 3, 6, dtype=dtype), torch.tensor([1, 5, 1_000])
    mask = torch.tensor(
        [[True, True, True, True, False, False], [False, True, True, True, True, True], [False] * 6]
    )
    expected = [
        losses.contrastive(scores[0, :4], torch.tensor(1)).item(),
        losses.contrastive(scores[1, 1:], torch.tensor(4)).item(),
    ]
    leaf = scores.masked_fill(~mask, filling).requires_grad_()
    got = losses.contrastive(leaf, positive, mask=mask, reduction="none")
    np.testing.assert_allclose(got.detach().numpy(), [*expected, 0.0], rtol=1e-6)
    mean = losses.contrastive(leaf, positive, mask=mask)
    assert mean.item() == pytest.approx(sum(expected) / 2, rel=1e-6)
    mean.backward()
    assert leaf.grad is not None and leaf.grad.isfinite().all() and (leaf.grad[~mask] == 0).all()


def test_gradcheck(generator: torch.Generator) -> None:
    scores, positive = randn(generator, 3, 4).requires_grad_(), torch.tensor([0, 2, 1])
    mask = torch.tensor([[True] * 4, [True, False, True, True], [False] * 4])
    assert torch.autograd.gradcheck(
        lambda s: losses.contrastive(s, positive, temperature=0.5, mask=mask), (scores,)
    )


def test_no_rows_have_no_loss() -> None:
    assert losses.contrastive(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).item() == 0.0


@pytest.mark.parametrize("masked", [False, True])
def test_never_waits_for_the_device(masked: bool) -> None:
    scores = torch.zeros(2, 3, device="meta", requires_grad=True)
    positive = torch.zeros(2, dtype=torch.int64, device="meta")
    losses.contrastive(scores, positive, mask=scores > 0 if masked else None).backward()
    assert scores.grad is not None


@pytest.mark.parametrize(
    ("scores", "positive", "says"),
    [
        (
            torch.zeros(2, 3),
            torch.tensor([0, 3]),
            r"positive 3 at position \[1\] is none of its row's 3 candi",
        ),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), r"positive -1 at position \[0\]"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), r"positive is torch.float32.*as an integer"),
        (torch.zeros(2, 3), torch.tensor([True, False]), "positive is torch.bool"),
        (torch.zeros(2, 3), [0, 1], "positive is list"),
        (torch.zeros(2, 3), torch.tensor([0]), r"shape \[1\].*\[2, 3\] on cpu want \[2\]"),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64, device="meta"), "on meta"),
        (torch.zeros(2, 0), torch.zeros(2, dtype=torch.int64), "no candidates"),
        (torch.zeros(()), torch.tensor(0), "no candidates"),
        (torch.zeros(2, 3, dtype=torch.int64), torch.tensor([0, 1]), "scores are torch.int64"),
        ([[0.0]], torch.tensor([0]), "scores are list"),
    ],
)
def test_refuses_what_does_not_fit(scores: Any, positive: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        losses.contrastive(scores, positive)


def test_refuses_a_mask_that_leaves_the_right_one_out() -> None:
    mask = torch.tensor([[True, True, True], [True, False, True]])
    with pytest.raises(InputError, match=r"leaves out candidate 1 of row \[1\].*whole row"):
        losses.contrastive(torch.zeros(2, 3), torch.tensor([1, 1]), mask=mask)
    with pytest.raises(InputError, match="the mask has shape"):
        losses.contrastive(torch.zeros(2, 3), torch.tensor([1, 1]), mask=mask[:, :2])


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"reduction": "all"}, {"count": 0}, {"temperature": "1"}]
)
def test_refuses_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"contrastive: {next(iter(options))}="):
        losses.contrastive(torch.zeros(2, 3), torch.tensor([0, 1]), **options)


def test_alone_gathered_rows_are_the_rows() -> None:
    rows = torch.rand(3, 2, requires_grad=True)
    gathered = losses.gather_rows(rows)
    assert gathered.rows is rows and gathered.begin == 0


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (torch.tensor(1.0), "a number has no rows"),
        ([1.0], "a list has no rows"),
        (torch.zeros(2, dtype=torch.complex64), "complex64"),
        (torch.zeros((1,) * 9), "9 dimensions"),
    ],
)
def test_refuses_rows_that_cannot_be_gathered(rows: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        losses.gather_rows(rows)
