"""Losses against values worked out by hand, by scipy and by torch in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax
from torch import Tensor

from edldist import losses
from edldist.errors import ConfigError, InputError
from edldist.labels.codec import parse_codec
from tests.unit.loss_cases import kd_alone, randn, scipy_kl


class TestKd:
    def test_two_classes_by_hand(self) -> None:
        # Teacher (3/4, 1/4) and student (1/2, 1/2) at T = 2; the label is class 0 at T = 1.
        teacher = torch.tensor([[2 * math.log(3.0), 0.0]], dtype=torch.float64)
        student = torch.zeros(1, 2, dtype=torch.float64)
        kl = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
        expected = 0.7 * 2.0**2 * kl + 0.3 * math.log(2.0)
        got = losses.kd(student, teacher, torch.tensor([0]), temperature=2.0, alpha=0.7)
        assert got.item() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
    @pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
    def test_agrees_with_scipy(self, generator: torch.Generator, temperature: float, alpha: float) -> None:
        student, teacher = 3 * randn(generator, 16, 10), 3 * randn(generator, 16, 10)
        target = torch.randint(10, (16,), generator=generator)
        hard = -log_softmax(student.numpy(), axis=-1)[np.arange(16), target.numpy()]
        each = alpha * temperature**2 * scipy_kl(student, teacher, temperature) + (1 - alpha) * hard

        def got(reduction: Any) -> np.ndarray:
            loss = losses.kd(
                student, teacher, target, temperature=temperature, alpha=alpha, reduction=reduction
            )
            return loss.numpy()

        np.testing.assert_allclose(got("none"), each, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(got("sum"), each.sum(), rtol=1e-12)
        np.testing.assert_allclose(got("mean"), each.mean(), rtol=1e-12)

    def test_defaults_are_those_of_the_design(self, generator: torch.Generator) -> None:
        student, teacher, target = randn(generator, 4, 5), randn(generator, 4, 5), torch.arange(4)
        written_out = losses.kd(student, teacher, target, temperature=4.0, alpha=0.9, reduction="mean")
        assert torch.equal(losses.kd(student, teacher, target), written_out)

    def test_soft_gradient_is_that_of_the_closed_form(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 6, 5).requires_grad_(), randn(generator, 6, 5)
        losses.kd(student, teacher, temperature=3.0, alpha=1.0, reduction="sum").backward()
        expected = 3.0 * (F.softmax(student.detach() / 3.0, -1) - F.softmax(teacher / 3.0, -1))
        torch.testing.assert_close(student.grad, expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
    def test_gradcheck(self, generator: torch.Generator, alpha: float) -> None:
        teacher, target = randn(generator, 2, 3, 4), torch.randint(4, (2, 3), generator=generator)
        student = randn(generator, 2, 3, 4).requires_grad_()
        assert torch.autograd.gradcheck(lambda s: losses.kd(s, teacher, target, alpha=alpha), (student,))

    def test_leading_dimensions_are_positions(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 2, 3, 7), randn(generator, 2, 3, 7)
        target = torch.randint(7, (2, 3), generator=generator)
        flat = losses.kd(student.reshape(6, 7), teacher.reshape(6, 7), target.reshape(6), reduction="none")
        assert torch.equal(losses.kd(student, teacher, target, reduction="none"), flat.reshape(2, 3))
        single = losses.kd(student[0, 0], teacher[0, 0], target[0, 0])
        torch.testing.assert_close(single, flat[0])

    def test_probability_targets(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 4, 5), randn(generator, 4, 5)
        target = F.softmax(randn(generator, 4, 5), dim=-1)
        expected = -(target * F.log_softmax(student, -1)).sum(-1).mean()
        torch.testing.assert_close(losses.kd(student, teacher, target, alpha=0.0), expected)

    def test_ignored_index_adds_no_cross_entropy(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 2, 5), randn(generator, 2, 5)
        each = losses.kd(student, teacher, torch.tensor([1, -100]), alpha=0.5, reduction="none")
        assert each[1].item() == pytest.approx(0.5 * 16 * scipy_kl(student, teacher, 4.0)[1], rel=1e-12)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
    def test_index_targets_of_any_integer_type(self, generator: torch.Generator, dtype: torch.dtype) -> None:
        student, teacher = randn(generator, 3, 5), randn(generator, 3, 5)
        target = torch.tensor([4, 0, 2])
        assert torch.equal(losses.kd(student, teacher, target.to(dtype)), losses.kd(student, teacher, target))

    @pytest.mark.parametrize("labels", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("model", [torch.float16, torch.bfloat16, torch.float32])
    def test_half_precision_is_widened_first(
        self, generator: torch.Generator, labels: torch.dtype, model: torch.dtype
    ) -> None:
        student = randn(generator, 8, 1000, dtype=model).requires_grad_()
        teacher = randn(generator, 8, 1000, dtype=labels)
        loss = losses.kd(student, teacher, alpha=1.0)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(16 * scipy_kl(student, teacher, 4.0).mean(), rel=1e-4)
        loss.backward()
        assert student.grad is not None and student.grad.dtype == model

    def test_float64_stays_float64(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 2, 3), randn(generator, 2, 3)
        assert losses.kd(student, teacher, alpha=1.0).dtype == torch.float64
        assert losses.kd(student.float(), teacher, alpha=1.0).dtype == torch.float64

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
    def test_extreme_logits_stay_finite(self, dtype: torch.dtype) -> None:
        student = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], dtype=dtype, requires_grad=True)
        teacher = torch.tensor([[-1e4, 1e4, 0.0], [-1e4, 1e4, 0.0]], dtype=dtype)
        loss = losses.kd(student, teacher, torch.tensor([1, 1]), temperature=1.0, alpha=0.5, reduction="none")
        assert loss[0].item() == pytest.approx(2e4, rel=1e-2)
        assert loss[1].item() == 0.0
        loss.sum().backward()
        assert student.grad is not None and student.grad.isfinite().all()

    def test_classes_masked_on_both_sides_do_not_matter(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 3, 4), randn(generator, 3, 4)
        masked = torch.cat([student, torch.full((3, 2), -math.inf)], dim=-1).requires_grad_()
        loss = losses.kd(masked, torch.cat([teacher, torch.full((3, 2), -math.inf)], dim=-1), alpha=1.0)
        torch.testing.assert_close(loss, losses.kd(student, teacher, alpha=1.0))
        loss.backward()
        assert masked.grad is not None and masked.grad.isfinite().all()

    def test_teacher_side_gets_no_gradient(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 2, 3).requires_grad_(), randn(generator, 2, 3).requires_grad_()
        losses.kd(student, teacher, torch.tensor([0, 1])).backward()
        assert teacher.grad is None and student.grad is not None

    def test_a_match_costs_nothing(self, generator: torch.Generator) -> None:
        logits = randn(generator, 4, 5)
        assert losses.kd(logits, logits + 3.0, alpha=1.0).item() == pytest.approx(0.0, abs=1e-14)

    def test_a_term_of_weight_zero_cannot_spoil_the_other(self) -> None:
        student, nan = torch.zeros(1, 2), torch.full((1, 2), math.nan)
        assert losses.kd(student, nan, torch.tensor([0]), alpha=0.0).item() == pytest.approx(math.log(2))
        assert losses.kd(student, torch.zeros(1, 2), nan, alpha=1.0).item() == 0.0

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    @pytest.mark.parametrize("side", [0, 1])
    def test_non_finite_logits_show_in_the_loss(self, side: int, value: float) -> None:
        sides = [torch.zeros(2, 3), torch.zeros(2, 3)]
        sides[side][0, 1] = value
        each = losses.kd(sides[0], sides[1], alpha=1.0, reduction="none")
        assert each[0].isnan() and each[1].item() == 0.0

    def test_empty_batch_is_zero_with_a_gradient(self) -> None:
        student = torch.zeros(0, 3, requires_grad=True)
        loss = losses.kd(student, torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
        loss.backward()
        assert loss.item() == 0.0 and student.grad is not None

    def test_runs_inside_autocast(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 4, 5).float(), randn(generator, 4, 5).float()
        plain = losses.kd(student, teacher, torch.arange(4))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(losses.kd(student, teacher, torch.arange(4)), plain)

    def test_never_waits_for_the_devices_targets(self) -> None:
        logits = torch.zeros(2, 3, device="meta")
        assert losses.kd(logits, logits, torch.zeros(2, dtype=torch.int64, device="meta")).shape == ()

    @pytest.mark.parametrize(
        ("target", "says"),
        [
            (torch.zeros(3, dtype=torch.int64), r"\[2\].*\[2, 4\].*\[3\]"),
            (torch.zeros(2, 1, dtype=torch.int64), r"class indices.*\[2, 1\]"),
            (torch.zeros(2), "class probabilities"),
            (torch.zeros(2, 3), "class probabilities"),
            (torch.zeros(2, dtype=torch.bool), "torch.bool"),
            (torch.zeros(2, dtype=torch.complex64), "torch.complex64"),
            (torch.zeros(2, dtype=torch.int64, device="meta"), "meta"),
            ([0, 1], "list"),
        ],
    )
    def test_refuses_a_bad_target(self, target: Any, says: str) -> None:
        with pytest.raises(InputError, match=says):
            losses.kd(torch.zeros(2, 4), torch.zeros(2, 4), target)

    def test_refuses_a_missing_target(self) -> None:
        with pytest.raises(ConfigError, match=r"alpha=0.9 .*target is None.*alpha=1.0"):
            losses.kd(torch.zeros(2, 4), torch.zeros(2, 4))

    @pytest.mark.parametrize("alpha", [-0.01, 1.01, math.nan, math.inf, "0.5", None, True, torch.tensor(0.5)])
    def test_refuses_a_bad_alpha(self, alpha: Any) -> None:
        with pytest.raises(ConfigError, match="alpha="):
            losses.kd(torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), alpha=alpha)

    def test_numpy_numbers_are_numbers(self) -> None:
        zeros = torch.zeros(2, 4)
        assert losses.kd(zeros, zeros, alpha=np.float32(1.0), temperature=np.int64(2)).item() == 0.0  # type: ignore[arg-type]


class TestMse:
    def test_by_hand(self) -> None:
        student, teacher = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[0.0, 4.0], [0.0, 2.0]])
        assert losses.mse(student, teacher, reduction="none").tolist() == [[1.0, 4.0], [0.0, 9.0]]
        assert losses.mse(student, teacher, reduction="sum").item() == 14.0
        assert losses.mse(student, teacher).item() == 3.5

    def test_normalized_by_hand(self) -> None:
        student, teacher = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 10.0]])
        got = losses.mse(student, teacher, normalize=True, reduction="none")
        torch.testing.assert_close(got, torch.tensor([[0.36, 0.04]]))

    @pytest.mark.parametrize("normalize", [False, True])
    def test_gradcheck(self, generator: torch.Generator, normalize: bool) -> None:
        teacher, student = randn(generator, 3, 2, 4), randn(generator, 3, 2, 4).requires_grad_()
        assert torch.autograd.gradcheck(lambda s: losses.mse(s, teacher, normalize=normalize), (student,))

    def test_half_precision_is_widened_first(self) -> None:
        loss = losses.mse(torch.full((1,), 300.0, dtype=torch.float16), torch.zeros(1, dtype=torch.float16))
        assert loss.dtype == torch.float32 and loss.item() == 90_000.0  # fp16 ends at 65504


class TestCosine:
    def test_by_hand(self) -> None:
        student = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
        teacher = torch.tensor([[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [4.0, 3.0]])
        got = losses.cosine(student, teacher, reduction="none")
        torch.testing.assert_close(got, torch.tensor([0.0, 1.0, 2.0, 0.04]))
        assert losses.cosine(student, teacher).item() == pytest.approx(3.04 / 4)
        assert losses.cosine(student, teacher, reduction="sum").item() == pytest.approx(3.04)

    @pytest.mark.parametrize("dim", [-1, 0, 1, 2])
    def test_agrees_with_torch_along_any_dimension(self, generator: torch.Generator, dim: int) -> None:
        student, teacher = randn(generator, 3, 4, 5), randn(generator, 3, 4, 5)
        expected = 1 - F.cosine_similarity(student, teacher, dim=dim)
        torch.testing.assert_close(losses.cosine(student, teacher, dim=dim, reduction="none"), expected)

    def test_gradcheck(self, generator: torch.Generator) -> None:
        teacher, student = randn(generator, 3, 4), randn(generator, 3, 4).requires_grad_()
        assert torch.autograd.gradcheck(lambda s: losses.cosine(s, teacher), (student,))

    @pytest.mark.parametrize("loss", [losses.cosine, lambda s, t: losses.mse(s, t, normalize=True)])
    def test_a_zero_vector_sends_no_gradient(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        student = torch.tensor([[0.0, 0.0], [1.0, 2.0]], requires_grad=True)
        loss(student, torch.tensor([[1.0, 1.0], [2.0, 1.0]])).backward()
        assert student.grad is not None
        assert student.grad[0].tolist() == [0.0, 0.0] and student.grad[1].abs().sum() > 0

    @pytest.mark.parametrize("dim", [2, -3])
    def test_refuses_a_dimension_that_is_not_there(self, dim: int) -> None:
        with pytest.raises(ConfigError, match=rf"dim={dim} .*\[2, 3\]"):
            losses.cosine(torch.zeros(2, 3), torch.zeros(2, 3), dim=dim)


class TestRanking:
    def test_two_items_by_hand(self) -> None:
        teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, 0.0]])
        expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
        assert losses.ranking(student, teacher).item() == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    def test_agrees_with_scipy(self, generator: torch.Generator, temperature: float) -> None:
        student, teacher = randn(generator, 5, 8), randn(generator, 5, 8)
        each = temperature**2 * scipy_kl(student, teacher, temperature)
        for reduction, expected in (("none", each), ("sum", each.sum()), ("mean", each.mean())):
            got = losses.ranking(student, teacher, temperature=temperature, reduction=reduction)  # type: ignore[arg-type]
            np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)

    def test_gradient_is_that_of_listnets_cross_entropy(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 5, 8).requires_grad_(), randn(generator, 5, 8)
        losses.ranking(student, teacher, reduction="sum").backward()
        expected = F.softmax(student.detach(), -1) - F.softmax(teacher, -1)
        torch.testing.assert_close(student.grad, expected)

    def test_masked_items_are_as_if_absent(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 2, 6), randn(generator, 2, 6)
        mask = torch.tensor([[True] * 4 + [False] * 2, [False, True, True, True, True, True]])
        expected = [
            losses.ranking(student[0, :4], teacher[0, :4]).item(),
            losses.ranking(student[1, 1:], teacher[1, 1:]).item(),
        ]
        # Padding may hold anything, NaN included.
        student = student.masked_fill(~mask, math.nan).requires_grad_()
        teacher = teacher.masked_fill(~mask, math.inf)
        got = losses.ranking(student, teacher, mask=mask, reduction="none")
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-12)
        got.sum().backward()
        assert student.grad is not None and student.grad.isfinite().all()
        assert (student.grad[~mask] == 0).all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    def test_empty_lists_are_zero_and_not_counted(
        self, generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        student, teacher = randn(generator, 3, 4, dtype=dtype).requires_grad_(), randn(generator, 3, 4)
        mask = torch.tensor([[True] * 4, [False] * 4, [True] * 4])
        each = losses.ranking(student, teacher, mask=mask, reduction="none")
        assert each[1].item() == 0.0
        mean = losses.ranking(student, teacher, mask=mask)
        torch.testing.assert_close(mean, each.sum() / 2)
        mean.backward()
        assert student.grad is not None and student.grad.isfinite().all()
        assert losses.ranking(student, teacher, mask=torch.zeros_like(mask)).item() == 0.0

    def test_never_waits_for_the_devices_mask(self) -> None:
        scores = torch.zeros(2, 3, device="meta")
        assert losses.ranking(scores, scores, mask=scores > 0).shape == ()

    def test_gradcheck(self, generator: torch.Generator) -> None:
        teacher, student = randn(generator, 3, 4), randn(generator, 3, 4).requires_grad_()
        mask = torch.tensor([[True] * 4, [True, False, True, True], [False] * 4])
        assert torch.autograd.gradcheck(
            lambda s: losses.ranking(s, teacher, temperature=2.0, mask=mask), (student,)
        )

    def test_extreme_scores_stay_finite(self) -> None:
        student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
        loss = losses.ranking(student, -student.detach(), mask=torch.tensor([[True, True, False]]))
        loss.backward()
        assert loss.item() == pytest.approx(2e4)
        assert student.grad is not None and student.grad.isfinite().all()

    def test_whole_number_grades_will_do_as_teacher(self) -> None:
        grades = torch.tensor([[3, 1, 0]])
        assert losses.ranking(grades.float(), grades).item() == 0.0

    @pytest.mark.parametrize(
        "mask",
        [
            torch.ones(2, 3),
            torch.ones(2, 4, dtype=torch.bool),
            torch.ones(3, dtype=torch.bool),
            torch.ones(2, 3, dtype=torch.bool, device="meta"),
            [[True] * 3] * 2,
        ],
    )
    def test_refuses_a_bad_mask(self, mask: Any) -> None:
        with pytest.raises(InputError, match="mask"):
            losses.ranking(torch.zeros(2, 3), torch.zeros(2, 3), mask=mask)


@pytest.mark.parametrize("loss", [kd_alone, losses.mse, losses.cosine, losses.ranking, losses.pairwise])
class TestEveryLoss:
    @pytest.mark.parametrize(
        ("student", "teacher", "says"),
        [
            (torch.zeros(2, 3), torch.zeros(2, 4), r"\[2, 3\].*\[2, 4\]"),
            (torch.zeros(2, 3), torch.zeros(1, 3), r"\[2, 3\].*\[1, 3\]"),
            (torch.zeros(()), torch.zeros(()), r"shape \[\]"),
            (torch.zeros(2, 0), torch.zeros(2, 0), r"shape \[2, 0\]"),
            (torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3), "floating point"),
            (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.complex64), "complex64"),
            (torch.zeros(2, 3), torch.zeros(2, 3, device="meta"), r"cpu.*meta.*\.to\('cpu'\)"),
            ([[0.0]], torch.zeros(1, 1), "student.*list"),
            (torch.zeros(1, 1), np.zeros((1, 1)), "teacher.*ndarray"),
        ],
    )
    def test_refuses_sides_that_do_not_fit(
        self, loss: Callable[..., Tensor], student: Any, teacher: Any, says: str
    ) -> None:
        with pytest.raises(InputError, match=says):
            loss(student, teacher)

    @pytest.mark.parametrize("reduction", ["batchmean", "", None])
    def test_refuses_an_unknown_reduction(self, loss: Callable[..., Tensor], reduction: Any) -> None:
        with pytest.raises(ConfigError, match="reduction=.*'mean', 'sum', 'none'"):
            loss(torch.zeros(2, 3), torch.zeros(2, 3), reduction=reduction)

    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    def test_never_waits_for_the_device(self, loss: Callable[..., Tensor], reduction: Any) -> None:
        # A meta tensor has no values: whatever looks at one, as a sync would, raises.
        student = torch.zeros(2, 3, device="meta", requires_grad=True)
        got = loss(student, torch.zeros(2, 3, device="meta"), reduction=reduction)
        got.sum().backward()
        assert got.device.type == "meta" and student.grad is not None

    def test_has_no_gradient_towards_the_teacher(self, loss: Callable[..., Tensor]) -> None:
        student, teacher = torch.rand(2, 3, requires_grad=True), torch.rand(2, 3, requires_grad=True)
        loss(student, teacher).backward()
        assert teacher.grad is None and student.grad is not None


@pytest.mark.parametrize("loss", [kd_alone, losses.ranking])
@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, math.nan, math.inf, "4", True, torch.tensor(4.0)])
def test_refuses_a_bad_temperature(loss: Callable[..., Tensor], temperature: Any) -> None:
    with pytest.raises(ConfigError, match="temperature="):
        loss(torch.zeros(2, 3), torch.zeros(2, 3), temperature=temperature)


class TestIds:
    """Ids that the student has no logits for."""

    def test_a_target_that_is_none_is_named(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 2, 3, 5), randn(generator, 2, 3, 5)
        target = torch.tensor([[0, 4, -100], [1, 5, -1]])
        with pytest.raises(InputError, match=r"kd: target 5 at position \[1, 1\] .* 5 classes, 0 to 4"):
            losses.kd(student, teacher, target)
        losses.kd(student, teacher, target, alpha=1.0)
        mask = torch.tensor([[True, True, True], [True, False, False]])
        losses.kd(student, teacher, target, mask=mask)

    def test_drawn_ids_that_are_none_are_named(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 2, 5), randn(generator, 2, 5)
        for wrong in (5, -100):
            ids = torch.tensor([[0, 1], [2, wrong]])
            with pytest.raises(InputError, match=rf"policy_gradient: id {wrong} at position \[1, 1\]"):
                losses.policy_gradient(student, teacher, ids)
            losses.policy_gradient(student, teacher, ids, mask=torch.tensor([True, False]))

    def test_true_tokens_that_are_none_are_named(self, generator: torch.Generator) -> None:
        codec = parse_codec("topk:2")
        labels = codec.decode(codec.encode({"logits": randn(generator, 2, 5)}))
        with pytest.raises(InputError, match=r"residual_to_gold: target 9 at position \[0\] is none"):
            losses.residual_to_gold(randn(generator, 2, 5), labels["logits"], torch.tensor([9, -100]))
