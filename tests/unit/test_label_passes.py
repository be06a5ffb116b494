"""When ``edldist label`` has labelled all, when it reads what is missing again, and when that is no use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.errors import StoreError
from edldist.labeller.passes import Passes


def test_nothing_missing_is_the_end() -> None:
    assert Passes().judge(0, 0, "") == "done"


def test_what_is_left_out_as_poison_is_not_waited_for() -> None:
    assert Passes().judge(3, 3, "") == "done"


def test_fewer_than_before_are_tried_again() -> None:
    passes = Passes()
    assert passes.judge(100, 0, "") == "again"
    assert passes.judge(40, 2, "") == "again"
    assert passes.judge(2, 2, "") == "done"
    assert passes.number == 3


def test_a_store_that_takes_no_more_is_named_with_what_to_do() -> None:
    passes = Passes()
    passes.judge(100, 0, "")
    with pytest.raises(StoreError, match=r"100 samples were labelled.*Raise store.disk.*goes on from there"):
        passes.judge(100, 0, "")


def test_the_stores_own_trouble_ends_it_at_once() -> None:
    with pytest.raises(StoreError, match=r"98 samples were labelled.*: no space left"):
        Passes().judge(100, 2, "no space left")


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50))
def test_it_ends_whatever_is_missing_behind_each_pass(missing: list[int]) -> None:
    """No more passes than samples: each one has to bring something."""
    passes = Passes()
    for count in [*missing, *([missing[-1]] * 2)]:
        try:
            if passes.judge(count, 0, "") == "done":
                assert count == 0
                return
        except StoreError:
            return
    raise AssertionError("it would go on for ever")
