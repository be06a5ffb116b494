"""What members say to a coordinator, as long as what real ones say."""

from __future__ import annotations

import time

from edldist.labels.fingerprint import Fingerprint
from edldist.labels.grammar import parse_spec
from edldist.wire.messages import Heartbeat, Links, Need, Register, Scalar

__all__ = ["Speaker"]

FINGERPRINT = Fingerprint(model="models.vision:teacher", weights="0" * 32, codec=parse_spec("dense:fp16"))


class Speaker:
    """One member: a teacher worker, or a student rank of a group of eight."""

    def __init__(self, number: int, is_student: bool) -> None:
        self.id = f"{'student' if is_student else 'teacher'}-{number:05d}"
        self.is_student = is_student
        self.number = number
        self.links: Links | None = None
        self.beats = 0

    def registration(self, rejoin: bool) -> Register:
        """How it introduces itself."""
        info: dict[str, Scalar] = {"rejoin": rejoin}
        if self.is_student:
            return Register(
                id=self.id,
                role="student",
                group=f"group-{self.number // 8}",
                address=f"tcp://10.0.{self.number >> 8}.{self.number & 255}:{30_000 + self.number}",
                teachers=["teacher"],
                process=self.id,
                host=f"node-{self.number // 8}",
                pid=1000 + self.number,
                wall_s=time.time(),
                info=info | {"rank": self.number},
            )
        return Register(
            id=self.id,
            role="teacher",
            group="teacher",
            links=[peer.id for peer in self.links.students] if self.links is not None else [],
            process=self.id,
            host=f"node-{self.number // 8}",
            pid=1000 + self.number,
            wall_s=time.time(),
            fingerprint=FINGERPRINT,
            info=info | {"device": "cuda:0", "batch_size": 64, "codec": "dense:fp16"},
        )

    def heartbeat(self) -> Heartbeat:
        """What it says once a second."""
        if not self.is_student:
            return Heartbeat(id=self.id, stats=self._stats(), capacity=700.5 + self.beats % 7)
        need = Need(group="teacher", hunger=1300.5 + self.beats % 7, lacking=512, buffered=self.beats % 8)
        return Heartbeat(id=self.id, stats=self._stats(), needs=[need], starved=0.013271)

    def _stats(self) -> dict[str, Scalar]:
        """The figures that a real member sends, changing from beat to beat."""
        self.beats += 1
        n = self.beats
        if not self.is_student:
            return {
                "samples": 640 * n,
                "tasks": 10 * n,
                "held": n % 3,
                "students": 16,
                "draining": False,
                "passes": 10 * n,
                "busy_s": 0.913271 * n,
                "up_s": 1.001 * n,
            }
        return {
            "done": 40 * n,
            "failed": 0,
            "requeued": n // 7,
            "duplicates": 0,
            "hedged": n // 9,
            "buffered": n % 8,
            "open": 8,
            "queue_bytes": 9_633_792,
            "teachers": 144,
            "garbage": 0,
            "backpressure_s": 0.513271 * n,
            "batches": 10 * n,
            "samples": 1280 * n,
            "epoch": 3,
            "epoch_samples": 1280 * n,
            "starved_s": 0.013271 * n,
            "startup_s": 0.081112,
        }
