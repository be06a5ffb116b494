"""The numbered list of what happened: pages, bounds, and every report once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from edldist.coordinator.course import records as records_module
from edldist.coordinator.course.records import MAX_BYTES_A_REPLY, MAX_RECORDS, MAX_RECORDS_A_REPLY, Records
from edldist.wire.messages import Event, Report, Status
from tests.fault.harness import all_records

WALL = 1_700_000_000.0


def report(seq: int, reporter: str = "p") -> Report:
    return Report(reporter=reporter, seq=seq, rank=0, t=WALL, values={"step": seq})


def test_reports_are_held_once_whatever_is_repeated() -> None:
    records = Records()
    assert [records.add_once(report(n)) for n in (1, 2, 2, 1, 3)] == [1, 2, 2, 2, 3]
    assert [r.seq for r in records.since(0)[0] if isinstance(r, Report)] == [1, 2, 3]
    assert records.add_once(report(1, "q")) == 1
    assert records.last == 4


def test_a_report_lost_on_the_way_is_waited_for_and_a_vanished_one_is_not() -> None:
    records = Records()
    # A fresh coordinator: the former one had acknowledged 6, so nothing before 7 ever comes.
    assert [records.add_once(report(7)) for _ in range(2)] == [0, 7]
    assert [records.add_once(report(n)) for n in (9, 10)] == [7, 7]
    assert [records.add_once(report(n)) for n in (8, 9, 10)] == [8, 9, 10]
    assert [records.add_once(report(n)) for n in (13, 14, 13, 14)] == [10, 10, 13, 14]
    assert [r.seq for r in records.since(0)[0] if isinstance(r, Report)] == [7, 8, 9, 10, 13, 14]


def event(n: int, text: str = "") -> Event:
    return Event(event="e", t=WALL, fields={"n": n, "text": text})


def test_records_are_read_in_pages_without_gap_or_repetition() -> None:
    records = Records()
    assert records.since(0) == ([], 0)
    total = MAX_RECORDS_A_REPLY * 2 + 5
    for n in range(1, total + 1):
        records.add(event(n))
    seen: list[Any] = []
    since = 0
    for expected in (MAX_RECORDS_A_REPLY, MAX_RECORDS_A_REPLY, 5):
        page, since = records.since(since)
        assert len(page) == expected
        seen += [e.fields["n"] for e in page if isinstance(e, Event)]
    assert seen == list(range(1, total + 1)) and since == total
    assert records.since(since) == ([], total)
    assert records.since(10**9) == ([], total)


def test_tests_of_faults_see_all_pages_also_of_a_coordinator_that_is_started_anew_meanwhile() -> None:
    records = Records()
    for n in range(1, 2 * MAX_RECORDS_A_REPLY + 6):
        records.add(event(n))
    asked = []

    def query(since: int) -> Status:
        asked.append(since)
        page, seq = records.since(since)
        incarnation = "one" if len(asked) < 3 else "two"
        return Status(incarnation=incarnation, uptime_s=1.0, members=[], records=page, seq=seq)

    found = [each.fields["n"] for each in all_records(query) if isinstance(each, Event)]
    assert found == list(range(1, 2 * MAX_RECORDS_A_REPLY + 6)) and asked.count(0) == 2


def test_old_records_make_room_and_large_ones_fill_a_reply_sooner() -> None:
    records = Records()
    for n in range(1, MAX_RECORDS + 11):
        records.add(event(n))
    page, seq = records.since(3)
    assert isinstance(page[0], Event) and page[0].fields["n"] == 11 and seq == 10 + MAX_RECORDS_A_REPLY
    large = Records()
    for n in range(1, 6):
        large.add(event(n, "x" * (MAX_BYTES_A_REPLY // 2)))
    assert [large.since(k)[1] for k in (0, 1, 4)] == [1, 2, 5]
    for n in range(40):
        large.add(event(n, "x" * MAX_BYTES_A_REPLY))
    assert large.last - len(large._ring) > 25


def test_the_next_report_ends_the_wait_for_those_before_another_one() -> None:
    records = Records()
    assert [records.add_once(report(n)) for n in (5, 1, 5)] == [0, 1, 1], "2 to 4 may still come"
    assert records.add_once(report(5)) == 5
    assert [records.add_once(report(n, "q")) for n in (9, 7, 9, 7)] == [0, 0, 0, 7], "the first that is there"


def test_a_report_that_is_not_to_be_kept_is_acknowledged_all_the_same() -> None:
    told: list[Event | Report] = []
    records = Records(told.append)
    assert records.add_once(report(1), keep=False) == 1 and records.last == 0
    assert records.add_once(report(2)) == 2 and told == [report(2)]
    assert records.add_once(report(2)) == 2 and told == [report(2)]


def test_reporters_that_were_silent_for_longest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "MAX_REPORTERS", 2)
    records = Records()
    for name in ("a", "b", "a", "c"):
        records.add_once(report(1, name))
    assert [records.add_once(report(1, name)) for name in ("a", "c")] == [1, 1] and records.last == 3
    assert records.add_once(report(1, "b")) == 1 and records.last == 4, "it is taken for a new one"


def test_events_of_one_name_are_found_from_the_newest_on() -> None:
    records = Records()
    for n in range(1, 5):
        records.add(event(n))
        records.add(report(n))
    records.add(Event(event="other", t=WALL, fields={}))
    assert [found.fields["n"] for found in records.events_since(0, "e")] == [4, 3, 2, 1]
    assert [found.fields["n"] for found in records.events_since(4, "e")] == [4, 3]
    assert list(records.events_since(9, "other")) == list(records.events_since(99, "other")) == []
    assert len(list(records.events_since(8, "other"))) == 1


def test_what_happened_is_counted_of_events_alone() -> None:
    records = Records()
    records.add(event(1))
    records.add(report(1))
    assert +Counter(records.happenings.told()["events"]) == {"e": 1}


def test_large_records_are_let_go_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "MAX_BYTES", 1000)
    records = Records()
    for n in range(1, 4):
        records.add(event(n, "x" * 300))
    assert len(records.since(0)[0]) == 2, "three of some 340 bytes are too many"
    records.add(event(4, "x" * 2000))
    assert [found.fields["n"] for found in records.since(0)[0]] == [4], "one is held, however large"
    records.add(event(5))
    assert [found.fields["n"] for found in records.since(0)[0]] == [5]
