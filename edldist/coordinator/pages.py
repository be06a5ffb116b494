"""What the coordinator tells over HTTP; read-only.

A ``StatusBoard`` hands a snapshot from the thread that owns the state to the threads that answer;
nothing else is shared between them.
"""

from __future__ import annotations

from email.message import Message
from http import HTTPStatus

from edldist.coordinator.board import StatusBoard
from edldist.observe.http import Answer, refusal

__all__ = ["CoordinatorPages"]


class CoordinatorPages:
    """The pages of one coordinator, for any thread.

    Args:
        board: where the snapshots come from.
    """

    def __init__(self, board: StatusBoard) -> None:
        self._board = board

    def __call__(self, path: str, headers: Message) -> Answer:
        if path == "/healthz":
            return self._health()
        if path == "/status":
            return self._status()
        return refusal(HTTPStatus.NOT_FOUND, "no such page; there are /status and /healthz")

    def _health(self) -> Answer:
        stuck_s = self._board.stuck_s()
        if stuck_s is None:
            return Answer(b"ok", "text/plain; charset=utf-8")
        reason = f"the coordinator's main loop has been stuck for {stuck_s:.1f} s"
        return refusal(HTTPStatus.SERVICE_UNAVAILABLE, reason)

    def _status(self) -> Answer:
        body = self._board.read()
        if body is None:
            return refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the coordinator is busy; ask again")
        return Answer(body)
