"""The course of a run: bounded whatever its length, true to what was seen, gone on with after a restart."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.coordinator.course import history as history_module
from edldist.coordinator.course.history import GAP_S, MOST_FIGURES, MOST_OF_A_KIND, POINTS, Key, RunHistory
from edldist.coordinator.course.history_file import HistoryFile, read_history
from edldist.coordinator.members.refusals import Refusals
from edldist.observe.event_words import KINDS, describe_event, happening_in_words
from edldist.wire.messages import Course, Event, History, Report, decode, encode

WALL = 1_700_000_000.0
RATE: Key = ("", "samples_per_s")
WORKERS: Key = ("teacher", "workers")


def kept() -> RunHistory:
    return RunHistory("one", 100.0, WALL)


def seconds(history: RunHistory, count: int, first: int = 0, **values: float) -> None:
    """Look once a second, at a rate that grows by one each second unless it is said."""
    for second in range(first, first + count):
        rate = values.get("rate", float(second))
        history.look({RATE: rate, WORKERS: values.get("workers", 2.0)}, 100.0 + second)


def report(step: int | None = None, rank: int = 0, job: str = "digits", **values: object) -> Report:
    told = {**({} if step is None else {"step": step}), **values}
    return Report(reporter="r", seq=1, rank=rank, t=5.0, values=told, job=job)  # type: ignore[arg-type]


def covered(course: Course) -> float:
    """Samples under a curve of which every row stands for a whole step."""
    return sum((rate or 0.0) * course.step_s for rate in course.samples_per_s)


class TestRows:
    def test_the_last_minutes_are_kept_by_the_second(self) -> None:
        history = kept()
        seconds(history, 3)
        told = history.tell()
        assert told.recent.t == pytest.approx([WALL, WALL + 1, WALL + 2], abs=0.001)
        assert told.recent.samples_per_s == [0.0, 1.0, 2.0]
        assert told.recent.groups["teacher"].workers == [2.0, 2.0, 2.0]
        assert told.recent.buffered == [None, None, None]
        assert (told.incarnation, told.wall_s, told.began_s) == ("one", told.recent.t[-1], WALL)

    def test_a_long_run_takes_no_more_memory_than_a_day(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(history_module, "WHOLE_ROWS", 16)
        history = kept()
        seconds(history, 3_000, rate=50.0)
        told = history.tell()
        assert len(told.recent.t) == history_module.RECENT_ROWS
        assert told.whole is not None and 8 <= len(told.whole.t) <= 16
        assert told.whole.step_s == 256  # the shortest power of two of which 16 are enough
        assert set(told.whole.samples_per_s) == {50.0}

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.floats(0, 1e6), min_size=1, max_size=400), st.integers(2, 20))
    def test_thinning_keeps_the_samples_under_the_curve(self, rates: list[float], most: int) -> None:
        steps = history_module._Steps(most)
        for second, rate in enumerate(rates):
            steps.add(history_module._Row(WALL + second, 1.0, {RATE: rate}))
            assert len(steps.rows) <= most
        total = sum(row.seconds * row.values[RATE] for row in steps.rows)
        assert total == pytest.approx(sum(rates))
        assert sum(row.seconds for row in steps.rows) == pytest.approx(len(rates))

    def test_a_group_that_was_not_here_is_unknown_and_not_empty(self) -> None:
        history = kept()
        history.look({RATE: 1.0}, 100.0)
        history.look({RATE: 1.0, WORKERS: 1.0}, 101.0)
        assert history.tell().recent.groups["teacher"].workers == [None, 1.0]

    def test_a_second_that_nobody_looked_at_stands_for_itself_alone(self) -> None:
        history = kept()
        history.look({RATE: 10.0}, 100.0)
        history.look({RATE: 20.0}, 1_000.0)  # the machine slept meanwhile
        assert [row.seconds for row in history._recent] == [1.0, GAP_S]

    def test_its_time_never_goes_back(self) -> None:
        history = RunHistory("two", 5.0, WALL - 3600)  # this clock is an hour behind the former one's
        former = kept()
        seconds(former, 3)
        history.recall(former.tell())
        history.look({RATE: 1.0}, 6.0)
        times = history.tell().recent.t
        assert times == sorted(times) and times[-1] == pytest.approx(WALL + 3, abs=0.01)


class TestFigures:
    def test_what_rank_0_reports_is_kept_with_its_step(self) -> None:
        history = kept()
        history.report(report(10, steps=40, epoch=1, loss=0.5, name="words", fine=True), 101.0)
        history.report(report(20, loss=math.nan), 102.0)
        history.report(report(loss=0.25), 103.0)
        history.report(report(99, rank=1, loss=7.0), 104.0)
        told = history.tell()
        (loss,) = told.figures
        assert (loss.job, loss.name, loss.every, loss.last) == ("digits", "loss", 1, 0.25)
        assert (loss.step, loss.value) == ([10, 20, 20], [0.5, None, 0.25])
        assert loss.t == pytest.approx([WALL + 1, WALL + 2, WALL + 3], abs=0.001)  # the coordinator's clock
        (progress,) = told.progress
        assert (progress.job, progress.step, progress.steps, progress.epoch) == ("digits", 20, 40, 1)

    def test_points_are_as_few_as_they_may_be_and_are_means(self) -> None:
        history = kept()
        for number in range(5 * POINTS):
            history.report(report(number, loss=float(number)), 100.0 + number)
        (loss,) = history.tell().figures
        assert loss.every == 8 and POINTS / 2 <= len(loss.value) <= POINTS
        assert loss.value[0] == 3.5 and loss.step[0] == 7
        assert loss.last == 5 * POINTS - 1

    def test_a_script_that_reports_ever_new_names_fills_no_memory(self) -> None:
        history = kept()
        for number in range(200):
            history.report(report(1, **{f"loss{number}": 0.5}), 100.0)
            history.report(report(1, job=f"job{number}", loss=0.5), 100.0)
        assert len(history.tell().figures) <= MOST_FIGURES
        assert len(history.tell().progress) <= history_module.MOST_JOBS


class TestHappenings:
    def test_are_told_in_words_with_their_tone(self) -> None:
        history = kept()
        history.happened(
            Event(event="teacher_lost", t=1.0, fields={"id": "t-0", "silent_s": 3.25, "reason": "x" * 9_000}),
            101.0,
        )
        (lost,) = history.tell().happenings
        assert (lost.event, lost.tone, lost.id) == ("teacher_lost", "bad", "t-0")
        assert lost.text.startswith("teacher t-0 lost (xxx") and len(lost.text) <= history_module.MOST_TEXT
        assert lost.fields == {"id": "t-0", "silent_s": 3.25}

    def test_many_of_one_kind_push_out_no_other(self) -> None:
        history = kept()
        history.happened(Event(event="teacher_lost", t=1.0, fields={"id": "t-0"}), 100.0)
        for step in range(1_000):
            history.happened(Event(event="checkpoint_saved", t=1.0, fields={"step": step}), 101.0 + step)
            history.happened(Event(event="task_requeued", t=1.0, fields={}), 101.0 + step)
        told = history.tell()
        assert [each.event for each in told.happenings] == ["teacher_lost"] + MOST_OF_A_KIND * [
            "checkpoint_saved"
        ]

    @pytest.mark.parametrize("event", KINDS)
    def test_every_kind_has_words_whatever_its_fields(self, event: str) -> None:
        assert happening_in_words({"event": event})
        assert happening_in_words({"event": event, "id": None, "step": "x", "seconds": [], "silent_s": {}})
        assert describe_event({"event": event}) in (None, happening_in_words({"event": event}))


class TestSince:
    def test_only_what_came_after_is_told(self) -> None:
        history = kept()
        seconds(history, 3)
        history.report(report(1, loss=0.5), 102.0)
        first = history.tell()
        assert history.tell(first.wall_s).recent.t == []
        history.look({RATE: 9.0}, 103.0)
        history.report(report(2, loss=0.25), 103.0)
        history.happened(Event(event="remark", t=1.0, fields={"text": "now"}), 103.0)
        news = history.tell(first.wall_s)
        assert news.whole is None and news.since == first.wall_s
        assert news.recent.samples_per_s == [9.0]
        assert [figure.value for figure in news.figures] == [[0.25]]
        assert [each.text for each in news.happenings] == ["now"]

    def test_nothing_falls_between_two_questions_of_one_moment(self) -> None:
        history = kept()
        found: list[str] = []
        since = history.tell().wall_s
        for number in range(20):  # all at one reading of the clock
            history.happened(Event(event="remark", t=1.0, fields={"text": str(number)}), 100.0)
            told = history.tell(since)
            since = told.wall_s
            found += [each.text for each in told.happenings]
        assert found == [str(number) for number in range(20)]


class TestRestart:
    def full(self) -> RunHistory:
        history = kept()
        seconds(history, 2_000, rate=40.0)
        for step in range(3 * POINTS):
            history.report(report(step, loss=1.0), 2_000.0)
        history.happened(Event(event="teacher_lost", t=1.0, fields={"id": "t"}), 2_100.0)
        return history

    def test_a_new_coordinator_tells_what_the_former_one_did(self, tmp_path: Path) -> None:
        history = self.full()
        path = tmp_path / "history.json"
        HistoryFile(path, history).close()
        history.look({RATE: 40.0}, 2_100.0)
        file = HistoryFile(path, RunHistory("none", 0.0, 0.0))
        file.close()
        history = self.full()
        path.write_bytes(msgspec.json.encode(history.tell()))
        before = history.tell()
        successor = RunHistory("two", 7.0, WALL + 2_200.0)
        HistoryFile(path, successor).close()
        after = successor.tell()
        assert after.recent == before.recent and after.whole == before.whole
        assert after.figures == before.figures and after.happenings == before.happenings
        assert (after.began_s, after.progress) == (WALL, before.progress)
        assert after.incarnation == "two"
        for step in range(2 * POINTS):
            successor.report(report(step, loss=2.0), 8.0)
        assert len(successor.tell().figures[0].value) <= POINTS

    def test_what_is_new_is_in_the_file_at_the_end(self, tmp_path: Path) -> None:
        history = kept()
        file = HistoryFile(tmp_path / "history.json", history)
        seconds(history, 3)
        file.close()
        found = read_history(tmp_path / "history.json")
        assert found is not None and found.recent.samples_per_s == [0.0, 1.0, 2.0]
        assert json.loads((tmp_path / "history.json").read_bytes())["type"] == "history"

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"[]", b'{"type": "status"}', b"\xff" * 40, b"[" * 100_000, b"null"]
    )
    def test_a_damaged_file_begins_anew_and_says_so(
        self, content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "history.json"
        path.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            assert read_history(path) is None
        assert str(path) in caplog.text and "anew" in caplog.text

    def test_columns_of_different_lengths_harm_nobody(self) -> None:
        whole = self.full().tell()
        torn = msgspec.structs.replace(
            whole,
            recent=msgspec.structs.replace(whole.recent, samples_per_s=[1.0], groups={}),
            figures=[msgspec.structs.replace(whole.figures[0], t=[1.0, 2.0], every=0)],
        )
        successor = RunHistory("two", 0.0, WALL)
        successor.recall(torn)
        assert successor.tell().recent.samples_per_s[:2] == [1.0, None]
        successor.look({RATE: 1.0}, 1.0)
        assert successor.tell().recent.samples_per_s[-2:] == [None, 1.0]

    def test_a_disk_that_takes_nothing_is_said_once(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        history = kept()
        file = HistoryFile(tmp_path / "gone" / "history.json", history)
        with caplog.at_level(logging.WARNING):
            seconds(history, 1)
            file._keep()
            seconds(history, 1, first=1)
            file.close()
        assert caplog.text.count("cannot write") == 1


class TestRefusals:
    """Who was refused is known to the next coordinator."""

    @staticmethod
    def event(name: str, worker: str, **fields: str) -> Event:
        return Event(event=name, t=0.0, fields={"id": worker, "name": "big", "host": "h", **fields})

    def run(self, *events: Event) -> RunHistory:
        history, successor = kept(), RunHistory("two", 7.0, WALL + 100.0)
        for second, each in enumerate(events):
            history.happened(each, 100.0 + second)
        successor.recall(msgspec.json.decode(msgspec.json.encode(history.tell()), type=History))
        return successor

    def test_until_they_are_let_in(self) -> None:
        refused = self.event("teacher_refused", "t2", reason="another model")
        twice = self.event("teacher_refused", "t2", reason="x" * 1_000)
        joined = self.event("teacher_joined", "t2")
        assert [each.fields["reason"] for each in self.run(refused).refused()] == ["another model"]
        (last,) = self.run(refused, joined, twice).refused()
        assert last.id == "t2" and str(last.fields["reason"]).startswith("xxx")
        assert len(str(last.fields["reason"])) <= history_module.MOST_TEXT
        assert self.run(refused, twice, joined).refused() == []

    def test_by_all_that_a_status_tells(self) -> None:
        history = self.run(self.event("teacher_refused", "t2", reason="another model"))
        refusals = Refusals()
        refusals.recall(history.refused(), 7.0, WALL + 100.0)
        (one,) = refusals
        assert (one.id, one.role, one.group, one.host) == ("t2", "teacher", "big", "h")
        assert one.reason == "another model" and one.at == pytest.approx(7.0 - 100.0, abs=0.01)
        refusals.let_in("t2")
        assert not list(refusals)

    def test_for_an_hour(self) -> None:
        refusals = Refusals()
        history = self.run(self.event("teacher_refused", "t2", reason="another model"))
        refusals.recall(history.refused(), 7.0, WALL + 3_700.0)
        assert not list(refusals)


def test_it_travels_as_a_message() -> None:
    history = kept()
    seconds(history, 700)
    history.report(report(1, loss=0.5), 800.0)
    told = history.tell()
    assert decode(encode(told)) == told
    assert msgspec.json.decode(msgspec.json.encode(told), type=History) == told
