"""Numbers in words."""

from __future__ import annotations

import pytest

from edldist.wording import in_words


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (range(3, 6), "3..5"),
        ([7], "7..7"),
        ([4, 5, 6], "4..6"),
        ([4, 6], "4, 6"),
        ([*range(0, 20, 2)], "0, 2, 4, 6, 8, 10, 12, 14 and 2 more"),
        ([], ""),
    ],
)
def test_neighbours_are_a_span_and_others_are_listed(numbers, words):
    assert in_words(numbers) == words
