"""The batch size grows while that pays, settles at the best, and never tries again what did not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.teacher.passes.batch_size import AUTO, BatchSizeSearch


def run(search: BatchSizeSearch, seconds, fits: int = 1 << 30, passes: int = 1000) -> list[int]:
    """Full passes until it settles; the sizes that were tried, in order."""
    tried = [search.size]
    for _ in range(passes):
        if search.settled:
            break
        if search.size > fits:
            assert search.out_of_memory(search.size)
        else:
            search.passed(search.size, seconds(search.size))
        if search.size != tried[-1]:
            tried.append(search.size)
    return tried


def test_it_doubles_while_the_rate_rises_and_goes_back_to_the_best():
    search = BatchSizeSearch(AUTO)
    tried = run(search, lambda n: max(0.01, n * 0.01 / 64))  # full speed from 64 samples on
    assert tried == [8, 16, 32, 64, 128, 64]
    assert search.settled


def test_it_takes_the_largest_size_that_fits_when_memory_runs_out():
    search = BatchSizeSearch(AUTO)
    assert run(search, lambda n: 0.01, fits=100) == [8, 16, 32, 64, 128, 64]
    assert search.settled and search.size == 64


def test_it_stops_at_the_largest_size_allowed():
    search = BatchSizeSearch(AUTO, largest=40)
    assert run(search, lambda n: 0.01) == [8, 16, 32]
    assert search.settled and search.size == 32
    assert run(BatchSizeSearch(AUTO, largest=32), lambda n: 0.01) == [8, 16, 32]
    assert BatchSizeSearch(AUTO, largest=2).size == 2


def test_a_size_is_decided_by_its_fifth_pass():
    search = BatchSizeSearch(AUTO, largest=40)
    for size in (8, 16):
        assert [search.passed(size, 0.01) for _ in range(5)] == [False] * 4 + [True]
    for done in range(5):
        assert not search.settled, f"{done} passes of the largest size"
        search.passed(32, 0.01)
    assert search.settled


def test_the_first_pass_of_a_size_decides_nothing():
    search = BatchSizeSearch(AUTO)
    for seconds in (1e-6, 0.01, 0.01, 0.01, 0.01):
        search.passed(8, seconds)
    for _ in range(5):
        search.passed(16, 0.01)
    assert search.size == 32


def test_the_slowest_of_devices_may_grow_too():
    search = BatchSizeSearch(AUTO)
    assert run(search, lambda n: 100.0)[:3] == [8, 16, 32]


def test_memory_that_runs_out_ends_the_growing_at_once():
    search = BatchSizeSearch(AUTO)
    assert search.out_of_memory(8)
    assert search.settled and search.size == 4


def test_the_best_size_is_taken_where_more_than_it_did_not_fit():
    search = BatchSizeSearch(AUTO)
    for size in (8, 16, 32, 64):
        for _ in range(5):
            search.passed(size, 0.01)
    assert search.size == 128
    assert search.out_of_memory(100)
    assert search.size == 64


def test_the_best_size_that_does_not_fit_any_more_is_halved():
    search = BatchSizeSearch(AUTO)
    for _ in range(5):
        search.passed(8, 0.01)
    for _ in range(5):
        search.passed(16, 1.0)
    assert search.settled and search.size == 8
    assert search.out_of_memory(8)
    assert search.size == 4


def test_one_slow_pass_among_several_decides_nothing():
    search = BatchSizeSearch(AUTO)
    slow = iter(range(10**6))
    assert run(search, lambda n: 9.0 if next(slow) % 3 == 0 else 0.01, passes=30)[-1] >= 64


def test_passes_that_are_not_full_are_not_measured():
    search = BatchSizeSearch(AUTO)
    for samples in (0, 1, 7, 9, 100):
        for _ in range(50):
            assert not search.passed(samples, 1e-6)
    assert search.size == 8 and not search.settled


def test_a_given_size_never_grows():
    search = BatchSizeSearch(64)
    assert not any(search.passed(64, 1 / (n + 1)) for n in range(100))
    assert search.size == 64


def test_a_pass_in_full_pieces_is_measured_as_that_many_passes():
    search = BatchSizeSearch(AUTO)
    for _ in range(5):
        search.passed(24, 0.03)
    assert search.size == 16
    for _ in range(5):
        search.passed(32, 0.04)  # the same rate
    assert search.settled and search.size == 8


def test_memory_that_runs_out_halves_a_given_size():
    search = BatchSizeSearch(100)
    assert search.out_of_memory(100)
    assert search.size == 50
    assert not search.out_of_memory(100)  # launched before that
    assert search.out_of_memory(30)
    assert search.size == 15


def test_one_sample_cannot_be_cut():
    with pytest.raises(ValueError, match="1 samples"):
        BatchSizeSearch(1).out_of_memory(1)


EVENTS = st.lists(st.tuples(st.booleans(), st.integers(1, 300), st.floats(1e-6, 10)), max_size=300)


@given(st.one_of(st.just(AUTO), st.integers(1, 300)), EVENTS)
def test_whatever_happens_the_size_is_possible_and_never_one_that_did_not_fit(start, events):
    search = BatchSizeSearch(start)
    too_large = 1 << 30
    for full_or_memory, samples, seconds in events:
        before, settled = search.size, search.settled
        if full_or_memory:
            changed = search.passed(search.size * (samples % 3) if samples % 2 else samples, seconds)
        elif samples > 1:
            changed = search.out_of_memory(samples)
            too_large = min(too_large, samples)
        else:
            continue
        assert changed == (search.size != before)
        assert search.size >= 1
        assert not settled or (search.settled and search.size <= before)
        if search.settled:
            assert search.size < too_large


@given(st.integers(2, 5000), st.integers(1, 5000))
def test_retrying_what_did_not_fit_ends_at_what_does(samples, fits):
    """The worker's loop: pieces of ``size`` samples until they fit."""
    search = BatchSizeSearch(samples)
    for _ in range(13):
        if search.size <= fits:
            break
        search.out_of_memory(search.size)
    assert search.size <= fits and (search.size == samples or search.size * 2 + 1 > fits)


@given(st.integers(0, 12), st.floats(1e-4, 1.0))
def test_a_device_that_saturates_is_found_within_one_doubling(power, pass_s):
    saturated = 1 << power
    search = BatchSizeSearch(AUTO)
    run(search, lambda n: pass_s * max(1.0, n / saturated))
    assert search.settled
    assert search.size == max(8, saturated)
