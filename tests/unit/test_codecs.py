"""Dense labels: dtypes, and values that a smaller type cannot hold."""

from __future__ import annotations

import pytest
import torch

from edldist.errors import CodecError
from edldist.labels.codec import parse_codec


@pytest.mark.parametrize(
    ("codec", "dtype"),
    [("dense:fp32", torch.float32), ("dense:fp16", torch.float16), ("dense:bf16", torch.bfloat16)],
)
def test_only_floating_point_outputs_are_cast(codec, dtype):
    packed = parse_codec(codec).encode({"x": torch.ones(2, dtype=torch.float64), "n": torch.ones(2).int()})
    assert packed["x"].dtype == dtype
    assert packed["n"].dtype == torch.int32


def test_plain_dense_hands_tensors_through():
    x = torch.ones(2, dtype=torch.float64)
    codec = parse_codec("dense")
    assert codec.encode({"x": x})["x"] is x
    assert codec.decode({"x": x})["x"] is x


def test_values_beyond_fp16_are_refused_instead_of_becoming_infinite():
    with pytest.raises(CodecError, match=r"'x'.*7e\+04.*bf16"):
        parse_codec("dense:fp16").encode({"x": torch.tensor([1.0, -70_000.0, torch.inf])})
    assert parse_codec("dense:bf16").encode({"x": torch.tensor([70_000.0])})["x"].isfinite().all()


def test_packing_alone_looks_at_no_value_and_marks_what_it_cannot_hold():
    outputs = {"x": torch.tensor([1.0, 70_000.0]), "n": torch.ones(2).int()}
    codec = parse_codec("dense:fp16")
    assert codec.pack(outputs)["x"].isfinite().tolist() == [True, False]
    assert codec.pack({"x": torch.empty(2, device="meta")})["x"].dtype == torch.float16
    with pytest.raises(CodecError, match="beyond fp16"):
        codec.check(outputs)
    codec.check({"x": torch.tensor([torch.inf, 1.0])})
