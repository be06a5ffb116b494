"""Texts and bytes as rows of tensors: they come back as they were, and what is no text is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.errors import WireError
from edldist.student.batch.teacher_inputs import TeacherInputs
from edldist.student.inputs.inputs import InputSelector
from edldist.wire.messages import TensorSpec
from edldist.wire.tensors import check, unpack
from edldist.wire.texts import TextName, are_texts, even, pack_texts, unpack_texts

TEXT = st.text(st.characters(codec="utf-8"), max_size=300)


@settings(max_examples=50, deadline=None)
@given(st.one_of(st.lists(TEXT, min_size=1), st.lists(st.binary(max_size=300), min_size=1)))
def test_what_is_packed_comes_back(values):
    name, rows = pack_texts("prompt", values)
    assert name == "prompt" and name.kind == type(values[0]).__name__
    assert rows.shape[0] == len(values) and rows.dtype == torch.uint8
    assert unpack_texts(name, rows) == values


@pytest.mark.parametrize("values", [["é", "", "a longer one"], [b"\x00\xff", b""] * 3])
@pytest.mark.parametrize("cut", [(0, 1), (1, 3), (0, 3)])
def test_a_cut_of_what_a_teacher_sees_travels_typed(values, cut):
    chosen, samples = InputSelector("x")({"x": values})
    inputs = TeacherInputs(chosen, samples)
    ((name, dtype, shape),) = inputs.layout
    assert (name, dtype) == ("x", type(values[0]).__name__)
    spec = TensorSpec(name=name, dtype=dtype, shape=[cut[1] - cut[0], *shape])
    (frame,) = inputs.cut(*cut)
    with pytest.raises(WireError, match=f"unknown dtype '{dtype}'"):
        check(spec, frame)  # as of labels, which have none
    ((name, rows),) = unpack([spec], [memoryview(bytes(frame))], texts=True).items()
    assert unpack_texts(name, rows) == values[slice(*cut)]


def test_batches_of_like_lengths_have_one_layout_and_can_share_a_pass():
    widths = {pack_texts("x", ["a" * length])[1].shape[1] for length in range(33, 60)}
    assert widths == {64}
    assert pack_texts("x", ["a" * 5000])[1].shape[1] == 8192


def test_parts_of_other_widths_are_made_even():
    values = ["a", "b" * 100], ["c" * 5000]
    parts = [dict([pack_texts("x", texts), ("label", torch.ones(len(texts), 2))]) for texts in values]
    joined = {name: torch.cat([part[name] for part in even(parts)]) for name in parts[0]}
    assert joined["label"].shape == (3, 2)
    (name,) = (name for name in joined if isinstance(name, TextName))
    assert unpack_texts(name, joined["x"]) == [*values[0], *values[1]]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (torch.zeros(2, 3, dtype=torch.uint8), r"uint8\[2, 3\]"),
        (torch.zeros(2, dtype=torch.uint8), r"uint8\[2\]"),
        (torch.zeros(2, 8), r"float32\[2, 8\]"),
        (torch.tensor([[0, 0, 0, 0, 0], [2, 0, 0, 0, 65]], dtype=torch.uint8), "entry 1 .* has 2 bytes in 1"),
        (torch.full((1, 8), 255, dtype=torch.uint8), "has 4294967295 bytes in 4"),
        (torch.tensor([[1, 0, 0, 0, 255]], dtype=torch.uint8), "no UTF-8"),
    ],
)
def test_rows_that_are_no_texts_are_refused(rows, says):
    with pytest.raises(WireError, match=says):
        unpack_texts(TextName("x", "str"), rows)


def test_what_counts_as_texts():
    assert are_texts(["a"]) and are_texts((b"",)) and are_texts(["a", 3])
    assert not any(map(are_texts, ([], "text", b"bytes", [1], {"a": 1}, None, torch.zeros(1))))
