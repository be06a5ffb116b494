"""Rows of kept labels, cut, joined and filled into memory: sample by sample the same."""

from __future__ import annotations

import numpy as np
import pytest

from edldist.store.kept_rows import KeptRows
from edldist.store.segment import Segment
from tests.unit.kept_labels import Labels
from tests.unit.stored_files import kept_rows

KINDS = [(lengths, witness) for lengths in (False, True) for witness in (False, True)]


def made(first: int, last: int, lengths: bool, witness: bool) -> KeptRows:
    return kept_rows(Labels(first, last, lengths), witness)


def samples_of(kept: KeptRows) -> list[tuple[bytes, ...]]:
    """Of each its key, its witness and its rows."""
    ends = np.arange(kept.samples + 1) if kept.ends is None else kept.ends
    return [
        (
            kept.keys[at].tobytes(),
            b"" if kept.witness is None else kept.witness[at].tobytes(),
            *(table[ends[at] : ends[at + 1]].tobytes() for table in kept.tables),
        )
        for at in range(kept.samples)
    ]


@pytest.mark.parametrize(("lengths", "witness"), KINDS)
def test_parts_and_choices_are_of_the_samples_that_were_asked_for(lengths: bool, witness: bool) -> None:
    kept = made(1, 9, lengths, witness)
    every = samples_of(kept)
    part = kept.part(2, 5)
    assert samples_of(part) == every[2:5] and part.kind == kept.kind
    assert np.shares_memory(part.tables[0], kept.tables[0]), "views"
    order = np.array([6, 0, 7, 0])
    taken = kept.take(order)
    assert samples_of(taken) == [every[at] for at in order] and taken.kind == kept.kind
    assert taken.lengths(np.array([0, 2])).tolist() == ([3, 4] if lengths else [1, 1])
    joined = KeptRows.joined([kept.part(0, 3), kept.take(np.array([5])), part])
    assert samples_of(joined) == [*every[:3], every[5], *every[2:5]] and joined.kind == kept.kind
    assert samples_of(KeptRows.joined([kept])) == every


@pytest.mark.parametrize(("lengths", "witness"), KINDS)
def test_all_that_is_kept_has_its_bytes(lengths: bool, witness: bool) -> None:
    kept = made(0, 5, lengths, witness)
    assert (kept.samples, kept.rows) == (5, 15 if lengths else 5)
    assert kept.nbytes == kept.rows * 24 + 5 * 32 * (1 + witness) + 6 * 8 * lengths
    assert kept.kind == (kept.layout, witness, lengths)


@pytest.mark.parametrize(("lengths", "witness"), KINDS)
def test_a_segment_gives_back_what_was_added(lengths: bool, witness: bool) -> None:
    kept = made(0, 9, lengths, witness)
    segment = Segment(kept, 1 << 20)
    assert (segment.nbytes, segment.saved) == (0, False)
    assert [segment.add(kept.part(0, 4)), segment.add(kept.part(4, 9))] == [0, 4]
    assert samples_of(segment.kept()) == samples_of(segment.for_a_file()) == samples_of(kept)
    assert segment.kept().nbytes == kept.nbytes
    assert segment.nbytes == kept.nbytes - 8 * lengths, "the end of the last one is the start of the next"
    segment.withdraw(np.array([2, 5]))
    segment.withdraw(np.array([5, 0]))
    every = samples_of(kept)
    assert samples_of(segment.for_a_file()) == [every[at] for at in (1, 3, 4, 6, 7, 8)]
    assert samples_of(segment.kept()) == every


@pytest.mark.parametrize(("lengths", "witness"), KINDS)
def test_a_segment_has_room_for_what_fits_into_its_bytes(lengths: bool, witness: bool) -> None:
    like = made(0, 1, lengths, witness)
    each = 24 + 32 * (1 + witness) + 8 * lengths
    assert Segment(like, 10 * each).capacity == 10
    assert Segment(like, 10 * each - 1).capacity == 9
    assert Segment(like, 0).capacity == 1, "one fits at least"


def test_a_segment_takes_so_many_samples_and_rows_and_no_more() -> None:
    plain = made(0, 9, False, False)
    segment = Segment(plain, 7 * 56)
    assert segment.room_for(plain) == 7 and segment.room_for(plain.part(0, 3)) == 3
    segment.add(plain.part(0, 5))
    assert segment.room_for(plain) == 2
    segment.add(plain.part(5, 7))
    assert segment.room_for(plain) == 0
    ragged = made(0, 9, True, False)  # 1 2 3 4 5 1 2 3 4 rows
    segment = Segment(ragged, 10 * 64)
    assert segment.room_for(ragged) == 4 and segment.room_for(ragged.part(4, 9)) == 3
    segment.add(ragged.part(0, 2))
    assert segment.room_for(ragged.part(2, 9)) == 2 and segment.room_for(ragged.part(3, 9)) == 1
    segment.add(ragged.part(2, 4))
    assert segment.room_for(ragged.part(4, 9)) == 0
    long = made(4, 5, True, False)
    assert Segment(long, 0).room_for(long) == 1, "its first sample has five rows"


def test_a_segment_is_full_of_samples_of_one_row_each() -> None:
    short = made(0, 11, True, False).take(np.array([0, 5, 10]))
    segment = Segment(short, 3 * 64)
    assert segment.room_for(short) == 3
    segment.add(short)
    assert samples_of(segment.kept()) == samples_of(short) and segment.room_for(short) == 0


def owned_bytes(kept: KeptRows) -> int:
    """Of the memory that views of it keep, whether it is filled or not."""
    parts = [kept.keys, *kept.tables, *(part for part in (kept.witness, kept.ends) if part is not None)]
    return sum((part if part.base is None else part.base).nbytes for part in parts)


@pytest.mark.parametrize(("lengths", "witness"), KINDS)
def test_a_segment_that_is_closed_keeps_no_memory_that_is_empty(lengths: bool, witness: bool) -> None:
    kept = made(0, 9, lengths, witness)
    segment = Segment(kept, 1 << 20)
    segment.add(kept)
    segment.withdraw(np.array([1]))
    before = segment.kept()
    assert owned_bytes(before) > 1 << 19
    for _ in range(2):
        segment.close()
        assert owned_bytes(segment.kept()) == kept.nbytes
        assert segment.room_for(kept) == 0, "nothing comes any more"
        assert samples_of(segment.kept()) == samples_of(before) == samples_of(kept)
    assert len(samples_of(segment.for_a_file())) == 8


@pytest.mark.parametrize(("rows", "copied"), [(5, True), (6, False)])
def test_a_segment_that_is_closed_stays_where_it_is_if_most_of_it_is_full(rows: int, copied: bool) -> None:
    kept = made(0, rows, False, False)
    segment = Segment(kept, 10 * 56)
    segment.add(kept)
    before = segment.kept()
    segment.close()
    assert np.shares_memory(segment.kept().keys, before.keys) != copied


def test_labels_lie_together_with_their_like_alone() -> None:
    segments = {kind: Segment(made(0, 2, *kind), 1 << 12) for kind in KINDS}
    for kind, segment in segments.items():
        assert [segment.takes(made(2, 4, *other)) for other in KINDS] == [other == kind for other in KINDS]
    assert not segments[False, False].takes(kept_rows(Labels(0, 2, ids=8, values=17)))
