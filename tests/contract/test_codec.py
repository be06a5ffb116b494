"""What every codec must do: tell its own parameters, keep samples apart, lose no more than it says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn

from edldist.errors import CodecError, LabelError, UnfitCodecError
from edldist.labels.codec import make_codec, parse_codec
from edldist.labels.distributions import is_distribution
from edldist.labels.gather import GATHER_IDS
from edldist.labels.grammar import GRAMMAR, CodecSpec, parse_spec
from edldist.labels.packing import Codec
from edldist.labels.typed import GatheredLabels, HiddenLabels, Labels, SampledLabels
from edldist.wire.tensors import pack, unpack

V, D, G = 40, 6, 3

CODECS = {
    **{"dense": 1e-12, "dense:fp32": 1e-12, "dense:fp16": 1e-5, "dense:bf16": 2e-4, "int8": 2e-4},
    **{"dense:fp16:softmax": 1e-5, "dense:bf16:softmax": 1e-5},
    **{"topk:8": 3e-4, "topk:40": 3e-4, "topk:8:2.5": 3e-4, "topp:0.9:12": 3e-4, "topp:1:8:0.5": 3e-4},
    **{"rs:400": 2e-1, "rs:400:2": 2e-1, "head+rs:4:400": 5e-2, "head+rs:4:400:0.5": 5e-2},
    **{"gather": 1e-9, "gather:3": 1e-9, "hidden": 1e-4},
}
"""As it is written -> nats of KL divergence from what the model said to what the loop gets."""

CAST = {name for name in CODECS if name.startswith("dense:")} - {"dense:fp32"}
TYPED = {name for name in CODECS if not name.startswith(("dense", "int8"))}


class Head(nn.Module):
    """A model with a head, of which ``hidden`` needs to know."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.head = nn.Linear(D, V)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(V, D, generator=generator))


MODEL = Head()


@pytest.fixture(params=CODECS)
def written(request) -> str:
    return request.param


@pytest.fixture
def codec(written) -> Codec:
    return parse_codec(written).serving(MODEL)


def outputs(samples: int, *positions: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    hidden = torch.randn(samples, *positions, D, generator=generator)
    with torch.no_grad():
        logits = MODEL.head(hidden)
    return {
        "logits": logits,
        "hidden": hidden,
        "index": torch.arange(samples),
        "mask": torch.arange(samples) % 2 == 0,
    }


def asked(samples: int, *positions: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(8)
    return {GATHER_IDS: torch.randint(0, V, (samples, *positions, G), generator=generator)}


def tensors_of(labels: Any) -> list[Tensor]:
    """Every tensor of decoded labels, typed ones too."""
    if isinstance(labels, Tensor):
        return [labels]
    if isinstance(labels, Mapping):
        values = list(labels.values())
    else:
        values = [getattr(labels, field.name) for field in dataclasses.fields(labels)]
    return [
        tensor for value in values if not isinstance(value, str | int | float) for tensor in tensors_of(value)
    ]


def sent(
    codec: Codec, given: Mapping[str, Tensor], about: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """What a student gets of what a worker packed."""
    samples = given["index"].shape[0] if "index" in given else 1
    return unpack(*pack(codec.encode(given, asked(samples) if about is None else about, fixed=True)))


def log_probs_of(labels: Labels) -> Tensor:
    """All log-probabilities, as far as they are in the labels."""
    if isinstance(labels, Tensor):
        return labels.double().log_softmax(-1)
    if isinstance(labels, HiddenLabels):
        return labels.logits(MODEL.head.weight, MODEL.head.bias).double().log_softmax(-1)
    if isinstance(labels, SampledLabels):
        return labels.dense().double().log()
    return labels.dense().double()


def kl(log_p: Tensor, log_q: Tensor) -> float:
    p = log_p.exp()
    return (p * (log_p - log_q)).where(p > 0, 0.0).sum(-1).mean().item()


def test_every_codec_that_can_be_written_is_tested_here():
    assert {parse_spec(text).name for text in CODECS} == GRAMMAR.keys()


def test_a_codec_is_made_again_from_what_its_greeting_says(codec, written):
    assert str(codec.spec) == written
    received = msgspec.msgpack.decode(msgspec.msgpack.encode(codec.spec), type=CodecSpec)
    assert received == codec.spec
    assert make_codec(received).spec == codec.spec == parse_spec(written)


@pytest.mark.parametrize("samples", [0, 1, 5])
@pytest.mark.parametrize("positions", [(), (2,), (2, 3)])
def test_what_travels_has_its_samples_first(codec, samples, positions):
    packed = codec.encode(outputs(samples, *positions), asked(samples, *positions))
    back = unpack(*pack(packed))
    assert back.keys() == packed.keys()
    assert all(tensor.shape[0] == samples for tensor in back.values())


@pytest.mark.parametrize("samples", [0, 1, 5])
@pytest.mark.parametrize("positions", [(), (2,), (2, 3)])
def test_decoded_labels_are_those_of_the_outputs_with_samples_first(codec, samples, positions):
    given = outputs(samples, *positions)
    labels = make_codec(codec.spec).decode(sent(codec, given, asked(samples, *positions)))
    assert labels.keys() == given.keys()
    for name in ("logits", "hidden"):
        for tensor in tensors_of(labels[name]):
            assert tensor.shape[: 1 + len(positions)] == (samples, *positions)
            assert not tensor.requires_grad and not tensor.is_inference()


def test_labels_without_rows_are_what_is_cut_off_labels_with_some(codec):
    whole = sent(codec, outputs(3))
    none = codec.decode({name: torch.empty_like(tensor[:0]) for name, tensor in whole.items()})
    some = codec.decode(whole)
    for mine, theirs in zip(tensors_of(none), tensors_of(some), strict=True):
        assert mine.shape == (0, *theirs.shape[1:]) and mine.dtype == theirs.dtype


def test_values_keep_the_stated_precision_on_their_way(codec, written):
    given = outputs(64)
    labels = codec.decode(sent(codec, given))
    softened = (given["logits"].double() / dict(codec.spec.parameters).get("temperature", 1)).log_softmax(-1)
    got = labels["hidden"] if isinstance(labels["hidden"], HiddenLabels) else labels["logits"]
    if isinstance(got, GatheredLabels):
        ids = asked(64)[GATHER_IDS]
        torch.testing.assert_close(got.log_probs, softened.gather(-1, ids).float(), rtol=1e-6, atol=1e-6)
        inside = torch.zeros_like(softened).scatter_(-1, ids, 1.0) > 0
        outside = softened.masked_fill(inside, -torch.inf).logsumexp(-1)
        torch.testing.assert_close(got.log_outside, outside.float(), rtol=1e-6, atol=1e-6)
    elif isinstance(got, SampledLabels):
        assert ((got.dense() - softened.exp()) ** 2).sum(-1).sqrt().mean() < CODECS[written]
        torch.testing.assert_close(got.probs.sum(-1), torch.ones(64))
    else:
        whole = log_probs_of(got)
        if written.startswith("top"):
            # Of the tail its mass is known, so that is what is compared.
            kept = torch.zeros_like(whole, dtype=torch.bool).scatter_(-1, got.ids, ~got.log_probs.isneginf())
            softened, whole = (
                torch.cat([each.masked_fill(~kept, -torch.inf), rest.unsqueeze(-1)], dim=-1)
                for each, rest in (
                    (softened, softened.masked_fill(kept, -torch.inf).logsumexp(-1)),
                    (whole, got.log_tail.double()),
                )
            )
            torch.testing.assert_close(whole.logsumexp(-1), torch.zeros(64).double(), rtol=0, atol=1e-6)
        assert 0 <= kl(softened, whole) + 1e-9 < CODECS[written] + 1e-9
    assert torch.equal(labels["index"], given["index"]) and torch.equal(labels["mask"], given["mask"])


def test_rows_of_several_passes_decode_as_one(codec):
    given, about = outputs(6), asked(6)
    parts = [sent(codec, cut(given, rows), cut(about, rows)) for rows in (_FRONT, _BACK)]
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    whole = codec.decode(sent(codec, given))
    assert all(map(torch.equal, tensors_of(codec.decode(joined)), tensors_of(whole)))


_FRONT, _BACK = slice(0, 2), slice(2, 6)


def cut(tensors: Mapping[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {name: tensor[rows] for name, tensor in tensors.items()}


def test_rows_of_a_pass_decode_as_they_would_alone(codec):
    given, about = outputs(6), asked(6)
    whole = sent(codec, given)
    part = codec.decode(cut(whole, _BACK))
    alone = codec.decode(sent(codec, cut(given, _BACK), cut(about, _BACK)))
    assert all(map(torch.equal, tensors_of(part), tensors_of(alone)))


def test_decoding_writes_to_nothing_that_came(codec):
    came = sent(codec, outputs(4))
    before = {name: tensor.clone() for name, tensor in came.items()}
    codec.decode(came)
    assert all(torch.equal(came[name], before[name]) for name in before)


def test_packing_looks_at_no_value_so_that_no_device_is_waited_for(codec):
    given = {name: tensor.to("meta") for name, tensor in outputs(4).items()}
    packed, sound = codec.pack(
        given, {name: tensor.to("meta") for name, tensor in asked(4).items()}, fixed=False
    )
    fixed = codec.pack(given, {name: tensor.to("meta") for name, tensor in asked(4).items()}, fixed=True)
    real = codec.encode(outputs(4), asked(4))
    assert list(packed) == list(fixed.tensors) == list(real)
    assert all(packed[name].shape == real[name].shape and packed[name].is_meta for name in real)
    assert sound is None or (sound.is_meta and sound.shape == ())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_packing_on_a_gpu_waits_for_nothing(codec):
    given = {name: tensor.cuda() for name, tensor in outputs(4).items()}
    about = {name: tensor.cuda() for name, tensor in asked(4).items()}
    codec.pack(given, about, fixed=True)  # libraries wait when they are loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        packed = codec.pack(given, about, fixed=True).tensors
        codec.pack(given, about)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert packed.keys() == codec.encode(outputs(4), asked(4)).keys()


def test_packing_leaves_what_the_model_returned_as_it_was(codec):
    given, about = outputs(5), asked(5)
    before = {name: tensor.clone() for name, tensor in given.items()}
    packed = codec.pack(given, about).tensors
    assert all(torch.equal(given[name], before[name]) for name in before)
    assert not any(tensor.requires_grad for tensor in packed.values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_outputs_of_any_float_type_travel(codec, dtype):
    given = {n: t.to(dtype) if t.is_floating_point() else t for n, t in outputs(5).items()}
    if dtype.itemsize == 1 and not codec.spec.name.startswith("dense"):
        sound = codec.pack(given, asked(5)).sound
        assert sound is None or bool(sound)
        return
    labels = codec.decode(sent(codec, given))
    softened = (given["logits"].double() / dict(codec.spec.parameters).get("temperature", 1)).log_softmax(-1)
    if isinstance(labels["logits"], GatheredLabels):
        expected = softened.gather(-1, asked(5)[GATHER_IDS]).float()
        torch.testing.assert_close(labels["logits"].log_probs, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_outputs_may_lie_in_any_order_and_be_of_a_graph(codec, requires_grad):
    given, about = outputs(4, 5), asked(4, 5)
    turned = dict(given)
    for name in ("logits", "hidden"):
        turned[name] = given[name].transpose(0, 1).contiguous().transpose(0, 1).requires_grad_(requires_grad)
    expected = codec.decode(sent(codec, given, about))
    got = codec.decode(sent(codec, turned, about))
    assert all(map(torch.equal, tensors_of(got), tensors_of(expected)))


def test_non_finite_logits_pass_unchanged_or_are_named_by_sample_and_position(codec, written):
    given, about = outputs(3, 5), asked(3, 5)
    name = "hidden" if written == "hidden" else "logits"
    for value in (torch.nan, torch.inf):
        bad = {each: tensor.clone() for each, tensor in given.items()}
        bad[name][1, 4, 2] = value
        packed, sound = codec.pack(bad, about)
        if written.startswith("dense"):
            assert sound is None
            row = packed["logits"][1, 4]
            assert row[2].isnan() if value != value else row[2].isinf()
            assert row.isfinite().sum() == V - 1 and packed["logits"].isfinite().sum() == 15 * V - 1
            continue
        assert sound is not None and not sound
        with pytest.raises(
            CodecError, match=rf"'{name}'.*sample 1 of the task, position 4 \(in 1 of 15 rows\)"
        ):
            codec.encode(bad, about)
        codec.check(given, about)
        assert bool(codec.pack(given, about).sound)


def test_a_class_at_minus_infinity_has_no_probability(codec, written):
    if written == "hidden":
        return  # there are no logits in what travels
    given = outputs(3)
    given["logits"][:, 4:36] = -torch.inf  # eight are left
    given["logits"][2, 5:] = -torch.inf
    given["logits"][2, :4] = -torch.inf
    given["logits"][2, 4] = 3.0  # one class alone
    packed, sound = codec.pack(given, asked(3), fixed=True)
    assert sound is None or bool(sound)
    codec.check(given, asked(3))
    labels = codec.decode(unpack(*pack(packed)))["logits"]
    if isinstance(labels, GatheredLabels):
        ids = asked(3)[GATHER_IDS]
        expected = (given["logits"] / dict(codec.spec.parameters).get("temperature", 1)).log_softmax(-1)
        torch.testing.assert_close(labels.log_probs, expected.gather(-1, ids))
        return
    probs = log_probs_of(labels).exp()
    assert probs[2, 4] == pytest.approx(1) and probs[2].sum() == pytest.approx(1)
    if not written.startswith("topp"):  # its tail has some of the others
        assert (probs[:2, 4:36] == 0).all()
    assert not any(tensor.isnan().any() for tensor in tensors_of(labels) if tensor.is_floating_point())


def test_a_row_that_has_no_class_left_is_refused(codec, written):
    given = outputs(3)
    given["logits"][1] = -torch.inf
    if written in ("hidden", *(name for name in CODECS if name.startswith("dense"))):
        return  # logits travel as they are, and labels that are not finite are refused elsewhere
    assert not codec.pack(given, asked(3)).sound
    with pytest.raises(CodecError, match=r"sample 1 of the task \(in 1 of 3 rows\)"):
        codec.check(given, asked(3))


def test_fixed_labels_depend_on_nothing_but_the_outputs(codec):
    given = outputs(50)
    torch.manual_seed(1)
    first = codec.pack(given, asked(50), fixed=True).tensors
    torch.manual_seed(2)
    again = parse_codec(str(codec.spec)).serving(MODEL).pack(given, asked(50), fixed=True).tensors
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_vocabulary_is_in_the_name_of_what_travels(codec, written):
    given = outputs(2)
    names = set(codec.encode(given, asked(2)))
    others = dict(given, logits=torch.cat([given["logits"], given["logits"]], dim=-1))
    about = asked(2)
    model = Head()
    model.head.weight.data *= 2
    changed = set(parse_codec(written).serving(model).encode(others, about))
    assert (names != changed) == (written not in ("dense", "dense:fp32", *CAST))


@pytest.mark.parametrize("written", sorted(TYPED))
def test_a_model_without_what_a_codec_packs_is_told_what_it_has(written):
    codec = parse_codec(written).serving(MODEL)
    with pytest.raises(UnfitCodecError, match=r"packs (logits|hidden).*'features' \[2, 3\], 'scores' \[2\]"):
        codec.pack({"features": torch.zeros(2, 3), "scores": torch.zeros(2)}, asked(2))


@pytest.mark.parametrize("written", sorted(TYPED | {"int8"}))
def test_an_output_that_is_named_as_something_packed_is_refused(written):
    codec = parse_codec(written).serving(MODEL)
    with pytest.raises(UnfitCodecError, match=r"'logits\.topk@40'.*Call it otherwise"):
        codec.pack(outputs(2) | {"logits.topk@40": torch.zeros(2, dtype=torch.int32)}, asked(2))


@pytest.mark.parametrize("written", sorted(TYPED | {"int8"}))
def test_what_came_and_was_never_packed_is_refused(written):
    codec = parse_codec(written).serving(MODEL)
    whole = sent(codec, outputs(2))
    name = next(name for name in whole if "@" in name)
    for wrong in ({name: whole[name].double()}, {name.replace(".", ".no"): whole[name]}):
        with pytest.raises(LabelError, match=r"labels '.*@"):
            codec.decode(wrong)


@pytest.mark.parametrize(
    "written", sorted(name for name in TYPED if not name.startswith(("gather", "hidden")))
)
def test_rows_of_another_width_are_refused(written):
    codec = parse_codec(written)
    ((name, tensor),) = codec.encode({"logits": outputs(2)["logits"]}).items()
    with pytest.raises(LabelError, match=rf"must be torch.uint8 with {tensor.shape[-1]} columns"):
        codec.decode({name: tensor[:, :-1]})


def test_every_distribution_of_a_model_is_packed_and_nothing_else():
    given = {
        "logits": torch.randn(2, 7),
        "aux_logits": torch.randn(2, 3, 9),
        "few_logits": torch.randn(2),
        "logits_of_sorts": torch.randn(2, 7),
        "count_logits": torch.ones(2, 7, dtype=torch.int64),
    }
    assert {name for name, tensor in given.items() if is_distribution(name, tensor)} == {
        "logits",
        "aux_logits",
    }
    codec = parse_codec("topk:2")
    packed = codec.encode(given)
    assert packed.keys() == given.keys() - {"logits", "aux_logits"} | {"logits.topk@7", "aux_logits.topk@9"}
    assert codec.decode(packed)["aux_logits"].ids.shape == (2, 3, 2)


@pytest.mark.parametrize(
    "text",
    [
        *("", "dens", "dense:", "dense:fp8", "dense:FP16", "dense:fp16:fp16", ":fp16"),
        *("topk", "topk:8:2:2", "rs", "head+rs:3", "int8:2", "hidden:3", "topp:3"),
    ],
)
def test_an_unknown_codec_is_refused_with_the_choices(text):
    known = text.partition(":")[0]
    with pytest.raises(
        CodecError, match=known.replace("+", r"\+") if known in GRAMMAR else r"dense.*topk:K\[:T\]"
    ):
        parse_codec(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("topk:0", "K is '0', and has to be a whole number from 1 to 65,536. Write it as topk:K[:T]"),
        ("topk:65537", "K is '65537', and has to be"),
        ("topk:8.5", "K is '8.5', and has to be"),
        ("topk:-3", "K is '-3', and has to be"),
        ("topk:8:0", "T is '0', and has to be a number from 0.01 to 1000. Write it as topk:K[:T]"),
        ("topk:8:nan", "T is 'nan', and has to be"),
        ("topk:8:1e9", "T is '1e9', and has to be"),
        ("topp:0:8", "P is '0', and has to be a number above 0, up to 1. Write it as topp:P:K[:T]"),
        ("topp:1.01:8", "P is '1.01', and has to be"),
        ("rs:zero", "N is 'zero', and has to be a whole number from 1 to 65,536. Write it as rs:N[:T]"),
        ("head+rs:8:0", "N is '0', and has to be a whole number from 1 to 65,536"),
        ("gather:x", "T is 'x', and has to be a number from 0.01 to 1000. Write it as gather[:T]"),
        ("dense:fp8", "'fp8' is none of fp32, fp16, bf16. Write it as dense[:fp32|fp16|bf16][:softmax]"),
    ],
)
def test_a_parameter_out_of_range_is_named_with_its_range(text, words):
    with pytest.raises(CodecError) as caught:
        parse_codec(text)
    assert words in str(caught.value)


def test_two_ways_to_write_a_codec_are_one_codec():
    assert parse_spec("topk:8:1") == parse_spec("topk:8:1.0") == parse_spec("topk:08") == parse_spec("topk:8")
    assert parse_spec("gather:2.0") == parse_spec("gather:2") and str(parse_spec("gather:2.0")) == "gather:2"


@pytest.mark.parametrize(
    "spec",
    [
        CodecSpec("topk", {"k": 3}),
        CodecSpec("topk", {"kept": 3, "temperature": 1}),
        CodecSpec("topk", {"kept": 3.0}),
        CodecSpec("dense", {"dtype": "fp8"}),
        CodecSpec("dense", {"type": "fp16"}),
        CodecSpec("dense", {"dtype": "fp16", "more": 1}),
        CodecSpec("dense:fp16"),
        CodecSpec(""),
    ],
)
def test_a_greeting_that_names_no_codec_is_refused(spec):
    with pytest.raises(CodecError, match="codec"):
        make_codec(spec)
