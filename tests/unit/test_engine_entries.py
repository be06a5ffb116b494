"""What an engine tells of a position becomes the K most probable entries and a rest, or an error."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.errors import ModelError
from edldist.teacher.engines.entries import Told, checked


def told(*rows: list[tuple[int, float]]) -> Told:
    entries = [entry for row in rows for entry in row]
    return Told(
        np.array([token for token, _ in entries], dtype=np.int64),
        np.array([value for _, value in entries]),
        np.array([len(row) for row in rows], dtype=np.int64),
    )


@given(
    st.lists(st.lists(st.floats(0.001, 1), min_size=5, max_size=9), min_size=1, max_size=4),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_the_most_probable_are_kept_whatever_order_they_came_in(weights, kept, chance):
    rows, best = [], []
    for row in weights:
        ids = chance.sample(range(20), len(row))
        entries = [(token, math.log(weight / sum(row))) for token, weight in zip(ids, row, strict=True)]
        rows.append(entries)
        best.append(sorted((value for _, value in entries), reverse=True)[:kept])
    got = checked(told(*rows), np.arange(len(rows)), kept, 20)
    np.testing.assert_allclose(got.log_probs, np.array(best), rtol=1e-6)
    for row, ids, values in zip(rows, got.ids, got.log_probs, strict=True):
        assert [dict(row)[token] for token in ids.tolist()] == pytest.approx(values.tolist(), rel=1e-6)
    np.testing.assert_allclose(
        np.exp(got.log_probs.astype(np.float64)).sum(-1) + np.exp(got.log_tail.astype(np.float64)),
        1,
        atol=1e-5,
    )


def test_entries_that_cannot_be_are_kept_as_such_beside_rows_with_more():
    nothing = -math.inf
    got = checked(
        told([(7, -1e-7), (9, nothing), (4, nothing)], [(1, -1.2), (2, -1.3), (3, -1.4), (5, -4.0)]),
        np.array([3, 5]),
        3,
        10,
    )
    assert got.ids.tolist() == [[7, 9, 4], [1, 2, 3]]
    assert (
        got.log_probs[0].tolist() == pytest.approx([-1e-7, nothing, nothing]) and got.log_tail[0] == nothing
    )


def test_a_rest_is_no_more_than_what_the_others_could_have():
    peaked = [(0, math.log(1 - 1e-9)), (1, math.log(1e-9))]
    got = checked(told(peaked), np.array([0]), 2, 10)
    assert math.exp(got.log_tail[0]) == pytest.approx(8e-9)  # and not what rounding would leave of 1
    assert checked(told(peaked), np.array([0]), 2, 2).log_tail[0] == -math.inf


def test_entries_that_leave_more_than_others_can_have_are_not_all():
    """As if the fifth of ten were told as the second, or all from the second on as impossible."""
    for last in (-3.0, -math.inf):
        with pytest.raises(ModelError, match="position 6 is not all: 2 entries have 0.* the 8 others, none"):
            checked(told([(0, math.log(0.3)), (1, last)]), np.array([6]), 2, 10)
    assert checked(told([(0, math.log(0.3)), (1, math.log(0.2))]), np.array([6]), 2, 10)


def test_rounding_beyond_one_is_no_error_and_more_is():
    above = [(0, math.log(0.5)), (1, math.log(0.5005))]
    assert np.exp(checked(told(above), np.array([0]), 2, 10).log_tail[0]) <= 1.1e-6
    with pytest.raises(ModelError, match="position 4 are no log-probabilities: 2 of them sum up to 1.01"):
        checked(told([(0, math.log(0.5)), (1, math.log(0.51))]), np.array([4]), 2, 10)
    with pytest.raises(ModelError, match="sum up to 0"):
        checked(told([(0, -math.inf), (1, -math.inf)]), np.array([4]), 2, 10)


def test_the_position_of_what_is_wrong_is_the_asked_one():
    fine = [(0, -1.0), (1, -2.0)]
    for wrong, words in (
        ([(0, -1.0)], "1 entries came for position 9, and 2"),
        ([(0, -1.0), (-1, -2.0)], "id -1 came for position 9"),
        ([(0, -1.0), (10, -2.0)], "id 10 came for position 9"),
        (
            [(0, -1.0), (5, math.nan)],
            r"no number \(null or NaN\) came as the log-probability of id 5 at position 9",
        ),
        ([(0, -1.0), (0, -2.0)], "an id came twice for position 9"),
    ):
        with pytest.raises(ModelError, match=words):
            checked(told(fine, wrong, fine), np.array([2, 9, 12]), 2, 10)
