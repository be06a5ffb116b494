"""Clippy against its definition in float64, and as an optimizer among torch's."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import edldist
from edldist.errors import ConfigError, InputError
from edldist.optim import Clippy


def defined(
    weights: np.ndarray,
    gradients: list[np.ndarray],
    lr: float,
    rel: float,
    absolute: float,
    start: float,
    eps: float,
) -> tuple[np.ndarray, list[float]]:
    """Algorithm 1, one element after the other, in Python's own numbers."""
    w = [float(each) for each in weights.ravel()]
    total = [start] * len(w)
    scales = []
    for gradient in gradients:
        g = [float(each) for each in gradient.ravel()]
        total = [before + each * each for before, each in zip(total, g, strict=True)]
        r = [each / (math.sqrt(seen) + eps) for each, seen in zip(g, total, strict=True)]
        scale = 1.0
        for weight, update in zip(w, r, strict=True):
            if lr * abs(update) > 0:
                scale = min(scale, (rel * abs(weight) + absolute) / (lr * abs(update)))
        w = [weight - lr * scale * update for weight, update in zip(w, r, strict=True)]
        scales.append(scale)
    return np.array(w).reshape(weights.shape), scales


numbers = st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: 0.0 if abs(x) < 1e-6 else x)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_steps_are_those_of_the_definition(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 6))
    vector = st.lists(numbers, min_size=size, max_size=size).map(np.array)
    begin = data.draw(vector)
    gradients = data.draw(st.lists(vector, min_size=1, max_size=4))
    lr, rel = data.draw(st.sampled_from([0.0, 1e-3, 0.1, 10.0])), data.draw(st.sampled_from([0.0, 0.1, 0.5]))
    absolute, start = data.draw(st.sampled_from([1e-7, 0.01, 1e6])), data.draw(st.sampled_from([0.0, 0.1]))
    eps = 1e-10
    parameter = nn.Parameter(torch.from_numpy(begin.copy()))
    optimizer = Clippy([parameter], lr, rel, absolute, start, eps)
    scales = []
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        scales.append(optimizer.least_scale())
    expected, expected_scales = defined(begin, gradients, lr, rel, absolute, start, eps)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scales, expected_scales, rtol=1e-9)


def trained(make: Any, steps: int = 20) -> list[torch.Tensor]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = make(model.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, 5)).square().mean().backward()
        optimizer.step()
    return [each.detach() for each in model.parameters()]


def test_where_nothing_is_clipped_it_is_torch_s_adagrad_bit_by_bit() -> None:
    ours = trained(lambda params: Clippy(params, lr=0.1, lambda_abs=1e6))
    theirs = trained(lambda params: torch.optim.Adagrad(params, lr=0.1, foreach=False))
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    clipped = trained(lambda params: Clippy(params, lr=0.1))
    assert not torch.equal(clipped[0], theirs[0])


@settings(max_examples=40, deadline=None)
@given(st.lists(numbers, min_size=2, max_size=5), st.floats(1e-3, 1e6))
def test_no_weight_changes_by_more_than_its_bound(values: list[float], lr: float) -> None:
    parameter = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    optimizer = Clippy([parameter], lr)
    before = parameter.detach().clone()
    parameter.grad = torch.linspace(-1e8, 3.0, len(values), dtype=torch.float64)
    optimizer.step()
    assert ((parameter - before).abs() <= (0.5 * before.abs() + 0.01) * (1 + 1e-9)).all()


def test_each_tensor_has_a_scale_of_its_own_and_the_least_is_told() -> None:
    free, held = nn.Parameter(torch.full((3,), 100.0)), nn.Parameter(torch.zeros(2, 2))
    optimizer = Clippy([free, held], lr=1.0)
    assert optimizer.least_scale() == 1.0
    free.grad, held.grad = torch.ones(3), torch.ones(2, 2)
    optimizer.step()
    assert torch.allclose(free, torch.full((3,), 99.0)) and torch.allclose(held, torch.full((2, 2), -0.01))
    assert optimizer.least_scale() == pytest.approx(0.01)


def test_groups_have_settings_of_their_own_and_schedulers_move_them() -> None:
    one, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = Clippy([{"params": [one]}, {"params": [other], "lambda_rel": 0.1, "lambda_abs": 0.1}], lr=8.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step == 0 else 0.0)
    for _ in range(2):
        one.grad, other.grad = torch.ones(1), torch.ones(1)
        optimizer.step()
        schedule.step()
    assert torch.allclose(one, torch.tensor([0.49])) and torch.allclose(other, torch.tensor([0.8]))
    assert optimizer.least_scale() == 1.0, "a learning rate of 0 clips nothing"


def test_what_has_no_gradient_or_no_elements_stays() -> None:
    idle, empty, used = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(0)), nn.Parameter(torch.ones(2))
    optimizer = Clippy([idle, empty, used])
    used.grad, empty.grad = torch.ones(2), torch.ones(0)
    assert optimizer.step(lambda: 7.0) == 7.0
    assert torch.equal(idle, torch.ones(2)) and not torch.equal(used, torch.ones(2))


class _Model:
    """A model, its optimizer, and steps whose gradients depend on torch's random numbers."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.net = nn.Linear(4, 3)
        self.optimizer = Clippy(self.net.parameters(), lr=2.0, initial_accumulator_value=0.1)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.net(torch.randn(8, 4)).square().sum().backward()
            self.optimizer.step()


def test_a_restored_run_goes_on_bit_by_bit(tmp_path: Path) -> None:
    whole = _Model()
    whole.train(9)
    first = _Model()
    first.train(4)
    with edldist.Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(4, {"model": first.net, "optimizer": first.optimizer}, wait=True)
    again = _Model()
    with edldist.Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore({"model": again.net, "optimizer": again.optimizer}) == 4
    again.train(5)
    assert torch.equal(again.net.weight, whole.net.weight) and torch.equal(again.net.bias, whole.net.bias)


def test_a_copy_of_it_works() -> None:
    model = _Model()
    model.train(2)
    other = copy.deepcopy(model)
    assert other.optimizer.least_scale() == 1.0
    torch.manual_seed(5)
    model.train(2)
    torch.manual_seed(5)
    other.train(2)
    assert torch.equal(model.net.weight, other.net.weight)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": -0.1}, r"Clippy\(lr=-0.1\): use a number of 0 or more"),
        ({"lr": math.nan}, r"lr=nan"),
        ({"lr": "fast"}, r"lr='fast'"),
        ({"lambda_rel": -1}, r"lambda_rel=-1\): use a number of 0 or more"),
        ({"lambda_abs": 0.0}, r"lambda_abs=0.0\): use a number above 0"),
        ({"lambda_abs": math.inf}, r"lambda_abs=inf"),
        ({"initial_accumulator_value": -1e-9}, r"initial_accumulator_value=-1e-09"),
        ({"eps": 0}, r"eps=0\): use a number above 0"),
        ({"lr": True}, r"lr=True"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    weights = nn.Parameter(torch.ones(1))
    with pytest.raises(ConfigError, match=said):
        Clippy([weights], **options)
    with pytest.raises(ConfigError, match=said):
        Clippy([{"params": [weights], **options}])


def test_a_sparse_gradient_is_refused_before_any_weight_has_changed() -> None:
    table, other = nn.Embedding(10, 4, sparse=True), nn.Linear(4, 1)
    optimizer = Clippy([{"params": other.parameters()}, {"params": table.parameters()}])
    other(table(torch.tensor([1, 2]))).sum().backward()
    before = [each.detach().clone() for each in other.parameters()]
    with pytest.raises(
        InputError, match=r"parameter 0 of group 1 \(shape \[10, 4\]\) is sparse.*sparse=False"
    ):
        optimizer.step()
    assert all(torch.equal(one, two) for one, two in zip(before, other.parameters(), strict=True))


@pytest.mark.parametrize("gradient", [6e-8, 1.0, 6e4])
def test_a_float16_parameter_is_refused_before_anything_changes(gradient: float) -> None:
    fine, weights = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, dtype=torch.float16))
    fine.grad, weights.grad = torch.ones(2), torch.full((2,), gradient, dtype=torch.float16)
    with pytest.raises(InputError, match=r"parameter 1 of group 0 \(shape \[2\]\) is float16.*autocast"):
        Clippy([fine, weights], lr=0.1).step()
    assert fine.tolist() == [1.0, 1.0]
    weights = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    weights.grad = torch.full((2,), gradient, dtype=torch.bfloat16)
    Clippy([weights], lr=0.1).step()
    assert weights.isfinite().all()


def test_a_complex_parameter_is_refused() -> None:
    weights = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    weights.grad = torch.ones(2, dtype=torch.complex64)
    with pytest.raises(InputError, match="is complex"):
        Clippy([weights]).step()
