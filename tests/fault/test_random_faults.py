"""Two of the seeds of ``random_faults`` (twenty: ``python -m tests.fault.random_faults``)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault.random_faults import run

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]


def test_random_faults_lose_nothing_and_stop_nothing(tmp_path: Path) -> None:
    outcomes = run(tmp_path, range(2))
    assert all(sum(outcome.faults.values()) >= 5 for outcome in outcomes)
    assert [outcome.violations for outcome in outcomes] == [[], []]


def test_random_faults_change_nothing_in_what_is_kept(tmp_path: Path) -> None:
    (outcome,) = run(tmp_path, range(7, 8), store=True)
    assert sum(outcome.faults.values()) >= 5
    assert outcome.violations == []
