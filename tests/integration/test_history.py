"""The course of a run from a live coordinator: the same over the wire and over HTTP, and after a restart."""

from __future__ import annotations

import contextlib
import http.client
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edldist.wire.messages import Ack, History, Report
from edldist.wire.query import StatusClient
from tests.integration.members import WITHIN_S, Running, student, teacher, until

pytestmark = pytest.mark.timeout(240)


def get(running: Running, path: str) -> tuple[int, Any]:
    assert running.coordinator.http_address is not None
    connection = http.client.HTTPConnection(running.coordinator.http_address, timeout=WITHIN_S)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def figures(history: History) -> dict[str, list[float | None]]:
    return {figure.name: figure.value for figure in history.figures}


def test_is_told_and_gone_on_with_after_a_restart(tmp_path: Path) -> None:
    file = str(tmp_path / "history.json")
    with contextlib.ExitStack() as stack:
        first = Running(history_file=file)
        stack.callback(first.stop)
        worker = teacher(stack, first.address, group="big")
        loop = student(stack, first.address, teachers=["big"])
        for member in (worker, loop):
            member.register()
        loop.send(Report(reporter="r", seq=1, rank=0, t=1.0, values={"step": 3, "loss": 0.5}, job="j"))
        loop.expect(Ack, lambda ack: ack.seq == 1)
        client = stack.enter_context(contextlib.closing(StatusClient(first.address)))

        def both_are_seen() -> History | None:
            worker.beat()
            loop.beat()
            told = client.history()
            here = told.recent.students and told.recent.students[-1]
            return told if here and told.recent.groups["big"].workers[-1] else None

        told = until(both_are_seen, "a row of both")
        assert figures(told) == {"loss": [0.5]}
        assert {each.event for each in told.happenings} == {
            *("coordinator_started", "teacher_joined", "student_joined"),
        }
        status, page = get(first, "/history")
        assert status == 200 and figures(msgspec.convert(page, History)) == figures(told)
        status, page = get(first, f"/history?since={told.wall_s!r}")
        assert status == 200 and page["whole"] is None and page["figures"][0]["value"] == []

        first.stop()
        second = Running(first.address, history_file=file)
        stack.callback(second.stop)
        again = client.history(timeout_s=WITHIN_S)
        assert again.incarnation != told.incarnation and again.began_s == told.began_s
        assert figures(again) == {"loss": [0.5]} and again.recent.t[: len(told.recent.t)] == told.recent.t
        assert [each.event for each in again.happenings].count("coordinator_started") == 2
