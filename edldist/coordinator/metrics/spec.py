"""What there is to say of a metric: its name, its unit, where its figures come from, what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["MetricSpec", "Place", "counter", "gauge", "histogram", "info", "queues", "tensor_bytes"]

Kind = Literal["counter", "gauge", "histogram", "info"]
Place = Literal[
    "coordinator",
    "role",
    "restarts",
    "event",
    "checkpoint",
    "group",
    "device",
    "worker",
    "student",
    "stage",
    "queue",
]
"""Where in the status page a figure stands."""

_LABELS: dict[Place, tuple[str, ...]] = {
    "coordinator": (),
    "role": ("role",),
    "restarts": ("role",),
    "event": ("event",),
    "checkpoint": (),
    "group": ("group",),
    "device": ("group", "device_type"),
    "worker": ("worker", "group"),
    "student": ("student", "job_name"),  # Prometheus means something else by ``job``
    "stage": ("group", "stage"),
    "queue": ("group", "stage"),
}


@dataclass(frozen=True)
class MetricSpec:
    """One metric.

    Attributes:
        name: of the family. The series of a counter has ``_total`` behind it, unless that is there.
        unit: of its values, for people.
        help: what it counts, and what to think of it: a whole sentence or more.
        place: where its figures stand in the status page, which says what labels it has.
        key: which figure that is.
        more: labels beyond those of its place, with one value each.
    """

    name: str
    kind: Kind
    unit: str
    help: str
    place: Place
    key: str
    more: tuple[tuple[str, str], ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        return (*_LABELS[self.place], *(name for name, _ in self.more))

    @property
    def series(self) -> str:
        """The name that a query says; a histogram's buckets, sum and count have their ends behind it."""
        return {"counter": f"{self.name}_total", "info": f"{self.name}_info"}.get(self.kind, self.name)


def counter(name: str, unit: str, place: Place, key: str, words: str) -> MetricSpec:
    return MetricSpec(name, "counter", unit, words, place, key)


def gauge(name: str, unit: str, place: Place, key: str, words: str) -> MetricSpec:
    return MetricSpec(name, "gauge", unit, words, place, key)


def histogram(name: str, unit: str, place: Place, key: str, words: str) -> MetricSpec:
    return MetricSpec(name, "histogram", unit, words, place, key)


def info(name: str, place: Place, key: str, words: str) -> MetricSpec:
    return MetricSpec(name, "info", "", words, place, key)


def tensor_bytes(role: Literal["worker", "student"], of: str) -> list[MetricSpec]:
    words = (
        f"Bytes of tensors that {of} sent or received, by transport: socket (TCP), or shared memory with a "
        "process on its own host, which copies nothing. Headers and heartbeats are not counted."
    )
    return [
        MetricSpec(
            f"edldist_{role}_tensor_bytes",
            "counter",
            "bytes",
            words,
            role,
            f"{way}_{by}_bytes",
            (("direction", way), ("transport", by)),
        )
        for way in ("sent", "received")
        for by in ("socket", "shared")
    ]


def queues() -> list[MetricSpec]:
    """What waits before the stages of a worker, in samples and in bytes."""
    words = (
        "Most {} that waited at once before a stage of a teacher worker, since its last heartbeat. receive: "
        "asked for, and not here yet; decode: for a pass; batch: read ahead, for the device; forward: on the "
        "device; send: labels, for the thread that owns the sockets."
    )
    samples = "samples (tokens, of sequences)"
    return [
        MetricSpec(
            f"edldist_worker_queue_{unit}",
            "gauge",
            unit,
            words.format(what),
            "worker",
            f"{stage}_queue_{unit}",
            (("stage", stage),),
        )
        for unit, what in (("samples", samples), ("bytes", "bytes"))
        for stage in ("receive", "decode", "batch", "forward", "send")
    ]
