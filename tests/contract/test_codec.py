"""What every codec must do: tell its own parameters, keep samples apart, lose no more than it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor

from edldist.errors import CodecError
from edldist.labels.codec import Codec, make_codec, parse_codec
from edldist.labels.grammar import GRAMMAR, CodecSpec, parse_spec
from edldist.wire.tensors import pack, unpack

CODECS = {"dense": 0.0, "dense:fp32": 0.0, "dense:fp16": 2**-11, "dense:bf16": 2**-8}
"""As it is written -> relative error of one value."""


@pytest.fixture(params=CODECS)
def written(request) -> str:
    return request.param


@pytest.fixture
def codec(written) -> Codec:
    return parse_codec(written)


def outputs(samples: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {
        "logits": torch.randn(samples, 10, generator=generator),
        "index": torch.arange(samples),
        "mask": torch.arange(samples) % 2 == 0,
    }


def tensors_of(labels: Any) -> list[Tensor]:
    """Every tensor of decoded labels, typed ones too."""
    if isinstance(labels, Tensor):
        return [labels]
    values = labels.values() if isinstance(labels, Mapping) else vars(labels).values()
    return [tensor for value in values for tensor in tensors_of(value)]


def sent(codec: Codec, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a student gets of what a worker packed."""
    return unpack(*pack(codec.encode(given)))


def test_every_codec_that_can_be_written_is_tested_here():
    assert {parse_spec(text).name for text in CODECS} == GRAMMAR.keys()


def test_a_codec_is_made_again_from_what_its_greeting_says(codec, written):
    assert str(codec.spec) == written
    received = msgspec.msgpack.decode(msgspec.msgpack.encode(codec.spec), type=CodecSpec)
    assert received == codec.spec
    assert make_codec(received).spec == codec.spec == parse_spec(written)


@pytest.mark.parametrize("samples", [0, 1, 5])
def test_what_travels_has_its_samples_first(codec, samples):
    packed = codec.encode(outputs(samples))
    back = unpack(*pack(packed))
    assert back.keys() == packed.keys()
    assert all(tensor.shape[0] == samples for tensor in back.values())


@pytest.mark.parametrize("samples", [0, 1, 5])
def test_decoded_labels_are_those_of_the_outputs_with_samples_first(codec, samples):
    given = outputs(samples)
    labels = codec.decode(sent(codec, given))
    assert labels.keys() == given.keys()
    assert all(tensor.shape[0] == samples for tensor in tensors_of(labels))


def test_values_keep_the_stated_precision_on_their_way(codec, written):
    given = outputs(64)
    labels = codec.decode(sent(codec, given))
    torch.testing.assert_close(labels["logits"].float(), given["logits"], rtol=CODECS[written], atol=1e-7)
    assert torch.equal(labels["index"], given["index"]) and torch.equal(labels["mask"], given["mask"])


def test_rows_of_several_passes_decode_as_one(codec):
    given = outputs(6)
    parts = [sent(codec, {name: tensor[rows] for name, tensor in given.items()}) for rows in (_FRONT, _BACK)]
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    whole = codec.decode(sent(codec, given))
    assert all(map(torch.equal, tensors_of(codec.decode(joined)), tensors_of(whole)))


_FRONT, _BACK = slice(0, 2), slice(2, 6)


def test_rows_of_a_pass_decode_as_they_would_alone(codec):
    given = outputs(6)
    whole = sent(codec, given)
    part = codec.decode({name: tensor[_BACK] for name, tensor in whole.items()})
    alone = codec.decode(sent(codec, {name: tensor[_BACK] for name, tensor in given.items()}))
    assert all(map(torch.equal, tensors_of(part), tensors_of(alone)))


def test_decoding_writes_to_nothing_that_came(codec):
    came = sent(codec, outputs(4))
    before = {name: tensor.clone() for name, tensor in came.items()}
    codec.decode(came)
    assert all(torch.equal(came[name], before[name]) for name in before)


def test_non_finite_labels_pass_unchanged(codec):
    labels = codec.decode(sent(codec, {"logits": torch.tensor([[torch.nan, torch.inf, -torch.inf]])}))
    assert labels["logits"].isnan().tolist() == [[True, False, False]]
    assert labels["logits"].isinf().tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    "text", ["", "dens", "dense:", "dense:fp8", "dense:FP16", "dense:fp16:fp16", ":fp16", "topk"]
)
def test_an_unknown_codec_is_refused_with_the_choices(text):
    with pytest.raises(CodecError, match="dense"):
        parse_codec(text)


@pytest.mark.parametrize(
    "spec",
    [
        CodecSpec("topk", {"k": 3}),
        CodecSpec("dense", {"dtype": "fp8"}),
        CodecSpec("dense", {"type": "fp16"}),
        CodecSpec("dense", {"dtype": "fp16", "more": 1}),
        CodecSpec("dense:fp16"),
        CodecSpec(""),
    ],
)
def test_a_greeting_that_names_no_codec_is_refused(spec):
    with pytest.raises(CodecError, match=r"dense\[:fp32\|fp16\|bf16\]"):
        make_codec(spec)
