"""Out of any kind of batch, the teacher's inputs; what is not there is named."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch

from edldist.errors import ConfigError, InputError
from edldist.student.inputs.inputs import InputSelector, TeacherInputSelector

A = torch.arange(6).reshape(3, 2)
B = torch.arange(3)
Pair = namedtuple("Pair", "image label")


@pytest.mark.parametrize(
    ("inputs", "batch", "expected"),
    [
        (None, A, {"0": A}),
        (0, A, {"0": A}),
        ("image", {"image": A, "label": B}, {"image": A}),
        (("image", "label"), {"image": A, "label": B}, {"image": A, "label": B}),
        ("image", Pair(A, B), {"image": A}),
        ("image", SimpleNamespace(image=A), {"image": A}),
        (0, (A, B), {"0": A}),
        (1, [A, B], {"0": B}),
        (-1, (A, B), {"0": B}),
        ((1, 0), (A, B), {"0": B, "1": A}),
        (lambda batch: {"x": batch["deep"][0]}, {"deep": [A]}, {"x": A}),
    ],
)
def test_inputs_are_picked_by_key_index_or_callable(inputs, batch, expected):
    chosen, samples = InputSelector(inputs)(batch)
    assert samples == 3
    assert list(chosen) == list(expected)
    assert all(chosen[name] is tensor for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("inputs", "batch", "message"),
    [
        ("imgae", {"image": A, "label": B}, "'imgae'.*keys 'image', 'label'"),
        ("imgae", Pair(A, B), "'imgae'.*Pair with fields image, label"),
        (2, (A, B), "inputs=2.*tuple of 2"),
        (1, A, "inputs=1.*Tensor"),
        ("image", {"image": "file.png"}, "'image' is a str"),
        (1, (A, [B]), "input 1 is a list of 1, not a tensor"),
        (1, (A, A.numpy()), r"input 1 is a ndarray, not a tensor: .*torch\.from_numpy"),
        (None, A.numpy(), r"the batch is a ndarray, not a tensor: .*torch\.from_numpy"),
        (None, (A, B), "say with inputs="),
        ("image", {"image": torch.tensor(1.0)}, "no dimensions"),
        ("text", {"text": []}, "input 'text' is a list of 0, not a tensor"),
        ("text", {"text": ["a", b"b"]}, "'text' begins with a str and has a bytes as entry 1"),
        ("text", {"text": ["a", 3]}, "'text' begins with a str and has a int as entry 1"),
        ("text", {"text": ["a", "\ud800"]}, "'text' has text that is no Unicode"),
        (("text", "label"), {"text": ["a", "b"], "label": B}, "first dimension.*'text': 2, 'label': 3"),
        (("image", "label"), {"image": A, "label": B[:2]}, "first dimension.*'image': 3, 'label': 2"),
        (lambda batch: A, A, "callable returned a Tensor"),
        (lambda batch: {}, A, "must return a dict"),
        (lambda batch: {0: A}, A, "must return a dict"),
    ],
)
def test_what_a_batch_lacks_is_named(inputs, batch, message):
    with pytest.raises(InputError, match=message):
        InputSelector(inputs)(batch)


@pytest.mark.parametrize("inputs", [(), "", ("a", "a"), (1.5,), 1.5, True, ("a", None)])
def test_inputs_that_name_nothing_are_refused(inputs):
    with pytest.raises(ConfigError, match="inputs="):
        InputSelector(inputs)


def test_every_teacher_may_see_something_of_its_own():
    select = TeacherInputSelector({"a": "image", "b": lambda batch: {"x": batch["label"][:2]}}, ("b", "a"))
    seen = select({"image": A, "label": B})
    assert (list(seen.tensors), seen.samples, list(seen.apart)) == (["image"], 3, ["b"])
    assert seen.tensors["image"] is A
    assert (seen.apart["b"][0]["x"].tolist(), seen.apart["b"][1]) == ([0, 1], 2)


def test_all_teachers_see_the_same_without_a_mapping():
    seen = TeacherInputSelector("image", ("a", "b"))({"image": A})
    assert (seen.tensors["image"] is A, seen.samples, seen.apart) == (True, 3, {})


@pytest.mark.parametrize("inputs", [{}, {"a": "image"}, {"a": 0, "b": 1, "c": 2}, {"a": 0, 3: 1}])
def test_inputs_of_other_teachers_than_there_are_are_refused(inputs):
    with pytest.raises(ConfigError, match=r"inputs has entries for \[.*teachers are \['a', 'b'\]"):
        TeacherInputSelector(inputs, ("a", "b"))
