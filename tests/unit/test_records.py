"""The numbered list of what happened: pages, bounds, and every report once."""

from __future__ import annotations

from typing import Any

from edldist.coordinator.records import MAX_BYTES_A_REPLY, MAX_RECORDS, MAX_RECORDS_A_REPLY, Records
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
