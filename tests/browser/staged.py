"""A job for the dashboard to show: a real coordinator, members that only count, and a past."""

from __future__ import annotations

import contextlib
import math
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edldist.coordinator.course.history import RunHistory
from edldist.coordinator.course.history_file import HISTORY
from edldist.wire.messages import Event, Heartbeat, Report, Scalar
from tests.integration.members import FakeMember, Running, student, teacher

__all__ = ["INJECTED", "Staged", "staged"]

INTERVAL_S, TTL_S = 0.2, 20.0
INJECTED = '<img src="http://elsewhere.example/x.png" onerror="document.title=1">'
"""A name that a page must show and not obey."""
RATE = 930.0


class Staged:
    """A coordinator that may be stopped and started again at the same addresses, and its members' heartbeats.

    Attributes:
        http: ``HOST:PORT`` of its pages.
        running: the coordinator, while there is one.
    """

    def __init__(self, folder: Path) -> None:
        self.history = folder / HISTORY
        self.running: Running | None = None
        self._address, self.http = "tcp://127.0.0.1:0", "127.0.0.1:0"
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def start(self) -> None:
        """Start the coordinator; the first time, its members come."""
        self.running = Running(
            self._address,
            http=self.http,
            history_file=str(self.history),
            heartbeat_interval_s=INTERVAL_S,
            heartbeat_ttl_s=TTL_S,
        )
        assert self.running.coordinator.http_address is not None
        self._address, self.http = self.running.address, self.running.coordinator.http_address
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Stop the coordinator; its members do not notice."""
        if self.running is not None:
            self.running.stop()
            self.running = None

    def close(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self.stop()

    def _beat(self) -> None:
        with contextlib.ExitStack() as stack:
            members = self._members(stack)
            while not self._ended.wait(INTERVAL_S):
                for number, member in enumerate(members):
                    member.register()  # again and again, so that a new coordinator knows it
                    member.send(Heartbeat(id=member.id, stats=self._stats(number, member)))
                    member.read()

    def _members(self, stack: contextlib.ExitStack) -> list[FakeMember]:
        names = [*(f"resnet101-{number}" for number in range(3)), INJECTED]
        found = [
            teacher(
                stack,
                self._address,
                name,
                group="resnet101",
                host=f"gpu-{number}",
                info={"device": "cuda:0"},
                links=["student-0", "student-1"],
            )
            for number, name in enumerate(names)
        ]
        for rank in range(2):
            fields = {"teachers": ["resnet101"], "job": "images", "host": f"node-{rank}", "high_watermark": 8}
            found.append(student(stack, self._address, f"student-{rank}", info={"rank": rank}, **fields))
        return found

    def _stats(self, number: int, member: FakeMember) -> dict[str, Scalar]:
        since_s = time.monotonic() - self._began
        if member.registration.role == "student":
            counts = {"samples": int(700_000 + RATE / 2 * since_s), "batches": 5_500, "teachers": 3}
            return counts | {"starved_s": 31.25, "backpressure_s": 84.5, "buffered": 11 - number}
        if member.id == INJECTED:
            return {"samples": 900, "draining": True, "held": 8}
        counts = {"samples": int(400_000 + RATE / 3 * since_s), "held": 64, "students": 2}
        return counts | ({"quarantine": "its model keeps failing"} if number == 2 else {})


def past(history: RunHistory, now: float, seconds: int) -> None:
    """A run in which a worker is lost and another one comes, told as if it had just happened."""
    draw = random.Random(0)
    step = 0.0
    lost, back = int(seconds * 0.45), int(seconds * 0.55)
    for second in range(seconds):
        at = now - seconds + second
        workers = 3 if lost <= second < back else 4
        capacity = 240.0 * workers * (1 + draw.uniform(-0.03, 0.03))
        taken = min(capacity, RATE * (1 + draw.uniform(-0.02, 0.02)))
        short = max(0.0, 1 - capacity / (0.97 * RATE))
        values = {("", "samples_per_s"): taken, ("", "students"): 2.0, ("", "starved"): short}
        values |= {("", "buffered"): max(0.0, 6 - 40 * short + draw.uniform(-0.5, 0.5))}
        values |= {("", "backpressure"): max(0.0, 0.12 - short + draw.uniform(-0.02, 0.02))}
        values |= {("resnet101", "samples_per_s"): taken * (1 + draw.uniform(-0.02, 0.02))}
        values |= {("resnet101", "workers"): float(workers), ("resnet101", "wanted"): 4.0}
        history.look(values, at)
        step += taken / 256
        if second % 3 == 0:
            loss = 0.4 + 2.1 * math.exp(-second / (seconds / 4)) + draw.gauss(0, 0.03)
            told: dict[str, Scalar] = {"step": int(step), "steps": 6_000, "epoch": second // 300, "epochs": 8}
            told |= {"loss": loss, "kd_loss": 0.7 * loss + draw.gauss(0, 0.02)}
            if second % 60 == 0:
                told["accuracy"] = 0.93 * (1 - math.exp(-second / (seconds / 5)))
            history.report(Report(reporter="r", seq=1, rank=0, t=0.0, values=told, job="images"), at)
        if second % 300 == 299:
            saved: dict[str, Scalar] = {"step": int(step), "bytes": 1, "seconds": 0.8}
            history.happened(Event(event="checkpoint_saved", t=0.0, fields=saved), at)
        if second == lost:
            history.happened(_of("teacher_lost", "resnet101-3", silent_s=3.1), at)
        elif second == back:
            history.happened(_of("teacher_joined", "resnet101-3", name="resnet101"), at)


def _of(event: str, member: str, **fields: Scalar) -> Event:
    return Event(event=event, t=0.0, fields={"id": member, **fields})


@contextlib.contextmanager
def staged(folder: Path, seconds: int = 1_500) -> Iterator[Staged]:
    """A job that has gone on for so long."""
    folder.mkdir(parents=True, exist_ok=True)
    history = RunHistory("before", 0.0, time.time() - seconds)
    past(history, float(seconds), seconds)
    job = Staged(folder)
    job.history.write_bytes(msgspec.json.encode(history.tell()))
    try:
        job.start()
        yield job
    finally:
        job.close()
