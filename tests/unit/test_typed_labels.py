"""Typed labels as whole distributions."""

from __future__ import annotations

import pytest
import torch

from edldist.errors import LabelError
from edldist.labels.head import head_digest
from edldist.labels.typed import HiddenLabels, SampledLabels, TopKLabels


def test_top_entries_are_themselves_and_the_others_share_what_is_left():
    log_p = torch.tensor([[0.5, 0.2, 0.2, 0.06, 0.04]]).log()
    values, ids = log_p.topk(2)
    labels = TopKLabels(ids, values, torch.tensor([0.3]).log(), vocabulary=5)
    assert labels.dense().exp()[0].tolist() == pytest.approx([0.5, 0.2, 0.1, 0.1, 0.1])


def test_an_entry_that_was_left_out_of_the_kept_ones_counts_among_the_others():
    ids = torch.tensor([[1, 0]])
    labels = TopKLabels(ids, torch.tensor([[0.7, 0.0]]).log(), torch.tensor([0.3]).log(), vocabulary=4)
    assert labels.dense().exp()[0].tolist() == pytest.approx([0.1, 0.7, 0.1, 0.1])


def test_without_a_tail_the_others_have_none():
    labels = TopKLabels(torch.tensor([2]), torch.zeros(1), torch.tensor(-torch.inf), vocabulary=3)
    assert labels.dense().exp().tolist() == [0.0, 0.0, 1.0]


def test_drawn_entries_add_up_where_they_repeat():
    labels = SampledLabels(torch.tensor([[3, 0, 0]]), torch.tensor([[0.5, 0.25, 0.25]]), 1, vocabulary=4)
    assert labels.dense().tolist() == [[0.5, 0.0, 0.0, 0.5]]


def test_a_head_of_another_width_is_refused():
    weight, bias = torch.zeros(5, 8), torch.ones(5)
    labels = HiddenLabels(torch.zeros(2, 8, dtype=torch.bfloat16), head_digest(weight, bias))
    with pytest.raises(LabelError, match="hidden states of 8"):
        labels.logits(torch.zeros(5, 7))
    with pytest.raises(LabelError, match="is not that of the teacher"):
        labels.logits(weight)
    assert labels.logits(weight, bias).shape == (2, 5)
