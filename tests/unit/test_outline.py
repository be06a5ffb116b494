"""Which errors of a model come from the form of its inputs, and which from what they hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edldist.errors import ContractError, ModelError
from edldist.teacher.model.outline import _outline, raises_without_values
from edldist.teacher.model.teacher import Teacher

CPU = torch.device("cpu")


class Checked(nn.Module):
    """A linear layer behind a check, which raises what it does not like."""

    def __init__(self, check: Callable[..., None]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("scale", torch.ones(3))
        self.check = check

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden = self.layer(x) * self.scale
        self.check(hidden, mask)
        return hidden


def raised_by(model: nn.Module, *inputs: Any) -> Exception:
    with pytest.raises(Exception) as caught, torch.inference_mode():  # noqa: B017
        model(*inputs)
    return caught.value


def without_mask(hidden: Tensor, mask: Tensor | None) -> None:
    if mask is None:
        raise ValueError("you have to specify a mask")


def with_none(hidden: Tensor, mask: Any) -> None:
    hidden * mask.unsqueeze(1)  # AttributeError: nobody looked whether it is there


def other_width(hidden: Tensor, mask: Tensor | None) -> None:
    if hidden.shape[1] != 7:
        raise ValueError(f"expected [samples, 7], got {list(hidden.shape)}")


@pytest.mark.parametrize("check", [without_mask, with_none, other_width])
@pytest.mark.parametrize("samples", [1, 5])
def test_an_error_of_form_is_raised_without_values_too(check: Callable[..., None], samples: int) -> None:
    model, x = Checked(check), torch.rand(samples, 4)
    error = raised_by(model, x)
    with torch.inference_mode():
        assert raises_without_values(model, [x], {}, error)
        assert raises_without_values(model, [], {"x": x}, error)


def on_sight(hidden: Tensor, mask: Tensor | None) -> None:
    if hidden.isfinite().all():
        raise ValueError("it is finite")


def odd_numbers(hidden: Tensor, mask: Tensor | None) -> None:
    if hidden.shape[0] % 2:
        raise ValueError("an even number of samples, please")


def at_first() -> Callable[..., None]:
    calls = itertools.count()

    def check(hidden: Tensor, mask: Tensor | None) -> None:
        if next(calls) == 0:
            raise ValueError("not now")

    return check


def counted() -> Callable[..., None]:
    calls = itertools.count()

    def check(hidden: Tensor, mask: Tensor | None) -> None:
        raise ValueError(f"attempt {'abcdefgh'[next(calls)]}")

    return check


@pytest.mark.parametrize("check", [on_sight, odd_numbers, at_first(), counted()])
def test_an_error_that_another_attempt_may_not_meet_is_none_of_form(check: Callable[..., None]) -> None:
    model, x = Checked(check), torch.rand(5, 4)
    assert not raises_without_values(model, [x], {}, raised_by(model, x))


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError("labels.txt"),
        ConnectionError("the service does not answer"),
        ImportError("no tokenizer here"),
        MemoryError("of this machine"),
        RuntimeError("the service is busy"),
        torch.OutOfMemoryError("of this device"),
    ],
)
def test_an_error_of_the_machine_is_none_of_form(error: Exception) -> None:
    def check(hidden: Tensor, mask: Tensor | None) -> None:
        raise error

    model, x = Checked(check), torch.rand(5, 4)
    assert not raises_without_values(model, [x], {}, raised_by(model, x))


def test_a_model_that_cannot_be_copied_or_is_none_and_texts_are_left_alone() -> None:
    model, x = Checked(without_mask), torch.rand(5, 4)
    error = raised_by(model, x)
    assert raises_without_values(model, [x], {}, error)
    assert not raises_without_values(model, [["a", "b"]], {}, error)
    assert not raises_without_values(model, [], {}, error)
    assert not raises_without_values(lambda x: x, [x], {}, error)
    model.generator = (each for each in "abc")
    assert not raises_without_values(model, [x], {}, error)


def test_the_model_is_left_as_it_was() -> None:
    model, x = Checked(without_mask), torch.rand(5, 4)
    weight, scale = model.layer.weight, model.scale
    before = [value.clone() for value in (weight.detach(), scale)]
    raises_without_values(model, [x], {}, raised_by(model, x))
    assert model.layer.weight is weight and model.scale is scale
    assert all(torch.equal(a, b) for a, b in zip(before, (weight.detach(), scale), strict=True))


def test_what_a_module_keeps_beside_its_weights_is_not_copied_either() -> None:
    model, x = Checked(without_mask), torch.rand(5, 4)
    model.table = torch.ones(1000)  # no buffer
    model.tables = {"a": torch.ones(1000), "b": np.ones(1000)}
    error = raised_by(model, x)
    copied: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "__deepcopy__", lambda self, memo: copied.append(self))
        assert raises_without_values(model, [x], {}, error)
        outline = _outline(model)
    assert copied == []
    assert outline.table.is_meta and outline.tables["a"].is_meta and model.table.device == CPU
    assert outline.tables["b"] is model.tables["b"]
    assert outline.tables is not model.tables


def test_a_tied_weight_is_tied_in_the_outline_too() -> None:
    class Tied(Checked):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            if self.layer.weight is not self.head.weight:
                raise ValueError("not tied")
            raise ValueError("tied")

    model = Tied(without_mask)
    model.head = nn.Linear(4, 3)
    model.head.weight = model.layer.weight
    x = torch.rand(5, 4)
    assert raises_without_values(model, [x], {}, raised_by(model, x))


def teacher(check: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Teacher:
    import tests.models

    monkeypatch.setattr(tests.models, "Checked", lambda: Checked(check), raising=False)
    return Teacher("tests.models:Checked", CPU)


def test_a_teacher_says_what_it_cannot_be_called_with_and_what_the_model_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    says = r"\('x'\): it refuses them whatever they hold, with ValueError: you have to specify a mask\. Pick"
    with pytest.raises(ContractError, match=says) as caught:
        teacher(without_mask, monkeypatch)({"x": torch.rand(5, 4)})
    assert str(caught.value).endswith("ValueError: you have to specify a mask")
    assert "teacher/model.py" not in str(caught.value)


def test_a_teacher_that_has_labelled_blames_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = teacher(without_mask, monkeypatch)
    labels({"x": torch.rand(5, 4), "mask": torch.ones(5)})
    with pytest.raises(ModelError, match="raised:") as caught:
        labels({"x": torch.rand(5, 4)})
    assert not isinstance(caught.value, ContractError)


def test_lack_of_memory_is_no_matter_of_form(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(hidden: Tensor, mask: Tensor | None) -> None:
        raise torch.OutOfMemoryError("on purpose")

    with pytest.raises(torch.OutOfMemoryError):
        teacher(check, monkeypatch)({"x": torch.rand(5, 4)})
