"""What stage rows say of workers: read, and fitted."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist_launch.planner.line import fit_line
from edldist_launch.planner.pace import fit_paces, sizes_of
from edldist_launch.planner.rows import parse_rows
from tests.unit.planner import row, rows

SIZES = st.lists(st.integers(1, 512), min_size=2, max_size=8, unique=True)
SECONDS = st.floats(1e-5, 1.0)


@given(SIZES, SECONDS, st.floats(1e-6, 0.01))
def test_a_line_is_found_again(sizes: list[int], base_s: float, row_s: float) -> None:
    line = fit_line(sizes * 5, [base_s + row_s * size for size in sizes] * 5)
    for size in (*sizes, 1, 600):
        assert line.at(size) == pytest.approx(base_s + row_s * size, rel=1e-3)
    assert line.error < 1e-6


@given(SIZES, SECONDS, st.floats(1e-6, 0.01), st.integers(0, 100))
def test_outliers_do_not_count(sizes: list[int], base_s: float, row_s: float, seed: int) -> None:
    rng = random.Random(seed)
    seen, took = [], []
    for size in sizes:
        seen += [size] * 11
        took += [base_s + row_s * size] * 7 + [rng.uniform(1, 100) for _ in range(4)]
    line = fit_line(seen, took)
    for size in sizes:
        assert line.at(size) == pytest.approx(base_s + row_s * size, rel=1e-3)


@given(st.lists(st.tuples(st.integers(1, 512), st.floats(0, 10)), min_size=1, max_size=30))
def test_a_line_is_never_negative_and_never_falls(passes: list[tuple[int, float]]) -> None:
    line = fit_line([size for size, _ in passes], [took for _, took in passes])
    at = [line.at(size) for size in range(1, 600, 7)]
    assert at[0] >= 0
    assert at == sorted(at)


def test_small_passes_may_lie_on_a_floor() -> None:
    sizes = [1, 2, 4, 8, 16, 32, 64, 128]
    line = fit_line(sizes * 5, [max(0.01, 0.0004 * size) for size in sizes] * 5)
    assert line.at(1) == pytest.approx(0.01)
    assert line.at(16) == pytest.approx(0.01)
    assert line.at(100) == pytest.approx(0.04, rel=0.01)


def test_rows_are_read_and_what_is_none_is_counted() -> None:
    good = json.dumps(row(8, 0.01)).encode()
    strangers = [
        b"{half a line",
        b"[]",
        b'"text"',
        json.dumps(row(0, 0.01)).encode(),
        json.dumps(row(8, -1.0)).encode(),
        json.dumps(row(8, 0.01, stages={"receive": 0.1})).encode(),
        json.dumps(row(8, 0.01, t="now")).encode(),
        json.dumps(row(8, 0.01)).replace('"t": 1.0', '"t": 1e999').encode(),
        b"\xff\xfe",
        b"[" * 100_000,
    ]
    read = parse_rows([good, b"\n", *strangers, good])
    assert len(read.rows) == 2
    assert read.damaged == len(strangers)
    assert read.words[0].startswith("line 3: ")


def test_paces_are_fitted_by_the_type_of_device() -> None:
    lines = rows((8, 16, 32), 0.004, 0.0005) + rows((8, 32), 0.001, 0.0001, device="NVIDIA H100")
    paces = fit_paces(parse_rows(lines).rows)
    assert set(paces) == {"cpu", "NVIDIA H100"}
    assert paces["cpu"].takes(24, "forward") == pytest.approx(0.016, rel=0.03)
    assert paces["NVIDIA H100"].takes(24, "forward") == pytest.approx(0.0034, rel=0.03)
    assert paces["cpu"].sizes == (8, 32)
    assert paces["cpu"].error < 0.02
    assert not paces["cpu"].overlaps and paces["NVIDIA H100"].overlaps
    assert paces["cpu"].spread[0] <= 1.0 <= paces["cpu"].spread[-1]


def test_tokens_are_what_the_passes_of_sequences_are_counted_in() -> None:
    read = parse_rows([json.dumps(row(4, 0.01, rows=512)).encode()] * 5)
    assert sizes_of(read.rows) == [512]


def test_a_size_that_was_hardly_seen_is_none() -> None:
    read = parse_rows(rows((8,), 0.004, 0.0005) + rows((40,), 0.004, 0.0005, each=2))
    assert sizes_of(read.rows) == [8]


def test_sizes_are_those_that_were_seen_often() -> None:
    """The last batch of an epoch comes alone: nobody is to plan with its size."""
    lines = [*rows((16, 64), 0.01, 0.001), *rows((5,), 0.01, 0.001, each=1)]
    assert fit_paces(parse_rows(lines).rows)["cpu"].sizes == (16, 64)
