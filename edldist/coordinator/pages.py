"""What the coordinator tells over HTTP; read-only.

A ``StatusBoard`` hands a snapshot from the thread that owns the state to the threads that answer;
nothing else is shared between them.

``/scaling/GROUP`` is for an autoscaler that acts on ``wanted``, as KEDA's ``metrics-api``. While nobody can
tell how many workers there should be, it answers with an error, so that whoever asks leaves all as it is.
"""

from __future__ import annotations

import hmac
import json
from email.message import Message
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from edldist.coordinator.board import StatusBoard
from edldist.coordinator.metrics import CONTENT_TYPE, exposition
from edldist.observe.http import Answer, refusal

__all__ = ["CoordinatorPages"]

_SCALING = "/scaling/"


class CoordinatorPages:
    """The pages of one coordinator, for any thread.

    Args:
        board: where the snapshots come from.
        token: who asks for the scaling must know it, where there is one.
    """

    def __init__(self, board: StatusBoard, token: str | None = None) -> None:
        self._board = board
        self._token = token

    def __call__(self, path: str, headers: Message) -> Answer:
        if path == "/healthz":
            return self._health()
        if path == "/status":
            return self._status()
        if path == "/metrics":
            return self._metrics()
        if path.startswith(_SCALING):
            return self._scaling(unquote(path.removeprefix(_SCALING)), headers)
        known = "/status, /metrics, /scaling/GROUP and /healthz"
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

    def _metrics(self) -> Answer:
        body = self._board.read()
        if body is None:
            return _BUSY
        return Answer(exposition(json.loads(body)), CONTENT_TYPE)

    def _scaling(self, group: str, headers: Message) -> Answer:
        if not self._may_see(headers):
            return refusal(HTTPStatus.UNAUTHORIZED, "this page needs a token: Authorization: Bearer TOKEN")
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


_BUSY = refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the coordinator is busy; ask again")
