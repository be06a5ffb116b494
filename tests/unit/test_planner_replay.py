"""A run in virtual time, against what can be worked out by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist_launch.planner.replay import replay
from edldist_launch.planner.setting import Loop, Setting
from tests.unit.planner import IO_S, pace

TRIP_S = 0.0005


def test_a_worker_that_is_too_slow_is_busy_all_the_time() -> None:
    paces = {"cpu": pace(0.01, 0.001)}
    done = replay(Setting.of(32, 8, {"cpu": 1}), Loop(1, 64, 0.001), paces)
    assert done.samples_per_s == pytest.approx(32 / 0.042, rel=0.02)
    assert done.busy["cpu"] == pytest.approx(1, abs=0.02)
    assert done.efficiency == pytest.approx(done.samples_per_s / 64_000)
    # Two turns are held: a task waits for the pass before it, then for its own.
    assert done.task_p50_s == pytest.approx(2 * 0.042, rel=0.05)
    # Two passes a batch, less the loop's own time.
    assert done.wait_p95_s == pytest.approx(2 * 0.042 - 0.001, rel=0.05)


def test_95_percent_are_those_with_one_long_pass_before_their_end() -> None:
    """Batches come two at a time, and the second waits for the first. One pass in five takes three times as
    long: of a hundred tasks 40 take one pass, 32 two, 10 three, 16 four, and 2 six."""
    uneven = dataclasses.replace(pace(0.01, 0.001), spread=(1.0,) * 4 + (3.0,))
    done = replay(Setting.of(32, 8, {"cpu": 1}), Loop(1, 32, 0.5), {"cpu": uneven})
    assert done.task_p50_s == pytest.approx(2 * 0.042, rel=0.05)
    assert done.task_p95_s == pytest.approx(4 * 0.042, rel=0.05)
    assert done.row_p95_s == pytest.approx(4 * 0.042, rel=0.05)


def test_a_loop_that_is_slower_than_its_workers_never_waits() -> None:
    done = replay(Setting.of(64, 8, {"cpu": 2}), Loop(1, 64, 0.5), {"cpu": pace(0.01, 0.001)})
    assert done.efficiency == pytest.approx(1, abs=0.001)
    assert done.starved == 0
    assert done.busy["cpu"] == pytest.approx(0.074 / (2 * 0.5), rel=0.1)


def test_a_loop_that_reads_nothing_ahead_waits() -> None:
    paces = {"cpu": pace(0.01, 0.001)}
    shallow = replay(Setting(64, 1, (("cpu", 1),), 0), Loop(1, 64, 0.1), paces, TRIP_S)
    deep = replay(Setting.of(64, 8, {"cpu": 1}), Loop(1, 64, 0.1), paces, TRIP_S)
    assert deep.efficiency > 0.99
    assert shallow.efficiency < 0.9
    assert shallow.starved == pytest.approx(1 - shallow.efficiency, abs=0.02)


def test_workers_of_several_types_give_the_sum_of_their_rates() -> None:
    paces = {"cpu": pace(0.01, 0.001), "gpu": pace(0.002, 0.0001, "gpu", overlaps=True)}
    done = replay(Setting.of(32, 16, {"cpu": 2, "gpu": 1}), Loop(1, 128, 0.001), paces)
    assert done.samples_per_s == pytest.approx(2 * 32 / 0.042 + 32 / 0.0052, rel=0.05)


def test_ranks_step_together_and_share_the_workers() -> None:
    paces = {"cpu": pace(0.01, 0.001)}
    one = replay(Setting.of(32, 8, {"cpu": 2}), Loop(1, 64, 0.01), paces)
    two = replay(Setting.of(32, 8, {"cpu": 2}), Loop(2, 64, 0.01), paces)
    assert two.samples_per_s == pytest.approx(one.samples_per_s, rel=0.05)
    assert two.efficiency == pytest.approx(one.efficiency / 2, rel=0.05)


def test_sequences_cost_their_tokens() -> None:
    paces = {"cpu": pace(0.01, 0.0001)}
    done = replay(Setting.of(512, 8, {"cpu": 1}), Loop(1, 8, 0.001, sample_rows=64), paces)
    assert done.samples_per_s == pytest.approx(8 / (0.01 + 512 * 0.0001), rel=0.02)


SETTINGS = st.builds(
    Setting.of,
    batch_size=st.sampled_from([16, 24, 64]),
    high_watermark=st.sampled_from([2, 8]),
    counts=st.fixed_dictionaries({"cpu": st.integers(1, 4), "gpu": st.integers(0, 2)}),
)
LOOPS = st.builds(Loop, st.integers(1, 3), st.sampled_from([50, 64]), st.sampled_from([0.005, 0.05]))
PACES = {"cpu": pace(0.004, 0.0005), "gpu": pace(0.001, 0.0001, "gpu", overlaps=True)}


@settings(max_examples=12, deadline=None)
@given(SETTINGS, LOOPS)
def test_nothing_is_faster_than_its_parts(setting: Setting, loop: Loop) -> None:
    done = replay(setting, loop, PACES)
    given_s = sum(count * PACES[device].rows_per_s(setting.batch_size) for device, count in setting.counts)
    assert 0 < done.samples_per_s <= min(loop.samples_per_s, given_s) * 1.05
    assert 0 <= done.starved <= 1 and 0 < done.efficiency <= 1
    assert all(0 < busy <= 1 for busy in done.busy.values())
    # Nobody's labels leave before the device can have made the least that there is to make.
    assert done.task_p50_s >= 0.001 + 2 * IO_S
    assert done.task_p50_s <= done.task_p95_s


@settings(max_examples=4, deadline=None)
@given(SETTINGS, LOOPS)
def test_the_same_seed_gives_the_same_figures(setting: Setting, loop: Loop) -> None:
    assert replay(setting, loop, PACES, seed=3) == replay(setting, loop, PACES, seed=3)
