"""What the coordinator tells over HTTP; read-only.

A ``StatusBoard`` hands a snapshot from the thread that owns the state to the threads that answer;
nothing else is shared between them but the history, which any thread may ask.

``/`` is the dashboard (``dashboard_files``), a page for people, which draws what others tell. ``/history`` is
the course of the run as JSON (``wire.messages.History``): the last minutes by the second, the whole run in
steps that grow with it, reported figures and what happened. ``/history?since=T`` tells only what came after
T: give it the ``wall_s`` of the answer before.

``/scaling/GROUP`` is for an autoscaler that acts on ``wanted``, as KEDA's ``metrics-api``. While nobody can
tell how many workers there should be, it answers with an error, so that whoever asks leaves all as it is.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import math
from collections.abc import Callable
from email.message import Message
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import msgspec

from edldist.coordinator.metrics.exposition import CONTENT_TYPE, exposition
from edldist.coordinator.pages.board import StatusBoard
from edldist.coordinator.pages.dashboard_files import dashboard
from edldist.observe.http import Answer, Request, refusal
from edldist.wire.messages import History

__all__ = ["CoordinatorPages"]

_SCALING = "/scaling/"


class CoordinatorPages:
    """The pages of one coordinator, for any thread.

    Args:
        board: where the snapshots come from.
        history: tells the course of the run after a moment, in unix seconds; 0: all of it.
        token: who asks for the scaling must know it, where there is one.
        all_pages: and who asks for anything else of the job, but whether the coordinator is well.
    """

    def __init__(
        self,
        board: StatusBoard,
        history: Callable[[float], History],
        token: str | None = None,
        all_pages: bool = False,
    ) -> None:
        self._board = board
        self._history = history
        self._token = token
        self._files = dashboard()
        self._all_pages = all_pages

    def __call__(self, request: Request) -> Answer:
        path = request.path
        if (file := self._files.get(path)) is not None:
            return file
        if path == "/healthz":
            return self._health()
        if self._all_pages and not self._may_see(request.headers):
            return _LOCKED
        if path == "/status":
            return self._status()
        if path == "/history":
            return self._course(request)
        if path == "/metrics":
            return self._metrics()
        if path.startswith(_SCALING):
            return self._scaling(unquote(path.removeprefix(_SCALING)), request.headers)
        known = "/ (the dashboard), /status, /history, /metrics, /scaling/GROUP and /healthz"
        return refusal(HTTPStatus.NOT_FOUND, f"no such page; there are {known}")

    def _health(self) -> Answer:
        stuck_s = self._board.stuck_s()
        if stuck_s is None:
            return Answer(b"ok", "text/plain; charset=utf-8")
        reason = f"the coordinator's main loop has been stuck for {stuck_s:.1f} s"
        return refusal(HTTPStatus.SERVICE_UNAVAILABLE, reason)

    def _status(self) -> Answer:
        body = self._board.read()
        return _BUSY if body is None else Answer(body)

    def _course(self, request: Request) -> Answer:
        try:
            moment = _moment(request.parameters("since").get("since", "0"))
        except ValueError as exc:
            reason = f"/history?since=T tells what came after T, a moment in unix seconds: {exc}"
            return refusal(HTTPStatus.BAD_REQUEST, reason)
        return Answer(msgspec.json.encode(self._history(moment)))

    def _metrics(self) -> Answer:
        body = self._board.read()
        if body is None:
            return _BUSY
        return Answer(exposition(json.loads(body)), CONTENT_TYPE)

    def _scaling(self, group: str, headers: Message) -> Answer:
        if not self._may_see(headers):
            return _LOCKED
        body = self._board.read()
        if body is None:
            return _BUSY
        groups: dict[str, dict[str, Any]] = {each["name"]: each for each in json.loads(body)["groups"]}
        found = groups.get(group)
        if found is None:
            names = ", ".join(groups) or "none"
            return refusal(HTTPStatus.NOT_FOUND, f"no teacher group {group!r}; there are: {names}")
        if found["wanted"] is None:
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, found["why"])
        return Answer(json.dumps(found).encode())

    def _may_see(self, headers: Message) -> bool:
        if self._token is None:
            return True
        kind, _, told = (headers.get("Authorization") or "").partition(" ")
        same = hmac.compare_digest(told.strip().encode(), self._token.encode())
        return same and kind.lower() == "bearer"


def _moment(text: str) -> float:
    """Unix seconds.

    Raises:
        ValueError: the text is none.
    """
    with contextlib.suppress(ValueError):
        if 0 <= (moment := float(text)) < math.inf:
            return moment
    raise ValueError(f"{text[:40]!r} is no finite number from 0 on")


_BUSY = refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the coordinator is busy; ask again")
_LOCKED = refusal(HTTPStatus.UNAUTHORIZED, "this page needs a token: Authorization: Bearer TOKEN")
