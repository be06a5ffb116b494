"""``stages.jsonl``: rows of single tasks, in a file that is bounded, and never in the job's way."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from edldist.coordinator.course import stage_file
from edldist.coordinator.course.stage_file import MOST_ROWS_S, MOST_WAITING, STAGES_FILE_BEFORE, StageFile
from edldist.wire.messages import STAGES, Register, StageRow


def worker(name: str = "t-0") -> Register:
    return Register(id=name, role="teacher", process=f"p-{name}", group="big", device_type="cpu")


def row(number: int = 1) -> StageRow:
    return StageRow(
        ago_s=0.5,
        samples=number,
        rows=number,
        tasks=2,
        bytes_in=100,
        bytes_out=10,
        stages=[0.001 * at for at in range(len(STAGES))],
        waits=[0.0] * len(STAGES),
        total_s=0.028,
    )


def told(path: Path) -> list[int]:
    return [json.loads(line)["batch"] for line in path.read_text().splitlines()]


def test_a_row_says_who_did_what_and_how_long_each_stage_took(tmp_path: Path) -> None:
    file = StageFile(tmp_path / "stages.jsonl")
    file.take(worker(), [row(32)], 2, 10.0, 1000.0)
    file.close()
    (line,) = map(json.loads, (tmp_path / "stages.jsonl").read_text().splitlines())
    stages = {stage: 0.001 * at for at, stage in enumerate(STAGES)}
    assert line == {
        "t": 999.5,
        "worker": "t-0",
        "device": "cpu",
        "group": "big",
        "batch": 32,
        "rows": 32,
        "tasks": 2,
        "bytes_in": 100,
        "bytes_out": 10,
        "stages": stages,
        "total_s": 0.028,
        "wait_s": dict.fromkeys(STAGES, 0.0),
    }


def test_a_successor_adds_to_what_is_there_and_mends_a_line_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "stages.jsonl"
    path.write_text('{"batch": 1}\n{"ba')
    file = StageFile(path)
    file.take(worker(), [row(2)], 1, 0.0, 0.0)
    file.close()
    assert path.read_text().startswith('{"batch": 1}\n{"ba\n{')
    assert json.loads(path.read_text().splitlines()[-1])["batch"] == 2


def test_a_file_that_is_too_long_is_put_aside_and_two_are_the_most(tmp_path: Path) -> None:
    path, before = tmp_path / "stages.jsonl", tmp_path / STAGES_FILE_BEFORE
    for number in range(1, 6):
        file = StageFile(path, most_bytes=700)  # two rows
        file.take(worker(), [row(number)], 1, 0.0, 0.0)
        file.close()
    assert told(before) == [3, 4] and told(path) == [5]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["stages.jsonl", STAGES_FILE_BEFORE]


def test_a_crowd_is_thinned_out_evenly_and_a_few_workers_tell_all(tmp_path: Path) -> None:
    few, crowd = tmp_path / "few.jsonl", tmp_path / "crowd.jsonl"
    file = StageFile(few)
    for second in range(10):
        for name in ("a", "b"):
            file.take(worker(name), [row()] * 8, 3, float(second), 0.0)
    file.close()
    assert len(told(few)) == 160 and file.dropped == 0
    file = StageFile(crowd)
    for second in range(60):
        for number in range(1000):
            file.take(worker(f"t-{number}"), [row()], 1001, float(second), 0.0)
        file._write()
    file.close()
    count: dict[str, int] = {}
    for line in crowd.read_text().splitlines():
        name = json.loads(line)["worker"]
        count[name] = count.get(name, 0) + 1
    assert len(count) == 1000 and max(count.values()) - min(count.values()) <= 1
    assert sum(count.values()) <= 61 * MOST_ROWS_S + 1000


def test_workers_that_are_gone_leave_nothing_behind(tmp_path: Path) -> None:
    file = StageFile(tmp_path / "stages.jsonl")
    for number in range(1000):
        file.take(worker(f"t-{number}"), [row()], 4, float(number), 0.0)
    file.close()
    assert len(file._due) <= 9


def test_a_disk_that_takes_nothing_is_said_once_and_costs_rows_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "gone" / "stages.jsonl"
    file = StageFile(path)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            file.take(worker(), [row()], 1, 0.0, 0.0)
            file._write()
        assert caplog.text.count("cannot write") == 1 and file.dropped == 3
        path.parent.mkdir()
        file.take(worker(), [row(7)], 1, 0.0, 0.0)
        file.close()
    assert told(path) == [7] and "is written again; 3 rows were dropped" in caplog.text


def test_a_disk_that_hangs_fills_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_file, "WRITE_EVERY_S", 3600.0)
    file = StageFile(tmp_path / "stages.jsonl")
    for second in range(MOST_WAITING + 50):
        file.take(worker(), [row()], 1, float(second), 0.0)
    assert len(file._waiting) == MOST_WAITING and file.dropped == 50
    file.close()
