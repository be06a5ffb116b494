"""One teacher worker: load the model, serve until told to leave."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import traceback
import uuid
from dataclasses import dataclass
from types import FrameType

from edldist.clock import Clock, SystemClock
from edldist.errors import ConfigError, EdlDistError
from edldist.labels.codec import Codec, parse_codec
from edldist.teacher.batcher import HeldTask
from edldist.teacher.exchange import gather, settle
from edldist.teacher.model import Teacher, pick_device, refuse_nonfinite
from edldist.teacher.service import Answer, TeacherIdentity, TeacherService
from edldist.wire.address import parse_address
from edldist.wire.messages import Scalar
from edldist.wire.transport import Transport
from edldist.wire.zeromq import ZmqTransport

__all__ = ["TeacherWorker", "WorkerOptions", "run_worker"]

logger = logging.getLogger(__name__)

_TAKE_S = 0.25


@dataclass(frozen=True)
class WorkerOptions:
    """What ``edldist teacher`` takes.

    Attributes:
        coordinator: ``tcp://host:port``.
        model: ``package.module:factory``.
        name: of the teacher group.
        device: ``auto``, ``cpu``, ``cuda:1``, ...
        batch_size: most samples of one forward pass.
        codec: how labels travel.
        weights: file to load into the model, or None.
        allow_nonfinite: let NaN and infinite labels through.
        drain_s: after SIGTERM, time to finish what is held; then the rest is given back.
        connect_timeout_s: how long to wait for a coordinator.
        worker_id: unique id, or None to make one.
    """

    coordinator: str
    model: str
    name: str = "teacher"
    device: str = "auto"
    batch_size: int = 64
    codec: str = "dense"
    weights: str | None = None
    allow_nonfinite: bool = False
    drain_s: float = 30.0
    connect_timeout_s: float = 300.0
    worker_id: str | None = None

    def __post_init__(self) -> None:
        parse_address(self.coordinator, "coordinator")
        parse_codec(self.codec)
        if self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size}: must be at least 1")
        for name in ("drain_s", "connect_timeout_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}={getattr(self, name)}: must not be negative")


class TeacherWorker:
    """The compute loop. Owned by the thread that calls ``run``."""

    def __init__(
        self,
        options: WorkerOptions,
        teacher: Teacher,
        transport: Transport | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._options = options
        self._teacher = teacher
        self._codec: Codec = parse_codec(options.codec)
        self._clock = clock or SystemClock()
        self._busy_s = 0.0
        self._passes = 0
        self._started = self._clock.monotonic()
        self._stop_at: float | None = None
        self.worker_id = options.worker_id or f"{options.name}-{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._service = TeacherService(
            TeacherIdentity(
                worker=self.worker_id,
                teacher=options.name,
                coordinator=options.coordinator,
                batch_size=options.batch_size,
                codec=self._codec.name,
                host=socket.gethostname(),
                pid=os.getpid(),
                device=str(teacher.device),
                connect_timeout_s=options.connect_timeout_s,
            ),
            transport or ZmqTransport(),
            self._clock,
        )
        self._service.extra_stats = self._stats

    def drain(self) -> None:
        """Finish what is held, then let ``run`` return. Safe in a signal handler."""
        if self._stop_at is None:
            self._stop_at = self._clock.monotonic() + self._options.drain_s
            self._service.drain()

    def run(self) -> None:
        """Serve until drained.

        Raises:
            EdlDistError: the coordinator refuses this worker, or cannot be reached.
        """
        reason = "it failed"
        try:
            while not self._finished():
                tasks = self._service.take(_TAKE_S)
                if tasks:
                    self._service.answer(self._label(tasks))
            reason = "it was asked to leave"
        finally:
            self._service.close(reason)

    def _finished(self) -> bool:
        if self._stop_at is None:
            return False
        return self._service.drained or self._clock.monotonic() > self._stop_at

    def _label(self, tasks: list[HeldTask]) -> list[Answer]:
        """One forward pass over some tasks. An error that one task may have caused fails only that one."""
        start = time.perf_counter()
        try:
            return self._forward(tasks, start)
        except Exception as exc:
            if len(tasks) > 1:
                return [answer for task in tasks for answer in self._label([task])]
            error = str(exc) if isinstance(exc, EdlDistError) else traceback.format_exc().rstrip()
            logger.warning("a task of %d samples failed: %s", tasks[0].samples, error.rpartition("\n")[2])
            return [Answer(tasks, None, error=error)]
        finally:
            self._passes += 1
            self._busy_s += time.perf_counter() - start

    def _forward(self, tasks: list[HeldTask], start: float) -> list[Answer]:
        outputs = self._teacher(gather(tasks))
        if not self._options.allow_nonfinite:
            refuse_nonfinite(outputs)
        packed = {name: tensor.cpu() for name, tensor in self._codec.encode(outputs).items()}
        compute_s = time.perf_counter() - start
        return settle(tasks, packed, self._codec.name, compute_s, self._service.max_frame_bytes)

    def _stats(self) -> dict[str, Scalar]:
        return {
            "passes": self._passes,
            "busy_s": round(self._busy_s, 6),
            "up_s": round(self._clock.monotonic() - self._started, 3),
        }


def run_worker(options: WorkerOptions) -> int:
    """Run one worker in this process until it is told to leave.

    SIGTERM and SIGINT drain it; a second one ends it at once.

    Returns:
        0 when it left as asked.

    Raises:
        ModelError, ConfigError: the model cannot be loaded. The caller exits with 2.
        EdlDistError: the job refused this worker or is gone. The caller exits with 1.
    """
    asked = threading.Event()
    worker: TeacherWorker | None = None

    def on_signal(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            os._exit(128 + number)
        asked.set()
        if worker is not None:
            worker.drain()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    device = pick_device(options.device)
    logger.info("loading %s on %s", options.model, device)
    teacher = Teacher(options.model, device, options.weights)
    if asked.is_set():
        return 0
    worker = TeacherWorker(options, teacher)
    if asked.is_set():
        worker.drain()
    logger.info(
        "worker %s of teacher %r is up, batch size %d", worker.worker_id, options.name, options.batch_size
    )
    worker.run()
    logger.info("drained; goodbye")
    return 0
