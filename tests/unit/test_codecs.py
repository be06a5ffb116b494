"""What codecs lose, over vocabularies, temperatures and rows of every kind, and what they refuse."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from edldist.errors import CodecError, ContractError, UnfitCodecError
from edldist.labels.codec import parse_codec
from edldist.labels.gather import GATHER_IDS
from edldist.labels.head import find_head, head_digest
from edldist.labels.typed import TopKLabels

VOCABULARIES = [10, 256, 50_257, 151_936]
SEEDS = range(2)


def rows(vocabulary: int, seed: int, count: int = 18) -> Tensor:
    """Logits of every kind, float64: flat, peaked and steep ones, some classes masked, one class alone."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([0.1, 0.5, 1.0, 2.0, 3.0, 6.0]).repeat(count // 6).unsqueeze(-1).double()
    logits = torch.randn(count, vocabulary, generator=generator, dtype=torch.float64) * spread
    zipf = torch.arange(1, vocabulary + 1, dtype=torch.float64).log().neg()
    logits[6] = zipf[torch.randperm(vocabulary, generator=generator)]
    logits[7] = 1.5 * zipf + 40.0
    logits[8, torch.randperm(vocabulary, generator=generator)[: vocabulary // 2]] = -torch.inf
    logits[9] = -30.0
    logits[9, vocabulary - 1] = 0.0
    logits[10] = -torch.inf
    logits[10, vocabulary // 2] = 1.0
    logits[11] = 0.0
    logits[12] = torch.finfo(torch.float32).min
    logits[12, :5] = torch.tensor([1.0, 2, 3, 4, 5]).double()
    logits[13] += 1000.0
    return logits


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Of each row, nats."""
    p = log_p.exp()
    return (p * (log_p - log_q)).where(p > 0, 0.0).sum(-1)


def through(text: str, logits: Tensor):
    codec = parse_codec(text)
    return codec.decode(codec.encode({"logits": logits}))["logits"]


# --- dense ----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("codec", ["dense:fp16", "dense:bf16", "dense:fp32", "dense:fp32:softmax"])
def test_nothing_is_shifted_unless_it_is_said_to_be_for_a_softmax(codec):
    """Scores may be squared, or put through a sigmoid; a lone tensor of features is called logits, too."""
    x = torch.tensor([[3.0, 300.0], [-5.0, -5.0]])
    assert torch.equal(through(codec, x).float(), x)


@pytest.mark.parametrize("codec", ["dense:fp16:softmax", "dense:bf16:softmax"])
def test_logits_alone_are_shifted_and_not_those_of_one_class_or_in_that_type_already(codec):
    dtype = {"dense:fp16:softmax": torch.float16, "dense:bf16:softmax": torch.bfloat16}[codec]
    x = torch.tensor([[300.0, 301.0], [-5.0, -5.0]])
    packed = parse_codec(codec).encode(
        {"logits": x, "features": x, "one_logits": x[:, :1], "line_logits": x[0], "kept_logits": x.to(dtype)}
    )
    for name, given in {"features": x, "one_logits": x[:, :1], "line_logits": x[0], "kept_logits": x}.items():
        assert torch.equal(packed[name], given.to(dtype))
    assert packed["logits"].abs().max() <= 1
    torch.testing.assert_close(packed["logits"].diff(dim=-1).float(), x.diff(dim=-1), rtol=0, atol=4e-3)


@pytest.mark.parametrize(
    ("codec", "most", "often"), [("dense:fp16:softmax", 2e-6, 1e-6), ("dense:bf16:softmax", 2e-5, 4e-6)]
)
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_sixteen_bits_cost_next_to_nothing(codec, most, often, vocabulary, seed):
    logits = rows(vocabulary, seed)
    lost = kl(logits.log_softmax(-1), through(codec, logits.float()).double().log_softmax(-1))
    assert lost.max() < most and lost.median() < often


def test_values_beyond_fp16_are_refused_instead_of_becoming_infinite():
    with pytest.raises(CodecError, match=r"'x'.*7e\+04.*bf16"):
        parse_codec("dense:fp16").encode({"x": torch.tensor([1.0, -70_000.0, torch.inf])})
    assert parse_codec("dense:bf16").encode({"x": torch.tensor([70_000.0])})["x"].isfinite().all()


def test_a_logit_that_is_too_far_below_for_fp16_has_no_probability_anyway():
    labels = through("dense:fp16:softmax", torch.tensor([[90_000.0, 0.0, 89_999.0]]))
    assert labels.tolist() == [[0.0, -torch.inf, -1.0]]


def test_packing_alone_looks_at_no_value_and_marks_what_it_cannot_hold():
    outputs = {"x": torch.tensor([1.0, 70_000.0]), "n": torch.ones(2).int()}
    codec = parse_codec("dense:fp16")
    assert codec.pack(outputs).tensors["x"].isfinite().tolist() == [True, False]
    with pytest.raises(CodecError, match="beyond fp16"):
        codec.check(outputs)
    codec.check({"x": torch.tensor([torch.inf, 1.0])})


# --- int8 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_eight_bits_cost_no_more_than_2e_4_nats_where_the_spread_is_small(vocabulary, seed):
    logits = rows(vocabulary, seed)
    seen = logits.where(logits > -1e30, -torch.inf)
    spread = seen.amax(-1) - seen.where(seen.isfinite(), torch.inf).amin(-1)
    logits, spread = logits[spread <= 17], spread[spread <= 17]
    assert len(logits) >= 10
    lost = kl(logits.log_softmax(-1), through("int8", logits.float()).double().log_softmax(-1))
    assert lost[spread <= 10].max() < 2e-4 and lost.mean() < 2e-4
    assert (lost < spread**2 / 1.55e6 * 3 + 1e-9).all()


def test_every_value_of_any_output_keeps_half_a_step():
    x = torch.randn(5, 3, 7) * torch.logspace(-6, 6, 5).view(5, 1, 1)
    codec = parse_codec("int8")
    packed = codec.encode({"features": x, "line": x[0, 0, 0].expand(5)})
    assert packed["features.int8@7"].shape == (5, 3, 15) and packed["line"].shape == (5,)
    step = (x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)) / 254
    assert ((codec.decode(packed)["features"] - x).abs() <= step * 0.501 + 1e-30).all()
    same = torch.tensor([[3.0, 3.0]])
    assert torch.equal(codec.decode(codec.encode({"f": same}))["f"], same)


def test_minus_infinity_is_refused_where_it_is_no_logit():
    x = torch.tensor([[1.0, -torch.inf]])
    with pytest.raises(CodecError, match=r"'features'.*sample 0 of the task"):
        parse_codec("int8").encode({"features": x})
    assert through("int8", x).tolist() == [[1.0, -torch.inf]]


# --- the most probable ----------------------------------------------------------------------------------


def k_plus_one(labels: TopKLabels, log_p: Tensor) -> tuple[Tensor, Tensor]:
    """The kept entries and the rest as one distribution of K + 1, as it was and as it came."""
    there = torch.zeros_like(log_p, dtype=torch.bool).scatter_(-1, labels.ids, ~labels.log_probs.isneginf())
    rest = log_p.masked_fill(there, -torch.inf).logsumexp(-1, keepdim=True)
    was = log_p.gather(-1, labels.ids).masked_fill(labels.log_probs.isneginf(), -torch.inf)
    came = torch.cat([labels.log_probs, labels.log_tail.unsqueeze(-1)], dim=-1).double()
    return torch.cat([was, rest], dim=-1), came


@pytest.mark.parametrize(
    ("dtype", "seed"),
    [
        *((torch.float32, 0), (torch.float32, 1), (torch.float64, 2)),
        *((torch.float16, 3), (torch.bfloat16, 4)),
    ],
)
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize(("kept", "temperature"), [(1, 1), (8, 3), (256, 1)])
def test_the_largest_are_exact_and_their_probabilities_within_3e_4_nats(
    dtype, vocabulary, seed, kept, temperature
):
    logits, k = rows(vocabulary, seed).to(dtype), min(kept, vocabulary)
    labels = through(f"topk:{k}:{temperature}", logits)
    got = logits.gather(-1, labels.ids)
    assert torch.equal(got, logits.topk(k).values), "as large as the K largest, whichever of equal ones"
    assert (labels.ids.sort(-1).values.diff(dim=-1) != 0).all() and labels.ids.max() < vocabulary
    sound = logits.double().masked_fill(logits <= torch.finfo(torch.float32).min, -torch.inf)
    was, came = k_plus_one(labels, (sound / temperature).log_softmax(-1))
    assert kl(was, came).max() < 3e-4
    assert came.logsumexp(-1).abs().max() < 1e-6
    assert (labels.log_probs.diff(dim=-1).nan_to_num(0.0) <= 0).all()
    assert (labels.log_probs.dtype, labels.vocabulary) == (torch.float32, vocabulary)


def test_rows_that_were_made_to_hurt_stay_within_the_bound():
    logits = torch.zeros(1, 1000).index_fill(1, torch.tensor([7]), 4.5)
    logits[:, 500:] = torch.linspace(-25, 0, 500)
    labels = through("topk:256", logits)
    was, came = k_plus_one(labels, logits.double().log_softmax(-1))
    assert kl(was, came).max() < 3e-4


@pytest.mark.parametrize("mass", [0.1, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_the_nucleus_is_the_least_that_has_the_mass_and_at_most_k(mass, vocabulary):
    logits, k = rows(vocabulary, 1), 8
    labels = through(f"topp:{mass}:{k}", logits)
    largest = logits.softmax(-1).sort(-1, descending=True).values[:, :k]
    before = largest.cumsum(-1) - largest
    near = (before - mass).abs() < 1e-6
    expected = (before < mass) & (largest > 0)
    assert ((~labels.log_probs.isneginf() == expected) | near).all()
    assert not labels.log_probs[:, 0].isneginf().any()
    sound = logits.masked_fill(logits <= torch.finfo(torch.float32).min, -torch.inf)
    was, came = k_plus_one(labels, sound.log_softmax(-1))
    assert kl(was, came).max() < 3e-4 and came.logsumexp(-1).abs().max() < 1e-6


def test_a_tail_of_next_to_nothing_and_one_of_next_to_everything_are_kept():
    logits = torch.tensor([[0.0, -40.0, -40.0], [0.0, -90.0, -90.0], [0.0, -torch.inf, -torch.inf]])
    tails = through("topk:1", logits).log_tail
    assert tails[0].item() == pytest.approx(-40 + 0.693, rel=1e-3) and tails[1].item() < -80
    assert tails[2].item() == -torch.inf
    flat = through("topk:1", torch.zeros(1, 151_936))
    assert flat.log_probs.item() == pytest.approx(-11.931, rel=1e-3) and flat.log_tail.item() < 0


# --- what the student asks for --------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1, 0.5])
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("width", [1, 5])
def test_gathered_log_probabilities_are_exact_to_their_type(temperature, vocabulary, width):
    logits = rows(vocabulary, 2)
    logits = logits.masked_fill(logits <= torch.finfo(torch.float32).min, -torch.inf)
    ids = torch.randint(0, vocabulary, (len(logits), width), generator=torch.Generator().manual_seed(5))
    ids[:12, 0] = logits[:12].argmax(-1)
    ids[3] = ids[3, 0]  # the same again and again
    codec = parse_codec(f"gather:{temperature}")
    packed = codec.encode({"logits": logits}, {GATHER_IDS: ids})
    assert packed[f"logits.gather@{vocabulary}"].shape == (len(logits), width + (width > 1))
    labels = codec.decode(packed)["logits"]
    log_p = (logits / temperature).log_softmax(-1)
    torch.testing.assert_close(labels.log_probs, log_p.gather(-1, ids).float(), rtol=2e-7, atol=1e-14)
    inside = torch.zeros_like(log_p, dtype=torch.bool).scatter_(-1, ids, True)
    outside = log_p.masked_fill(inside, -torch.inf).logsumexp(-1)
    torch.testing.assert_close(labels.log_outside.exp(), outside.exp().float(), rtol=2e-6, atol=1e-20)
    torch.testing.assert_close(labels.log_outside, outside.float(), rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (
            None,
            "no 'gather_ids' came with the samples: have inputs= of the student's DistillLoader or",
        ),
        (torch.zeros(3, 4, 2), "are torch.float32: ids are integers"),
        (torch.zeros(3, 4, dtype=torch.int64), r"are \[3, 4\], and output 'logits' is \[3, 4, 9\]"),
        (torch.zeros(3, 5, 2, dtype=torch.int64), r"are \[3, 5, 2\], and output 'logits' is \[3, 4, 9\]"),
        (torch.zeros(3, 4, 0, dtype=torch.int64), r"\[3, 4, 0\].*at least one id"),
    ],
)
def test_ids_that_do_not_fit_are_refused_for_good(ids, words):
    asked = {} if ids is None else {GATHER_IDS: ids}
    for call in (parse_codec("gather").pack, parse_codec("gather").check):
        with pytest.raises(UnfitCodecError, match=words) as caught:
            call({"logits": torch.zeros(3, 4, 9)}, asked)
        assert isinstance(caught.value, ContractError)


@pytest.mark.parametrize("wrong", [9, -1, 2**40])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_an_id_outside_the_vocabulary_is_named_with_its_sample_and_position(wrong, dtype):
    if wrong > 2**31 and dtype is torch.int32:
        return
    ids = torch.zeros(3, 4, 2, dtype=dtype)
    ids[2, 1, 1] = wrong
    codec, outputs = parse_codec("gather"), {"logits": torch.zeros(3, 4, 9)}
    assert not codec.pack(outputs, {GATHER_IDS: ids}).sound
    with pytest.raises(
        CodecError,
        match=rf"{wrong} at sample 2 of the task, position 1 is no entry of output 'logits', which has 9",
    ):
        codec.check(outputs, {GATHER_IDS: ids})


# --- the hidden state -----------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self, width: int, vocabulary: int, name: str, bias: bool = False) -> None:
        super().__init__()
        setattr(self, name, nn.Linear(width, vocabulary, bias))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hidden_state_in_bf16_costs_less_than_1e_4_nats(seed):
    generator = torch.Generator().manual_seed(seed)
    width, vocabulary = 768, 8192
    model = Model(width, vocabulary, "lm_head")
    # A final norm makes entries of size 1, and a head of this size logits with a deviation of 3.
    model.lm_head.weight.data = torch.randn(vocabulary, width, generator=generator) * 3 / width**0.5
    hidden = torch.randn(16, width, generator=generator)
    codec = parse_codec("hidden").serving(model)
    packed = codec.encode({"hidden": hidden})
    labels = parse_codec("hidden").decode(packed)["hidden"]
    assert packed[f"hidden.bf16@{labels.head}"].nbytes == 16 * width * 2
    assert labels.head == head_digest(model.lm_head.weight)
    with torch.no_grad():
        was = model.lm_head(hidden).double().log_softmax(-1)
    assert kl(was, labels.logits(model.lm_head.weight.detach()).double().log_softmax(-1)).max() < 1e-4


def test_a_head_is_found_where_libraries_have_it():
    for name in ("head", "lm_head"):
        model = Model(4, 9, name, bias=True)
        assert find_head(model) == (getattr(model, name).weight, getattr(model, name).bias)
    model = Model(4, 9, "elsewhere")
    model.get_output_embeddings = lambda: model.elsewhere
    assert find_head(model) == (model.elsewhere.weight, None)
    embedder = Model(4, 9, "head")
    embedder.get_output_embeddings = lambda: None
    assert find_head(embedder)[0] is embedder.head.weight


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            lambda x: x,
            r"the model \(function\).*get_output_embeddings\(\), head or lm_head; it has none of these",
        ),
        (nn.Sequential(), "it has none of these"),
        (type("M", (), {"head": nn.ReLU()})(), "what it has is a ReLU"),
        (type("M", (), {"head": nn.Conv1d(2, 2, 2)})(), "what it has is a Conv1d"),
    ],
)
def test_a_model_without_a_head_is_refused_before_it_serves(model, words):
    with pytest.raises(UnfitCodecError, match=words):
        parse_codec("hidden").serving(model)


class ForTokenClassification(Model):
    num_labels = 9

    def get_output_embeddings(self) -> None:
        return None


def causal(vocabulary: int) -> Model:
    model = Model(4, vocabulary, "elsewhere")
    model.get_output_embeddings = lambda: model.elsewhere
    return model


@pytest.mark.parametrize(
    "model", [causal(9), ForTokenClassification(4, 2, "elsewhere")], ids=["causal", "classes"]
)
@pytest.mark.parametrize(("codec", "letter"), [("topk:10", "K"), ("topp:0.9:10", "K"), ("head+rs:10:4", "M")])
def test_more_entries_than_a_model_says_that_it_has_are_refused_before_it_serves(model, codec, letter):
    words = (
        rf"codec {re.escape(codec)} keeps {letter}=10 entries, and output 'logits' of the model .* has 9: "
        rf"lower {letter}"
    )
    with pytest.raises(UnfitCodecError, match=words):
        parse_codec(codec).serving(model)


@pytest.mark.parametrize(
    "codec", ["topk:9", "topp:0.9:9", "rs:64", "head+rs:9:64", "gather", "dense", "int8"]
)
def test_what_fits_a_model_or_one_that_does_not_say_serves(codec):
    asking = type("ForQuestionAnswering", (ForTokenClassification,), {})(4, 2, "elsewhere")
    for model in (causal(9), Model(4, 3, "head"), asking, lambda x: x):
        assert parse_codec(codec).serving(model).spec == parse_codec(codec).spec


def test_a_hidden_state_of_another_width_is_refused():
    codec = parse_codec("hidden").serving(Model(8, 20, "head"))
    with pytest.raises(UnfitCodecError, match=r"'hidden' is \[2, 3, 7\], and the head of the model takes 8"):
        codec.pack({"hidden": torch.zeros(2, 3, 7)})


def test_a_digest_tells_heads_apart_and_not_their_types_or_places():
    weight = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    bias = torch.zeros(50)
    digest = head_digest(weight, bias)
    assert (
        digest == head_digest(weight.float(), bias) == head_digest(weight.double().t().contiguous().t(), bias)
    )
    other = weight.clone()
    other[49, 5] += 1
    digests = {digest, head_digest(weight), head_digest(other, bias), head_digest(weight, bias + 1)}
    assert len(digests) == 4 and all(len(each) == 32 for each in digests)


def test_of_a_large_head_the_first_and_last_rows_count_and_some_between(monkeypatch):
    monkeypatch.setattr("edldist.labels.head._READ_BYTES", 4 * 6 * 10)
    weight = torch.randn(1000, 6, generator=torch.Generator().manual_seed(0))
    digest = head_digest(weight)
    for row in (0, 999):
        other = weight.clone()
        other[row, 3] += 1
        assert head_digest(other) != digest
    assert head_digest(weight + 1e-3) != digest


# --- what cannot be -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "letter"),
    [("topk:11", "K"), ("topp:0.9:11", "K"), ("head+rs:11:4", "M"), ("topk:65536:2", "K")],
)
def test_more_entries_than_the_vocabulary_has_are_refused_with_both_numbers(codec, letter):
    wanted = next(int(part) for part in codec.split(":")[1:] if "." not in part)
    with pytest.raises(
        UnfitCodecError, match=rf"{letter}={wanted} entries, and output 'logits' .* has 10: lower {letter}"
    ) as caught:
        parse_codec(codec).pack({"logits": torch.zeros(2, 10)})
    assert caught.value.final


def test_logits_of_no_classes_are_refused():
    with pytest.raises(UnfitCodecError, match="has no classes"):
        parse_codec("rs:4").pack({"logits": torch.zeros(2, 0)})
