"""How far apart two answers are, against float64 of the whole distribution."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from edldist.errors import CodecError
from edldist.labels.codec import parse_codec
from edldist.labels.comparison import Compared, differences, is_constant

COMPARED = Compared()


def told(**outputs: Tensor) -> dict:
    """What a student gets of the outputs of a worker that is compared."""
    return COMPARED.decode(COMPARED.encode(outputs))


def symmetric_kl(one: Tensor, other: Tensor) -> float:
    p, q = one.double().log_softmax(-1), other.double().log_softmax(-1)
    return float((0.5 * (p.exp() - q.exp()) * (p - q)).sum(-1).max())


def nats(mine: dict, its: dict) -> float:
    (value,) = [each.value for each in differences(mine, its) if each.output == "logits"]
    return value


def test_over_few_classes_the_difference_is_the_symmetric_divergence(generator):
    one = torch.randn(16, 10, generator=generator) * 3
    other = one + 0.3 * torch.randn(16, 10, generator=generator)
    assert nats(told(logits=one), told(logits=other)) == pytest.approx(symmetric_kl(one, other), rel=1e-4)


@pytest.mark.parametrize("noise", [0.01, 0.1, 1.0])
def test_over_a_vocabulary_it_is_never_more_and_tells_other_weights_all_the_same(generator, noise):
    one = torch.randn(8, 5000, generator=generator) * 3
    other = one + noise * torch.randn(8, 5000, generator=generator)
    whole = symmetric_kl(one, other)
    assert whole / 6 < nats(told(logits=one), told(logits=other)) <= whole * (1 + 1e-4)
    stranger = torch.randn(8, 5000, generator=generator) * 3
    assert nats(told(logits=one), told(logits=stranger)) > 0.5


def test_answers_without_a_common_entry_are_far_apart():
    """Both sides put all of their mass on entries that the other does not name."""
    one, other = torch.full((1, 1000), -20.0), torch.full((1, 1000), -20.0)
    one[0, :50] = 0.0
    other[0, 500:550] = 0.0
    assert nats(told(logits=one), told(logits=other)) > 1.0


def test_rounding_that_swaps_the_last_entries_is_no_difference(generator):
    one = torch.randn(8, 5000, generator=generator)
    assert nats(told(logits=one), told(logits=one.to(torch.bfloat16))) < 1e-4


def test_masked_classes_are_compared_as_classes_of_probability_0(generator):
    one = torch.randn(4, 10, generator=generator)
    masked = one.clone()
    masked[:, 3] = -torch.inf
    assert nats(told(logits=masked), told(logits=masked)) == 0.0
    assert nats(told(logits=one), told(logits=masked)) > 1.0


def test_other_outputs_differ_by_a_share_of_their_length(generator):
    one = torch.randn(6, 32, generator=generator)
    (each,) = differences(told(feature=one), told(feature=one.to(torch.bfloat16)))
    assert each.unit == "relative" and 0 < each.value < 0.01
    (each,) = differences(told(feature=one), told(feature=one * 1.25))
    assert each.value == pytest.approx(0.2)
    assert differences(told(kind=torch.ones(6, dtype=torch.int64)), told(kind=torch.zeros(6).long())) == []


def test_an_embedding_that_is_called_logits_is_compared_by_its_values(generator):
    """Its softmax is nearly even whatever it is."""
    one, other = (torch.nn.functional.normalize(torch.randn(6, 384, generator=generator)) for _ in range(2))
    found = {each.unit: each.value for each in differences(told(logits=one), told(logits=other))}
    assert found["nats"] < 0.1 < 1 < found["relative"]


def test_a_single_number_that_is_called_logits_is_a_value(generator):
    one = torch.randn(6, 1, generator=generator)
    (each,) = differences(told(logits=one), told(logits=one + 1))
    assert each.unit == "relative" and not is_constant(told(logits=one))


@pytest.mark.parametrize(
    ("mine", "its", "says"),
    [
        (
            {"logits": torch.zeros(2, 3)},
            {"logits": torch.zeros(2, 4)},
            "distributions over 3 classes, and not",
        ),
        ({"f": torch.zeros(2, 3)}, {"f": torch.zeros(2, 4)}, "its output 'f' is [2, 3], and not [2, 4]"),
        ({"f": torch.zeros(2, 3)}, {"g": torch.zeros(2, 3)}, "it answers with outputs ['f'], and not ['g']"),
    ],
)
def test_other_shapes_and_names_are_said(mine, its, says):
    found = differences(told(**mine), told(**its))
    assert math.isinf(max(each.value for each in found)) and any(says in each.why for each in found)


def test_a_value_that_is_no_number_on_one_side_is_as_far_as_can_be():
    one = torch.zeros(2, 3)
    other = one.clone()
    other[1, 1] = torch.nan
    (each,) = differences({"f": one}, {"f": other})
    assert math.isinf(each.value)
    (each,) = differences({"f": other}, {"f": other})
    assert each.value == 0.0


def test_logits_that_are_no_distribution_are_refused_with_their_place():
    logits = torch.zeros(3, 5)
    logits[2, 1] = torch.nan
    with pytest.raises(CodecError, match="a logit is nan at sample 2"):
        COMPARED.encode({"logits": logits})


def test_a_constant_is_told_from_answers_that_are_merely_sure():
    sure = torch.tensor([[40.0, 0.0, 0.1], [40.0, 0.2, 0.0]])
    assert not is_constant(told(logits=sure)) and is_constant(told(logits=sure[:1].expand(4, 3)))
    assert not is_constant(told(logits=sure[:1])), "one row tells nothing"


@pytest.mark.parametrize("codec", ["dense", "dense:fp16", "int8", "topk:5", "topp:0.9:5", "gather"])
def test_labels_of_a_worker_that_has_no_logits_are_compared_as_they_are(generator, codec):
    """As of one that fronts an engine."""
    made = parse_codec(codec)
    asked = {"gather_ids": torch.tensor([[1, 2]]).expand(4, 2)} if codec == "gather" else {}
    one, other = (torch.randn(4, 10, generator=generator) * 3 for _ in range(2))
    answers = [
        made.decode(made.encode({"logits": each}, asked)) for each in (one, one.to(torch.bfloat16), other)
    ]
    assert nats(answers[0], answers[1]) < 0.01 < 0.1 < nats(answers[0], answers[2])


def test_hidden_states_differ_by_a_share_of_their_length(generator):
    from edldist.labels.typed import HiddenLabels

    one = torch.randn(4, 16, generator=generator)
    labels = HiddenLabels(one.to(torch.bfloat16), "head")
    assert differences({"hidden": labels}, {"hidden": labels})[0].value == 0.0
    other = HiddenLabels((one + 1).to(torch.bfloat16), "head")
    assert differences({"hidden": labels}, {"hidden": other})[0].value > 0.2


def test_of_many_positions_some_are_compared_the_same_ones_whatever_else_is_asked(generator):
    logits, hidden = (torch.randn(4, 100, width, generator=generator) for width in (50, 8))
    answer = told(logits=logits, hidden=hidden)
    assert list(answer["logits"].ids.shape) == [4, 32, 50] and list(answer["hidden"].shape) == [4, 32, 8]
    half = told(logits=logits[:2], hidden=hidden[:2])
    assert [each.value for each in differences(half, answer, rows=2)] == [0.0, 0.0, 0.0]
    assert list(told(logits=logits[:, :5])["logits"].ids.shape) == [4, 5, 50]
