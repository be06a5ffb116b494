"""Averages of a model's weights: their numbers, their dtypes, and how they go on."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from edldist import WeightAverage
from edldist.errors import CheckpointError, ConfigError


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(x))


def test_the_first_updates_make_the_mean_and_later_ones_decay() -> None:
    """d = min(decay, 1 - 1 / (n + 1)): 0, 1/2, 2/3, and then 0.7 (Tarvainen and Valpola, 2017)."""
    torch.manual_seed(1)
    model = nn.Linear(3, 2).double()
    average = WeightAverage(model, decay=0.7)
    seen = []
    wanted = torch.zeros(())
    for step in range(8):
        with torch.no_grad():
            model.weight.normal_()
        average.update()
        seen.append(model.weight.detach().clone())
        decay = min(0.7, 1 - 1 / (step + 1))
        wanted = decay * wanted + (1 - decay) * seen[-1]
        assert torch.allclose(average.weights["weight"], wanted, rtol=0, atol=1e-14)
        if step <= 2:
            assert torch.allclose(average.weights["weight"], torch.stack(seen).mean(0), rtol=0, atol=1e-14)


def test_an_average_is_apart_from_its_model_and_in_its_dtypes() -> None:
    model = Small().to(torch.bfloat16)
    average = WeightAverage(model, decay=0.999)
    before = average.weights
    assert all(before[name].dtype == tensor.dtype for name, tensor in model.state_dict().items())
    with torch.no_grad():
        model.layer.weight.add_(1.0)
        model.norm.num_batches_tracked.fill_(7)
    assert torch.equal(average.weights["layer.weight"], before["layer.weight"])
    average.update()
    assert average.weights["norm.num_batches_tracked"] == 7
    assert average._average["layer.weight"].dtype == torch.float32


def test_small_steps_of_half_precision_are_not_lost() -> None:
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        model.weight.fill_(1.0)
    average = WeightAverage(model, decay=0.999)
    for _ in range(2000):
        average.update()
    with torch.no_grad():
        model.weight.fill_(2.0)
    for _ in range(1000):
        average.update()
    assert average.weights["weight"].item() == pytest.approx(2 - 0.999**1000, abs=0.01)


def test_an_average_goes_on_from_its_state() -> None:
    torch.manual_seed(2)
    model = nn.Linear(3, 2)
    one = WeightAverage(model, decay=0.9)
    one.update()
    state = copy.deepcopy(one.state_dict())
    other = WeightAverage(nn.Linear(3, 2), decay=0.9)
    other.load_state_dict(state)
    other._model = model
    for average in (one, other):
        average.update()
    assert torch.equal(one.weights["weight"], other.weights["weight"])
    with pytest.raises(CheckpointError, match="of another model: one of both lacks"):
        WeightAverage(Small()).load_state_dict(state)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan"), True, "0.9", None])
def test_a_decay_that_cannot_be_is_refused(decay: Any) -> None:
    with pytest.raises(ConfigError, match=r"WeightAverage\(decay="):
        WeightAverage(nn.Linear(1, 1), decay)


def test_an_average_of_no_module_is_refused() -> None:
    with pytest.raises(ConfigError, match="WeightAverage of a dict"):
        WeightAverage({})  # type: ignore[arg-type]


def test_what_was_given_out_is_no_part_of_the_average() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, decay=0.0)
    before = average.weights
    with torch.no_grad():
        model.weight.add_(1.0)
    average.update()
    assert torch.equal(before["weight"] + 1.0, average.weights["weight"])
    assert torch.equal(average.weights["weight"], model.weight), "without decay it is the model itself"


def test_a_saved_average_has_as_many_updates_as_it_had() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, decay=0.9)
    average.update()
    again = WeightAverage(model, decay=0.9)
    again.load_state_dict(average.state_dict())
    with torch.no_grad():
        model.weight.fill_(8.0)
    for each in (average, again):
        each.update()
    assert torch.equal(again.weights["weight"], average.weights["weight"])
    assert not torch.equal(again.weights["weight"], model.weight), "the mean of two"


def test_the_first_name_by_which_another_model_differs_is_told() -> None:
    state = WeightAverage(nn.Linear(1, 1)).state_dict()
    with pytest.raises(CheckpointError, match=r"one of both lacks bias$"):
        WeightAverage(Small()).load_state_dict(state)


def test_state_that_is_no_tensor_has_no_average() -> None:
    class Noted(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 3}

    average = WeightAverage(Noted(1, 1))
    average.update()
    assert sorted(average.weights) == ["bias", "weight"]
