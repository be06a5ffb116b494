"""The most probable entries that a teacher tells without having logits, packed as if it had them."""

from __future__ import annotations

import pytest
import torch

from edldist.errors import UnfitCodecError
from edldist.labels.codec import parse_codec
from edldist.labels.grammar import GRAMMAR
from edldist.labels.typed import TopKLabels

V = 500


def told(logits: torch.Tensor, kept: int) -> TopKLabels:
    log_p = logits.double().log_softmax(-1)
    values, ids = log_p.topk(kept)
    rest = (1 - values.exp().sum(-1)).clamp(min=0).log()
    return TopKLabels(ids, values.float(), rest.float(), logits.shape[-1])


@pytest.mark.parametrize("written", ["topk:1", "topk:16", f"topk:{V}", "topp:0.5:32", "topp:1:4"])
@pytest.mark.parametrize("spread", [0.1, 2.0, 6.0])
def test_what_travels_is_what_the_logits_would_have_given(written, spread):
    codec = parse_codec(written)
    logits = torch.randn(3, 7, V, generator=torch.Generator().manual_seed(1)) * spread
    (name, ours), (its, theirs) = (
        next(iter(packed.tensors.items()))
        for packed in (
            codec.pack({"logits": logits}),
            codec.pack_top({"logits": told(logits, codec.top_entries())}),
        )
    )
    assert name == its and ours.dtype == theirs.dtype and ours.shape == theirs.shape
    one, other = (codec.decode({name: each})["logits"] for each in (ours, theirs))
    kept = ~one.log_probs.isneginf()
    assert torch.equal(one.ids, other.ids) and torch.equal(kept, ~other.log_probs.isneginf())
    assert (ours != theirs).float().mean() < 0.02  # a rounding apart, here and there
    torch.testing.assert_close(one.log_probs[kept], other.log_probs[kept], rtol=0, atol=0.06)
    torch.testing.assert_close(one.log_tail.exp(), other.log_tail.exp(), rtol=0, atol=2e-3)


def test_a_row_of_which_nothing_is_known_is_nan_and_the_others_are_as_ever():
    codec = parse_codec("topk:5")
    labels = told(torch.randn(4, V, generator=torch.Generator().manual_seed(2)), 5)
    labels.log_probs[2] = labels.log_tail[2] = torch.nan
    ((name, packed),) = codec.pack_top({"logits": labels}).tensors.items()
    got = codec.decode({name: packed})["logits"]
    assert got.log_probs[2].isnan().all() and got.log_tail[2].isnan()
    rows = torch.tensor([0, 1, 3])
    assert torch.equal(got.ids[rows], labels.ids[rows])
    torch.testing.assert_close(got.log_probs[rows], labels.log_probs[rows], rtol=0, atol=0.03)


WRITTEN = {"topp": "topp:0.9:4", "topk": "topk:4", "rs": "rs:4", "head+rs": "head+rs:4:4"}


@pytest.mark.parametrize("name", GRAMMAR)
def test_codecs_that_need_the_whole_distribution_say_so(name):
    codec = parse_codec(WRITTEN.get(name, name))
    labels = {"logits": told(torch.randn(2, V), 4)}
    if name in ("topk", "topp"):
        assert codec.top_entries() == 4 and codec.pack_top(labels).tensors
        return
    for call in (codec.top_entries, lambda: codec.pack_top(labels)):
        with pytest.raises(
            UnfitCodecError, match=f"codec {name.replace('+', '.')}.*needs the whole distribution"
        ):
            call()


def test_another_temperature_or_number_of_entries_is_refused():
    labels = {"logits": told(torch.randn(2, V), 4)}
    with pytest.raises(UnfitCodecError, match="packs softmax.logits / 2., for which all logits are needed"):
        parse_codec("topk:4:2").pack_top(labels)
    with pytest.raises(UnfitCodecError, match="packs 5 entries at temperature 1; .* there are 4 of 500 at 1"):
        parse_codec("topk:5").pack_top(labels)
