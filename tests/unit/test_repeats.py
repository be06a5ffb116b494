"""Warnings that come again and again."""

from __future__ import annotations

import logging

import pytest

from edldist.observe.repeats import Repeats

LOGGER = logging.getLogger("edldist.tests.repeats")


@pytest.fixture
def repeats(caplog: pytest.LogCaptureFixture) -> Repeats:
    caplog.set_level(logging.DEBUG, LOGGER.name)
    return Repeats(LOGGER)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_the_first_is_said_and_at_the_end_how_many_more_there_were(
    repeats: Repeats, caplog: pytest.LogCaptureFixture
) -> None:
    for rows in range(24):
        repeats.warn("it failed", f" (of {rows})")
    assert warned(caplog) == ["it failed (of 0)", "it failed (of 9) (10 times so far)"]
    repeats.end()
    repeats.end()
    assert warned(caplog)[2:] == ["it failed (14 more)"]


def test_every_one_is_in_the_log_whatever_is_said_of_it(
    repeats: Repeats, caplog: pytest.LogCaptureFixture
) -> None:
    for rows in range(24):
        repeats.warn("it failed", f" (of {rows}.)")
    for rows in range(24):
        assert sum(f"(of {rows}.)" in record.message for record in caplog.records) == 1


def test_what_differs_is_said_by_itself(repeats: Repeats, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        repeats.warn("100% of a")
        repeats.warn("%s of b")
    repeats.warn("once")
    repeats.end()
    assert warned(caplog) == [
        *("100% of a", "%s of b", "once"),
        *("100% of a (2 more)", "%s of b (2 more)"),
    ]


def test_texts_without_end_are_not_kept_and_none_is_lost(
    repeats: Repeats, caplog: pytest.LogCaptureFixture
) -> None:
    repeats.warn("early")
    repeats.warn("early")
    names = [f"error {'x' * number}" for number in range(1_000)]
    for name in names:
        repeats.warn(name)
    assert len(repeats._seen) <= 64
    assert "early (1 more)" in warned(caplog)
    assert names == [words for words in warned(caplog) if words.startswith("error")]


@pytest.mark.timeout(60)
def test_a_long_text_costs_no_more_than_its_length(
    repeats: Repeats, caplog: pytest.LogCaptureFixture
) -> None:
    repeats.warn("x" * 4_000_000)  # by the square of it: days
    assert warned(caplog) == ["x" * 4_000_000]


def test_numbers_do_not_make_another_warning_but_those_of_whom_it_is_about(
    repeats: Repeats, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(9):
        for worker in ("t-1", "t-2"):
            values = (
                f"{number / 7:.3g}, 1e-0{number} of {1000 + number:,} (request cmpl-{number:x}f{number}a)"
            )
            repeats.warn(f"{worker}: token {number} at {values}", of=worker)
    repeats.end()
    first = "token 0 at 0, 1e-00 of 1,000 (request cmpl-0f0a)"
    assert warned(caplog) == [
        *(f"t-1: {first}", f"t-2: {first}"),
        *(f"t-1: {first} (8 more)", f"t-2: {first} (8 more)"),
    ]
