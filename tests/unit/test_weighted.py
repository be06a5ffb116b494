"""Losses against several teachers: sums by weight, checked in float64; what cannot be is refused."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from edldist import losses
from edldist.errors import ConfigError, InputError
from edldist.labels.typed import GatheredLabels, TopKLabels
from tests.unit.loss_cases import randn

B, S, V = 5, 3, 11


def _sides(*leading: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    student, one, other = (randn(generator, *leading, V) for _ in range(3))
    return student.requires_grad_(), one, other


def _kl(teacher: Tensor, student: Tensor, t: float = 1.0) -> Tensor:
    p, q = (teacher / t).softmax(-1), (student / t).softmax(-1)
    return t * t * (p * (p / q).log()).sum(-1)


def _agree(got: Tensor, wanted: Tensor, student: Tensor) -> None:
    assert torch.allclose(got, wanted, rtol=0, atol=1e-12)
    (grad,) = torch.autograd.grad(got.sum(), student, retain_graph=True)
    (right,) = torch.autograd.grad(wanted.sum(), student, retain_graph=True)
    assert torch.allclose(grad, right, rtol=0, atol=1e-12)


def test_fixed_weights_are_relative() -> None:
    student, one, other = _sides(B)
    labels = {"a/logits": one, "b/logits": other}
    wanted = (0.3 * _kl(one, student) + 0.1 * _kl(other, student)).mean() / 0.4
    _agree(losses.ensemble(student, labels, {"a": 0.3, "b": 0.1}), wanted, student)
    _agree(losses.ensemble(student, labels, {"a": 3, "b": 1}), wanted, student)
    alike = (_kl(one, student) + _kl(other, student)).mean() / 2
    _agree(losses.ensemble(student, labels), alike, student)


def test_a_mean_of_distributions_has_the_same_gradient() -> None:
    student, one, other = _sides(B)
    mix = 0.75 * one.softmax(-1) + 0.25 * other.softmax(-1)
    (wanted,) = torch.autograd.grad(-(mix * student.log_softmax(-1)).sum(-1).mean(), student)
    got = losses.ensemble(student, {"a/logits": one, "b/logits": other}, {"a": 3.0, "b": 1.0})
    assert torch.allclose(torch.autograd.grad(got, student)[0], wanted, rtol=0, atol=1e-12)


def test_weights_of_each_sample_and_of_each_position() -> None:
    student, one, other = _sides(B, S)
    labels = {"a/logits": one, "b/logits": other}
    by_sample = torch.tensor([0.0, 1.0, 0.5, 2.0, 0.0], dtype=torch.float64)
    w = by_sample[:, None].expand(B, S)
    wanted = (w * _kl(one, student) + _kl(other, student)) / (w + 1)
    _agree(losses.ensemble(student, labels, {"a": by_sample, "b": 1.0}), wanted.mean(), student)
    none = losses.ensemble(student, labels, {"a": w.contiguous(), "b": 1.0}, reduction="none")
    _agree(none, wanted, student)
    # Where nobody has a weight, nothing counts, not in the number of positions either.
    alone = losses.ensemble(student, labels, {"a": by_sample})
    has = by_sample > 0
    _agree(alone, _kl(one, student)[has].mean(), student)


def test_each_teacher_has_a_codec_a_temperature_and_a_loss_of_its_own() -> None:
    student, one, other = _sides(B)
    p, ids = (one / 2).softmax(-1).topk(4)
    top = TopKLabels(ids, p.log(), (1 - p.sum(-1)).log(), V, 2.0)
    labels = {"a/logits": top, "b/logits": other}
    target = torch.tensor([1, 2, 3, 4, 5])
    kd = partial(losses.kd, target=target, alpha=0.25)
    got = losses.ensemble(
        student,
        labels,
        {"a": 1.0, "b": 3.0},
        loss={"a": losses.reverse_kl, "b": kd},
        temperature={"b": 3.0},
    )
    wanted = losses.reverse_kl(student, top) + 3 * losses.kd(
        student, other, target, temperature=3.0, alpha=0.25
    )
    _agree(got, wanted / 4, student)
    hot = losses.ensemble(student, {"a/logits": one, "b/logits": other}, temperature=4.0)
    _agree(hot, (_kl(one, student, 4.0) + _kl(other, student, 4.0)).mean() / 2, student)


def test_where_a_teacher_has_no_labels_the_others_take_its_share() -> None:
    student, one, other = _sides(B, S)
    here = torch.tensor([True, True, False, False, True])
    broken = one.masked_fill(~here[:, None, None], math.nan)
    tokens = torch.ones(B, S, dtype=torch.bool)
    tokens[0, 1] = tokens[3] = False
    labels = {"a/logits": broken, "a/mask": here, "b/logits": other, "b/mask": tokens}
    wa, wb = 3.0 * here[:, None] * torch.ones(S), tokens.double()
    wanted = wa * _kl(one, student) + wb * _kl(other, student)
    has = wa + wb > 0
    assert not has[3].any()
    got = losses.ensemble(student, labels, {"a": 3.0, "b": 1.0})
    _agree(got, (wanted[has] / (wa + wb)[has]).mean(), student)
    only = torch.zeros(B, S, dtype=torch.bool)
    only[1, 2] = only[3, 0] = True
    masked = losses.ensemble(student, labels, {"a": 3.0, "b": 1.0}, mask=only)
    _agree(masked, wanted[1, 2] / (wa + wb)[1, 2], student)
    counted = losses.ensemble(student, labels, {"a": 3.0, "b": 1.0}, mask=only, count=4.0)
    _agree(counted, wanted[1, 2] / (wa + wb)[1, 2] / 4, student)


def test_a_teacher_that_was_never_there_has_a_mask_only() -> None:
    student, _, other = _sides(B)
    nobody = torch.zeros(B, dtype=torch.bool)
    labels = {"a/mask": nobody, "b/logits": other, "b/mask": ~nobody}
    got = losses.ensemble(student, labels, {"a": 3.0, "b": 1.0})
    _agree(got, _kl(other, student).mean(), student)
    of_nothing = losses.ensemble(student, {"a/mask": nobody}, {"a": 1.0})
    assert of_nothing == 0 and of_nothing.isfinite()


def test_features_and_other_outputs() -> None:
    student, one, other = _sides(B)
    labels = {"a/embedding": one, "b/embedding": other, "b/logits": other}
    got = losses.ensemble(student, labels, output="embedding", loss=losses.cosine)
    wanted = (losses.cosine(student, one) + losses.cosine(student, other)) / 2
    _agree(got, wanted, student)


def test_a_projection_serves_too() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden = randn(generator, B, 4).requires_grad_()
    weight, one, other = randn(generator, V, 4), randn(generator, B, V), randn(generator, B, V)
    labels = {"a/logits": one, "b/logits": other}
    got = losses.ensemble(losses.Projection(hidden, weight), labels, {"a": 1.0, "b": 2.0})
    logits = hidden @ weight.T
    _agree(got, (_kl(one, logits) + 2 * _kl(other, logits)).mean() / 3, hidden)


def test_weights_get_no_gradient() -> None:
    student, one, _ = _sides(B)
    weights = torch.ones(B, dtype=torch.float64, requires_grad=True)
    losses.ensemble(student, {"a/logits": one}, {"a": weights}).backward()
    assert weights.grad is None and student.grad is not None


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({}, "give one for each teacher"),
        (0.5, "give one for each teacher"),
        ({"a": -0.1}, "weight -0.1 of teacher 'a' must be a number of 0 or more"),
        ({"a": math.nan}, "weight nan of teacher 'a'"),
        ({"a": math.inf}, "weight inf of teacher 'a'"),
        ({"a": True}, "weight True of teacher 'a'"),
        ({"a": "much"}, "weight 'much' of teacher 'a'"),
        ({"a": 0.0, "b": 0}, "all weights are 0"),
        ({"a": torch.tensor([0.5, 0.5, -2.0, 1.0, 1.0])}, "teacher 'a' hold -2"),
        ({"a": torch.tensor([0.5, math.nan, 1.0, 1.0, 1.0])}, "teacher 'a' hold nan"),
        ({"a": torch.ones(B, dtype=torch.int64)}, "are torch.int64, not floating point"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights: object, says: str) -> None:
    student, one, other = _sides(B)
    with pytest.raises(ConfigError, match=says):
        losses.ensemble(student, {"a/logits": one, "b/logits": other}, weights)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        ("a/logits", {}, "labels are str"),
        ({}, {}, "no teacher has labels '<teacher>/logits'"),
        (
            {"a/logits": 0},
            {"weights": {"c": 1.0}},
            "teacher 'c' has a weight, and there are no labels 'c/logits'",
        ),
        ({"a/logits": 0}, {"weights": {"a": torch.ones(B + 1)}}, "teacher 'a' have shape"),
        ({"a/logits": 0, "a/mask": torch.ones(B)}, {}, "'a/mask' is torch.float32, not a bool"),
        ({"a/logits": 0, "a/mask": torch.ones(2, dtype=torch.bool)}, {}, "'a/mask' have shape"),
        ({"a/logits": 0}, {"loss": losses.mse}, "the loss against teacher 'a' gives"),
        ({"a/logits": 0}, {"mask": torch.ones(B)}, "the mask is torch.float32"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: object, options: dict[str, object], says: str) -> None:
    student, one, _ = _sides(B)
    if isinstance(labels, dict):
        labels = {key: one if isinstance(value, int) else value for key, value in labels.items()}
    with pytest.raises(InputError, match=says):
        losses.ensemble(student, labels, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": {"c": 2.0}}, "temperature has an entry for 'c'"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"loss": {"c": losses.forward_kl}}, "loss has an entry for 'c'"),
        ({"loss": {"a": losses.forward_kl}}, "loss has no entry for teacher 'b'"),
        ({"reduction": "median"}, "reduction='median' is unknown"),
        ({"count": 0}, "count=0 must be a finite number above 0"),
        ({"count": math.inf}, "count=inf must be a finite number above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], says: str) -> None:
    student, one, other = _sides(B)
    with pytest.raises(ConfigError, match=says):
        losses.ensemble(student, {"a/logits": one, "b/logits": other}, **options)  # type: ignore[arg-type]


def test_labels_that_cannot_serve_a_loss_are_refused_by_it() -> None:
    student, one, _ = _sides(B)
    gathered = GatheredLabels(one[:, :2].log_softmax(-1), one[:, 0])
    with pytest.raises(ConfigError, match="codec gather"):
        losses.ensemble(student, {"a/logits": one, "b/logits": gathered})
