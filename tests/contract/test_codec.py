"""What every codec must do: name itself, keep samples first, lose no more than it says."""

from __future__ import annotations

import pytest
import torch

from edldist.errors import CodecError
from edldist.labels.codec import parse_codec
from edldist.wire.tensors import pack, unpack

CODECS = {"dense": 0.0, "dense:fp32": 0.0, "dense:fp16": 2**-11, "dense:bf16": 2**-8}
"""Name -> relative error of one value."""


@pytest.fixture(params=CODECS)
def name(request):
    return request.param


def outputs(samples: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        "logits": torch.randn(samples, 10, generator=generator),
        "index": torch.arange(samples),
        "mask": torch.arange(samples) % 2 == 0,
    }


def test_the_name_reads_back_as_the_same_codec(name):
    assert parse_codec(name).name == name


@pytest.mark.parametrize("samples", [0, 1, 5])
def test_packed_labels_travel_with_samples_first(name, samples):
    packed = parse_codec(name).encode(outputs(samples))
    back = unpack(*pack(packed))
    assert back.keys() == packed.keys()
    assert all(tensor.shape[0] == samples for tensor in back.values())


def test_values_keep_the_stated_precision(name):
    given = outputs(64)
    packed = parse_codec(name).encode(given)
    torch.testing.assert_close(packed["logits"].float(), given["logits"], rtol=CODECS[name], atol=1e-7)
    assert packed["index"] is given["index"] and packed["mask"] is given["mask"]


def test_slices_of_a_pass_are_what_each_alone_would_be(name):
    given = outputs(6)
    codec = parse_codec(name)
    whole = codec.encode(given)["logits"]
    part = codec.encode({"logits": given["logits"][2:4]})["logits"]
    assert torch.equal(whole[2:4], part)


def test_non_finite_labels_pass_unchanged(name):
    packed = parse_codec(name).encode({"logits": torch.tensor([[torch.nan, torch.inf, -torch.inf]])})
    assert packed["logits"].isnan().tolist() == [[True, False, False]]
    assert packed["logits"].isinf().tolist() == [[False, True, True]]


@pytest.mark.parametrize("text", ["", "dens", "dense:fp8", "dense:FP16", "topk"])
def test_an_unknown_codec_is_refused_with_the_choices(text):
    with pytest.raises(CodecError, match="dense"):
        parse_codec(text)
