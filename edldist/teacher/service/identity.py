"""Who a teacher worker is."""

from __future__ import annotations

from dataclasses import dataclass

from edldist.labels.fingerprint import Fingerprint
from edldist.vocabulary.tokens import Tokens

__all__ = ["TeacherIdentity"]


@dataclass(frozen=True)
class TeacherIdentity:
    """What a worker says of itself, to the coordinator and to its students.

    Attributes:
        worker: its unique id.
        teacher: the group that it serves in.
        coordinator: address of the coordinator.
        batch_size: samples of a full forward pass, at the start.
        fingerprint: what it has to have in common with the others of its group.
        process: the name of its process (``edldist.wire.process``).
        host, pid, device: shown by ``status``.
        device_type: what is computed on; see ``Register``.
        connect_timeout_s: how long to wait for a coordinator.
        tokens: those of the fingerprint's mark, to tell students that ask; None where nobody says.
        attempt: how often the id was given to a process before, where somebody counts; see ``Register``.
    """

    worker: str
    teacher: str
    coordinator: str
    batch_size: int
    fingerprint: Fingerprint
    process: str
    host: str
    pid: int
    device: str
    device_type: str
    connect_timeout_s: float
    tokens: Tokens | None = None
    attempt: int = 0
