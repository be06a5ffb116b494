"""Drawn labels: right on average, and how far from it at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edldist.labels.codec import parse_codec
from edldist.labels.rows import chunks

DRAWS = 4000


def drawn(text: str, logits: Tensor, times: int = DRAWS, seed: int = 11, fixed: bool = False) -> Tensor:
    """So many estimates of one distribution, [times, V]."""
    torch.manual_seed(seed)
    codec = parse_codec(text)
    packed = codec.pack({"logits": logits.expand(times, -1)}, fixed=fixed).tensors
    return codec.decode(packed)["logits"].dense().double()


def logits_of(kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    if kind == "flat":
        return torch.arange(60) * 1e-4
    if kind == "peaked":
        return torch.randn(300, generator=generator) * 4
    if kind == "masked":
        return torch.randn(300, generator=generator).index_fill(0, torch.arange(20, 280), -torch.inf)
    return -torch.arange(1.0, 2001).log()  # zipf


@pytest.mark.parametrize("kind", ["flat", "peaked", "masked", "zipf"])
@pytest.mark.parametrize("text", ["rs:18", "rs:1", "rs:7:2", "head+rs:4:6", "head+rs:1:3:0.5"])
def test_draws_are_right_on_average(text, kind):
    logits = logits_of(kind)
    codec = parse_codec(text)
    p = (logits.double() / dict(codec.spec.parameters).get("temperature", 1)).softmax(-1)
    estimates = drawn(text, logits)
    off = estimates.mean(0) - p
    headed = text.startswith("head")
    if headed:
        # The head is not drawn: 8 bits of its logarithm are what it is off by.
        head = p.topk(dict(codec.spec.parameters)["kept"]).indices
        assert (off[head].abs() <= 0.01 * p[head]).all()
        off[head] = 0.0
    # Entries that are met too seldom for a normal law go into one class.
    seldom = p * DRAWS < 30
    assert (estimates[:, p == 0] == 0).all()
    error = (estimates[:, ~seldom].var(0) / DRAWS).sqrt()
    if headed:  # the mass of the rest travels in 16 bits
        error = error.clamp(min=1e-9 + 2.5e-4 * p[~seldom])
    z = off[~seldom] / error.clamp(min=1e-12)
    classes = z.numel() + 1
    assert z.abs().max() < 5.0, "one in 1.7 million for each class"
    assert (z**2).sum() < classes + 6 * (2 * classes) ** 0.5
    rest = estimates[:, seldom].sum(1)
    if seldom.any() and rest.var() > 0:
        slack = 1e-3 * p[seldom].sum() if headed else 0.0
        assert abs(rest.mean() - p[seldom].sum()) < 5 * (rest.var() / DRAWS) ** 0.5 + slack


@pytest.mark.parametrize("kind", ["flat", "peaked", "zipf"])
def test_draws_of_a_row_are_as_even_as_can_be(kind):
    logits = logits_of(kind)
    counts = drawn("rs:18", logits, 200) * 18
    expected = logits.double().softmax(-1) * 18
    assert (counts.round() >= (expected - 1e-4).floor()).all()
    assert (counts.round() <= (expected + 1e-4).ceil()).all()


@pytest.mark.parametrize("kind", ["peaked", "zipf"])
@pytest.mark.parametrize(("kept", "number"), [(8, 14), (4, 18)])
def test_with_an_exact_head_less_is_left_to_chance(kind, kept, number):
    logits = logits_of(kind)
    with_head, of_all = drawn(f"head+rs:{kept}:{number}", logits), drawn(f"rs:{kept + number}", logits)
    assert with_head.var(0).sum() < of_all.var(0).sum()


def test_the_mass_that_counts_is_one_whatever_was_drawn():
    for text in ("rs:5", "head+rs:3:5"):
        assert torch.allclose(drawn(text, logits_of("zipf"), 50).sum(-1), torch.ones(50).double(), atol=1e-6)


def test_of_a_row_without_a_rest_the_drawn_ones_count_nothing():
    logits = torch.full((3, 100), -torch.inf)
    logits[:, :4] = torch.tensor([1.0, 2, 3, 4])
    codec = parse_codec("head+rs:4:6")
    labels = codec.decode(codec.encode({"logits": logits}))["logits"]
    assert labels.exact == 4 and (labels.probs[:, 4:] == 0).all()
    assert labels.ids.min() >= 0 and labels.ids.max() < 100


def test_passes_draw_anew_and_fixed_ones_never_do():
    logits = torch.randn(40, 500, generator=torch.Generator().manual_seed(1))
    codec = parse_codec("rs:9")
    first, second = (codec.pack({"logits": logits}).tensors["logits.rs@500"] for _ in range(2))
    assert not torch.equal(first, second)
    fixed, again = (codec.pack({"logits": logits}, fixed=True).tensors["logits.rs@500"] for _ in range(2))
    assert torch.equal(fixed, again)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_numbers_out_of_rows_are_spread_evenly_and_tell_rows_apart(dtype):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(4000, 33, generator=generator).to(dtype)
    logits[1] = logits[0]
    logits[1, 32] += 0.125  # all but alike
    us = torch.cat([rows._uniform_of() for _, rows in chunks(logits, 4)]).flatten()
    assert us.min() >= 0 and us.max() < 1 and abs(us[0] - us[1]) > 1e-3
    counts = torch.histc(us.float(), 20, 0, 1)
    assert ((counts - 200) ** 2 / 200).sum() < 46  # chi-squared of 19 degrees: one in 2,000
    assert abs(torch.corrcoef(torch.stack([us[:-1], us[1:]]))[0, 1]) < 0.06
    single = next(iter(chunks(logits[7:8], 4)))[1]._uniform_of()
    assert single == us[7], "whatever else is in the pass"


def test_fixed_draws_are_right_on_average_over_rows():
    """Rows that differ in what no draw depends on: each has draws of its own."""
    generator = torch.Generator().manual_seed(9)
    base = torch.randn(50, generator=generator)
    logits = base + torch.rand(DRAWS, 1, generator=generator) * 10
    codec = parse_codec("rs:6")
    labels = codec.decode(codec.pack({"logits": logits}, fixed=True).tensors)["logits"].dense().double()
    z = (labels.mean(0) - base.double().softmax(-1)) / (labels.var(0) / DRAWS).sqrt()
    assert z.abs().max() < 4.5
