"""Ids in as few bytes as their vocabulary allows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edldist.labels.ids import bytes_of_ids, pack_ids, unpack_ids


@given(
    vocabulary=st.one_of(st.integers(1, 300), st.integers(60_000, 70_000), st.integers(1, 2**31)),
    count=st.integers(1, 40),
    rows=st.integers(0, 3),
    seed=st.integers(0, 2**32),
)
def test_every_id_comes_back_in_its_place(vocabulary, count, rows, seed):
    ids = torch.randint(0, vocabulary, (rows, count), generator=torch.Generator().manual_seed(seed))
    ids[:, :1] = vocabulary - 1
    ids[:, -1:] = 0
    packed = pack_ids(ids, vocabulary)
    assert packed.dtype is torch.uint8 and packed.shape == (rows, bytes_of_ids(count, vocabulary))
    assert torch.equal(unpack_ids(packed, count, vocabulary), ids)
    one_more = packed.unsqueeze(1).expand(-1, 2, -1)
    assert torch.equal(unpack_ids(one_more, count, vocabulary), ids.unsqueeze(1).expand(-1, 2, -1))


@pytest.mark.parametrize(
    ("vocabulary", "expected"),
    [(1, 32), (256, 32), (257, 64), (50_257, 64), (65_536, 64), (65_537, 68), (151_936, 72), (262_144, 72)],
)
def test_32_ids_take_what_is_promised(vocabulary, expected):
    assert bytes_of_ids(32, vocabulary) == expected


def test_bytes_that_begin_anywhere_can_be_read():
    ids = torch.tensor([[70_000, 3, 65_536]])
    packed = pack_ids(ids, 151_936)
    shifted = torch.cat([torch.zeros(1, 1, dtype=torch.uint8), packed], dim=-1)[:, 1:]
    assert torch.equal(unpack_ids(shifted, 3, 151_936), ids)
