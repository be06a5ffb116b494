"""A job's events are kept whatever is in them, and whatever the disk says."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from edldist_launch.record.eventfile import EventFile, json_text, read_events

FULL = Path("/dev/full")  # takes nothing, as a full disk does


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {"t": float(number), "event": "told"} | fields


def test_what_is_no_text_and_no_number_is_written_as_far_as_json_can_say_it(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "events.jsonl")
    file.append(
        event(1, error="no such file: /data/\udcff.jpg", loss=float("nan"), parts=[float("inf"), 2.0])
    )
    file.append(event(2, path=tmp_path))
    file.close()
    first, second = read_events(file.path)
    assert first["error"] == "no such file: /data/?.jpg"
    assert (first["loss"], first["parts"]) == (None, [None, 2.0])
    assert second["path"] == str(tmp_path)
    assert json.loads(json_text({"text": "é→ \udcff"})) == {"text": "é→ ?"}


def test_events_wait_for_a_full_disk_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    file = EventFile(FULL)
    for number in range(3):
        file.append(event(number))
    assert not file.write()
    assert len(caplog.records) == 1 and "the job goes on, events wait" in caplog.text
    place = tmp_path / "events.jsonl"
    with place.open("ab") as disk:
        os.dup2(disk.fileno(), file._descriptor)  # it has room again
    assert file.write()
    assert [each["t"] for each in read_events(place)] == [0.0, 1.0, 2.0]
    assert "is written again; 0 events were lost" in caplog.text
    file.close()


def test_of_too_many_that_wait_the_oldest_are_given_up_and_counted(tmp_path: Path) -> None:
    file = EventFile(FULL, most_waiting=2)
    for number in range(5):
        file.append(event(number))
    assert file.lost == 3
    place = tmp_path / "events.jsonl"
    with place.open("ab") as disk:
        os.dup2(disk.fileno(), file._descriptor)
    file.close()
    assert [each["t"] for each in read_events(place)] == [3.0, 4.0]


def test_a_line_that_was_left_half_written_spoils_no_other(tmp_path: Path) -> None:
    place = tmp_path / "events.jsonl"
    place.write_bytes(b'{"t": 1.0, "event": "told"}\n{"t": 2.0, "ev')
    file = EventFile(place)
    file.append(event(3))
    file.close()
    assert [each["t"] for each in read_events(place)] == [1.0, 3.0]
