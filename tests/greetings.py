"""What a teacher worker says of itself in tests that play one."""

from __future__ import annotations

from edldist.labels.fingerprint import Fingerprint
from edldist.labels.grammar import CodecSpec

__all__ = ["FINGERPRINT", "fingerprint"]


def fingerprint(codec: str = "dense", **fields) -> Fingerprint:
    """That of a worker that serves ``identify``, unless ``fields`` say otherwise."""
    return Fingerprint(**{"model": "tests.models:identify", "codec": CodecSpec(codec)} | fields)


FINGERPRINT = fingerprint()
