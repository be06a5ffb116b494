"""A job that ends before its students do."""

from __future__ import annotations

from edldist_launch.local.child import Child

__all__ = ["Stopped"]


class Stopped(Exception):
    """The job ends before its students do.

    Args:
        status: failed or interrupted.
        reason: why; for an interrupted job what to do next is added to it.
        child: whose last words say more.
    """

    def __init__(self, status: str, reason: str = "", child: Child | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.child = child
