"""What the coordinator tells over HTTP of scaling, and to Prometheus."""

from __future__ import annotations

import json
from email.message import Message
from http import HTTPStatus
from typing import Any

import msgspec
import pytest

from edldist.coordinator.course.history import RunHistory
from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.pages.board import StatusBoard
from edldist.coordinator.pages.pages import CoordinatorPages
from edldist.errors import ConfigError
from edldist.observe.http import Answer, Request
from edldist.wire.messages import GroupStatus, History


def group(name: str = "big", wanted: int | None = 5, **fields: Any) -> GroupStatus:
    base = {
        "workers": 3,
        "draining": 1,
        "least": 1,
        "most": 8,
        "held": None,
        "demand": 480.5,
        "capacity": 100.0,
    }
    rest = {
        "by_device": {"NVIDIA A100": 100.0},
        "starved": 0.25,
        "leaving": ["t1"],
        "why": "they ask for more",
    }
    return GroupStatus(name=name, wanted=wanted, **base | rest | fields)


def page(*groups: GroupStatus, members: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {
        "uptime_s": 12.5,
        "garbage": 2,
        "counts": {"teachers": 3, "students": 1},
        "members": members or [],
        "groups": [msgspec.to_builtins(each) for each in groups],
        "gone": [],
        "events": {},
        "checkpoints": {"seconds": 0, "bytes": 0, "step": None},
        "restarts": {"teacher": 0, "student": 0},
        "stages": [],
    }


class Board:
    """What the owner of the state published last."""

    def __init__(self, *groups: GroupStatus) -> None:
        self.body: bytes | None = json.dumps(page(*groups)).encode()

    def read(self) -> bytes | None:
        return self.body


def told(since: float) -> History:
    """The course of a run in which nothing has happened."""
    return RunHistory("one", 0.0, 1000.0).tell(since)


def asked(
    path: str,
    *groups: GroupStatus,
    token: str | None = None,
    said: str | None = None,
    query: str = "",
    all_pages: bool = False,
) -> Answer:
    headers = Message()
    if said is not None:
        headers["Authorization"] = said
    pages = CoordinatorPages(Board(*groups), told, token, all_pages)  # type: ignore[arg-type]
    return pages(Request(path, query, headers))


class TestScaling:
    def test_tells_the_total_that_is_wanted(self) -> None:
        answer = asked("/scaling/big", group(), group("small", wanted=0))
        assert (answer.status, answer.content_type) == (HTTPStatus.OK, "application/json")
        told = json.loads(answer.body)
        assert (told["name"], told["wanted"], told["workers"], told["demand"]) == ("big", 5, 3, 480.5)

    def test_names_travel_as_they_do_in_addresses(self) -> None:
        assert json.loads(asked("/scaling/a%20b", group("a b")).body)["name"] == "a b"

    def test_a_group_that_is_not_there_is_not_found(self) -> None:
        answer = asked("/scaling/huge", group())
        assert answer.status == HTTPStatus.NOT_FOUND
        assert json.loads(answer.body) == {"error": "no teacher group 'huge'; there are: big"}

    def test_a_number_that_nobody_knows_is_an_error_and_not_zero(self) -> None:
        answer = asked("/scaling/big", group(wanted=None))
        assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
        assert json.loads(answer.body) == {"error": "they ask for more"}

    @pytest.mark.parametrize("path", ["/scaling/big", "/status", "/metrics"])
    def test_a_busy_coordinator_says_so(self, path: str) -> None:
        board = Board()
        board.body = None
        answer = CoordinatorPages(board, told)(Request(path))  # type: ignore[arg-type]
        assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE

    @pytest.mark.parametrize(
        "said", [None, "", "secret", "Bearer", "Bearer wrong", "Basic secret", "Bearer secret1", "Bearer séc"]
    )
    def test_without_the_token_nothing_is_told(self, said: str | None) -> None:
        answer = asked("/scaling/big", group(), token="secret", said=said)
        assert answer.status == HTTPStatus.UNAUTHORIZED and b"big" not in answer.body
        assert asked("/scaling/huge", group(), token="secret", said=said).status == HTTPStatus.UNAUTHORIZED

    @pytest.mark.parametrize("said", ["Bearer secret", "bearer secret", "Bearer  secret "])
    def test_with_the_token_it_is(self, said: str) -> None:
        assert asked("/scaling/big", group(), token="secret", said=said).status == HTTPStatus.OK

    def test_the_token_guards_scaling_alone_unless_it_is_for_all_pages(self) -> None:
        for path in ("/status", "/metrics", "/history"):
            assert asked(path, group(), token="secret").status == HTTPStatus.OK
            locked = asked(path, group(), token="secret", all_pages=True)
            assert locked.status == HTTPStatus.UNAUTHORIZED and b"big" not in locked.body
            answer = asked(path, group(), token="secret", said="Bearer secret", all_pages=True)
            assert answer.status == HTTPStatus.OK
        well = CoordinatorPages(
            StatusBoard(lambda: None, longest_turn_s=60.0), told, "secret", all_pages=True
        )
        assert well(Request("/healthz")).status == HTTPStatus.OK
        assert asked("/etc/passwd", group(), token="secret", all_pages=True).status == HTTPStatus.UNAUTHORIZED

    @pytest.mark.parametrize(
        "path",
        [
            "/../../etc/passwd",
            "//etc/passwd",
            "/%2e%2e/etc/passwd",
            "/status/../../x",
            "/scaling/../../x",
            "/\0",
        ],
    )
    def test_no_path_leads_out_of_the_pages(self, path: str) -> None:
        answer = asked(path, group())
        assert answer.status == HTTPStatus.NOT_FOUND and b"root:" not in answer.body

    def test_a_token_for_all_pages_needs_a_token(self) -> None:
        with pytest.raises(ConfigError, match="--http-token-file"):
            CoordinatorOptions(http_token_all=True)

    @pytest.mark.parametrize("token", ["", "two words", "line\n", "ü"])
    def test_a_token_that_no_header_takes_is_refused(self, token: str) -> None:
        with pytest.raises(ConfigError, match="HTTP token"):
            CoordinatorOptions(http_token=token)


class TestHistory:
    def test_tells_the_course_of_the_run(self) -> None:
        answer = asked("/history")
        assert (answer.status, answer.content_type) == (HTTPStatus.OK, "application/json")
        page = json.loads(answer.body)
        assert (page["incarnation"], page["began_s"], page["since"]) == ("one", 1000.0, 0)
        assert page["whole"]["t"] == [] and page["recent"]["step_s"] == 1

    def test_since_leaves_out_what_was_told(self) -> None:
        page = json.loads(asked("/history", query="since=999.5").body)
        assert page["since"] == 999.5 and page["whole"] is None

    @pytest.mark.parametrize(
        "query",
        [
            *("since=", "since=soon", "since=nan", "since=inf", "since=-1", "since=1e999", "since", "=1"),
            *("since=1&since=2", "sinse=1", "since=1&x=2", "%ff=1", "since=%ff", "&", "since=1&&"),
            *(
                "&".join(f"a{i}=1" for i in range(40)),
                "since=" + "9" * 9_000,
                "since=" + "x" * 9_000,
                "since=1;since=2",
                "since=\x00",
            ),
        ],
    )
    def test_a_wrong_question_hears_what_is_wrong_in_few_words(self, query: str) -> None:
        answer = asked("/history", query=query)
        assert answer.status == HTTPStatus.BAD_REQUEST
        reason = json.loads(answer.body)["error"]
        assert reason.startswith("/history?since=T") and len(reason) < 500
