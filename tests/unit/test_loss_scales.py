"""Losses of very large and very small numbers are those of float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from torch import Tensor

from edldist import losses
from edldist.errors import ConfigError
from tests.unit.loss_cases import DTYPES, kd_alone, randn


class TestScales:
    """The size of the numbers changes no direction, and the temperature no precision."""

    @pytest.mark.parametrize("scale", [1e38, 1e25, 1e20, 1.0, 1e-13, 1e-20, 1e-30])
    @pytest.mark.parametrize("other", [1e30, 1.0, 1e-30])
    def test_cosine_of_any_length_is_that_of_float64(
        self, generator: torch.Generator, scale: float, other: float
    ) -> None:
        student, teacher = randn(generator, 6, 5).clamp(-3, 3) / 4, randn(generator, 6, 5).clamp(-3, 3) / 4
        want = 1 - F.cosine_similarity(student, teacher, dim=-1)
        leaf = (student * scale).float().requires_grad_()
        got = losses.cosine(leaf, (teacher * other).float(), reduction="none")
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)
        got.sum().backward()
        reference = student.clone().requires_grad_()
        (1 - F.cosine_similarity(reference, teacher, dim=-1)).sum().backward()
        assert leaf.grad is not None and reference.grad is not None
        if scale > 1e-30:
            torch.testing.assert_close(leaf.grad.double() * scale, reference.grad, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("dtype", "value"),
        [(torch.float16, value) for value in (1e4, 1.0, 1e-7)]
        + [(dtype, value) for dtype in DTYPES[:3] for value in (1e38, 1e25, 1e4, 1.0, 1e-13, 1e-37)],
        ids=str,
    )
    def test_a_vector_is_aligned_with_itself_whatever_its_length(
        self, dtype: torch.dtype, value: float
    ) -> None:
        vector = torch.full((1, 7), value, dtype=dtype)
        assert losses.cosine(vector, vector).item() == pytest.approx(0, abs=1e-6)
        assert losses.cosine(vector, -vector).item() == pytest.approx(2, abs=1e-6)
        assert losses.mse(vector, 0.5 * vector, normalize=True).item() == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize("loss", [losses.cosine, lambda s, t: losses.mse(s, t, normalize=True)])
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_what_is_not_finite_shows_in_the_loss(self, loss: Callable[..., Tensor], value: float) -> None:
        broken, whole = torch.tensor([[value, 1.0]]), torch.ones(1, 2)
        assert loss(broken, whole).isnan() and loss(whole, broken).isnan()

    @given(
        dtype=st.sampled_from([torch.float32, torch.float64]),
        values=st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=1, max_size=6),
        power=st.floats(-323, 308),
    )
    @example(dtype=torch.float32, values=[1.0, 1.0], power=-40.0)
    @example(dtype=torch.float32, values=[1.0, -0.5], power=-45.0)
    @example(dtype=torch.float64, values=[1.0], power=-323.0)
    def test_every_vector_is_aligned_with_itself_and_has_a_finite_gradient(
        self, dtype: torch.dtype, values: list[float], power: float
    ) -> None:
        vector = (torch.tensor([values], dtype=torch.float64) * 10.0**power).to(dtype)
        assume(bool(vector.isfinite().all()))
        wanted = 1.0 if not vector.any() else 0.0
        leaf = vector.clone().requires_grad_()
        loss = losses.cosine(leaf, vector)
        assert loss.item() == pytest.approx(wanted, abs=1e-6)
        assert losses.cosine(vector, -vector).item() == pytest.approx(2.0 - wanted, abs=1e-6)
        assert losses.mse(vector, vector, normalize=True).item() == 0.0
        loss.backward()
        assert leaf.grad is not None and leaf.grad.isfinite().all()

    @pytest.mark.parametrize("loss", [losses.cosine, lambda s, t: losses.mse(s, t, normalize=True)])
    def test_a_direction_too_small_to_learn_counts_and_has_no_gradient(
        self, loss: Callable[..., Tensor]
    ) -> None:
        student = torch.full((1, 3), 1e-42, requires_grad=True)
        teacher = torch.tensor([[1.0, 2.0, 3.0]])
        value = loss(student, teacher)
        value.backward()
        torch.testing.assert_close(value, loss(torch.ones(1, 3), teacher))
        assert student.grad is not None and student.grad.tolist() == [[0.0] * 3]

    @pytest.mark.parametrize("temperature", [1e-6, 1e-3, 0.1, 1.0, 4.0, 20.0, 100.0, 1e4, 1e6])
    def test_a_soft_loss_at_any_temperature_is_that_of_float64(
        self, generator: torch.Generator, temperature: float
    ) -> None:
        student, teacher = randn(generator, 4, 9) * 3, randn(generator, 4, 9) * 3
        leaf = student.float().requires_grad_()
        got = losses.kd(leaf, teacher.float(), alpha=1.0, temperature=temperature, reduction="none")
        got.sum().backward()
        # In extended precision: float64 itself loses digits at 1e6.
        s, t = (
            x.numpy().astype(np.longdouble) / np.longdouble(temperature)
            for x in (leaf.detach(), teacher.float())
        )
        want = temperature**2 * rel_entr_of(t, s)
        np.testing.assert_allclose(got.detach().numpy(), want.astype(float), rtol=1e-3, atol=1e-6)
        gradient = temperature * (softmax(s, axis=-1) - softmax(t, axis=-1))
        assert leaf.grad is not None
        np.testing.assert_allclose(leaf.grad.numpy(), gradient.astype(float), rtol=1e-3, atol=1e-5)
        assert torch.equal(
            got, losses.ranking(leaf, teacher.float(), temperature=temperature, reduction="none")
        )

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_hidden_states_in_half_precision_lose_nothing_further(
        self, generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        student, teacher = (
            (randn(generator, 8, 64) * 1e3).to(dtype),
            (randn(generator, 8, 64) * 1e3).to(dtype),
        )
        for loss in (losses.mse, losses.cosine, kd_alone):
            want = loss(student.double(), teacher.double())
            assert loss(student, teacher).item() == pytest.approx(want.item(), rel=1e-5)

    def test_a_class_that_neither_side_gives_a_chance_adds_nothing(self) -> None:
        logits = torch.tensor([[1.0, 2.0, -math.inf]], requires_grad=True)
        target = torch.tensor([[0.25, 0.75, 0.0]])
        loss = losses.kd(logits, logits.detach(), target, alpha=0.5)
        want = losses.kd(logits[:, :2], logits.detach()[:, :2], target[:, :2], alpha=0.5)
        torch.testing.assert_close(loss, want)
        loss.backward()
        assert logits.grad is not None and logits.grad.isfinite().all()


def rel_entr_of(teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    log_p, log_q = log_softmax(teacher, axis=-1), log_softmax(student, axis=-1)
    return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(axis=-1))


@pytest.mark.parametrize("temperature", [1e-7, 1e7, 1e20])
def test_refuses_a_temperature_whose_square_leaves_float32(temperature: float) -> None:
    with pytest.raises(ConfigError, match="temperature=.* from 1e-06 to 1e\\+06"):
        losses.ranking(torch.zeros(2, 3), torch.zeros(2, 3), temperature=temperature)
