"""Workers that keep failing are left out for a while."""

from __future__ import annotations

from edldist.student.queue.quarantine import Quarantine


def test_failures_in_a_row_quarantine_a_worker_for_longer_each_time() -> None:
    quarantine = Quarantine(after=3, first_s=30, most_s=100)
    assert [quarantine.failed("w", "boom", now=0.0) for _ in range(3)] == [None, None, 30]
    assert "3 failures in a row" in (quarantine.reason("w", now=29.0) or "")
    assert "boom" in (quarantine.reason("w", now=29.0) or "")
    assert quarantine.reason("w", now=30.0) is None
    assert quarantine.failed("w", "boom", now=31.0) == 60
    assert quarantine.failed("w", "boom", now=92.0) == 100
    assert quarantine.failed("w", "boom", now=300.0) == 100


def test_failures_in_quarantine_change_nothing() -> None:
    quarantine = Quarantine(after=1, first_s=30)
    assert quarantine.failed("w", "boom", now=0.0) == 30
    assert quarantine.failed("w", "late", now=1.0) is None
    assert quarantine.reason("w", now=30.0) is None


def test_a_success_clears_and_others_are_not_concerned() -> None:
    quarantine = Quarantine(after=2)
    quarantine.failed("w", "boom", now=0.0)
    quarantine.succeeded("w")
    assert quarantine.failed("w", "boom", now=0.0) is None
    assert quarantine.failed("w", "boom", now=0.0) is not None
    assert quarantine.reason("other", now=0.0) is None
    quarantine.forget("w")
    assert quarantine.reason("w", now=1.0) is None


def test_a_failure_that_was_no_fault_of_its_own_counts_no_more() -> None:
    quarantine = Quarantine(after=3)
    for _ in range(3):
        quarantine.failed("w", "boom", now=0.0)
    assert quarantine.reason("w", now=1.0) is not None
    quarantine.acquit("w")
    assert quarantine.reason("w", now=1.0) is None
    assert quarantine.failed("w", "boom", now=1.0) is not None, "the third again"
    for _ in range(9):
        quarantine.acquit("w")
        quarantine.acquit("stranger")
    assert [quarantine.failed("w", "boom", now=2.0) is None for _ in range(3)] == [True, True, False]


def test_one_failure_less_than_before_is_no_acquittal_while_there_are_enough() -> None:
    quarantine = Quarantine(after=3, first_s=30)
    for now in (0.0, 0.0, 0.0, 1.0):
        quarantine.failed("w", "boom", now)
    quarantine.acquit("w")
    assert "3 failures in a row" in (quarantine.reason("w", now=2.0) or "")
    quarantine.acquit("w")
    assert quarantine.reason("w", now=2.0) is None
