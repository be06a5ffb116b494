"""A student as its teacher worker sees it: the link, and what was said on it."""

from __future__ import annotations

from dataclasses import dataclass

from edldist.wire.messages import Peer
from edldist.wire.transport import Link

__all__ = ["ServedStudent"]


@dataclass(slots=True, eq=False)
class ServedStudent:
    """One link.

    Attributes:
        greeted_at, last_heard: monotonic seconds.
        incompatible: why it will never take this worker; empty if it may.
        missing: the coordinator does not know it, but it is heard.
    """

    peer: Peer
    link: Link
    greeted_at: float
    last_heard: float
    serving: bool = False
    refused: bool = False
    incompatible: str = ""
    ttl_s: float = 3.0
    max_frame_bytes: int | None = None
    quarantine: str = ""
    missing: bool = False
