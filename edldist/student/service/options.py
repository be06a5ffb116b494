"""How a student rank takes part in the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edldist.agreement import AgreementBounds
from edldist.labels.grammar import CodecSpec
from edldist.student.queue.flow import Flow
from edldist.student.service.kept.store_use import StoreUse
from edldist.student.teachers.fallback import Fallback
from edldist.student.teachers.translation import Translation
from edldist.wire.messages import JobShare, Scalar, Welcome

__all__ = ["ServiceOptions"]


@dataclass(frozen=True)
class ServiceOptions:
    """What a student's service needs to know.

    Attributes:
        student: unique name of this rank's loader.
        teachers: names of the teacher groups whose labels are wanted.
        coordinator: its address.
        bind: address to listen on, as ``tcp://host:0``.
        advertise: host that workers connect to; None for the bound one.
        flow: the queue's bounds.
        heartbeat_ttl_s: a worker silent for longer is lost.
        hedge_after_s: a lease that holds the loop up, and is older than this and than three times an
            idle worker's own latency, is given to that worker too. However many batches behind it
            are labelled: the loop gets none of them before.
        connect_timeout_s: how long to wait for a coordinator.
        group: of the ranks that train together, or empty.
        run, generation: of which run the group is, and as which of its generations; empty and 0 where nobody
            counts them.
        job: of which job the rank is, where several share a coordinator; empty where nobody says so.
        weight, priority: of that job, where it shares workers with others; see ``JobShare``.
        fallback: which of ``teachers`` labels, and in which codec, where all but the first are cheaper ones
            for an overloaded fleet; None where all are wanted.
        codecs: by teacher group, the only codec in which its labels are taken; without an entry, that of the
            group's first worker.
        versions: by teacher group, of how many versions at a time labels are taken, the newest ones; without
            an entry, of one for life.
        skip_after_s: teacher groups without whose labels batches go on, once they have had no worker for so
            long.
        one_set: the labels of all teachers are one set, so they have one codec.
        translations: by teacher group, between its vocabulary and this student's, where that says its own.
        agreement: how far apart the answers of a group's workers may be; None: nobody compares them.
        skip_poison: deliver a batch whose tasks are poison without labels instead of raising.
        hand_on: deliver every batch that has no labels, whatever the reason, instead of raising.
        called: what the script made to get labels, for what it is told.
        store: where labels are kept, and how that is used; None without one.
        info: shown by ``status``.
    """

    student: str
    teachers: tuple[str, ...]
    coordinator: str
    bind: str
    advertise: str | None
    flow: Flow
    heartbeat_ttl_s: float = 3.0
    hedge_after_s: float = 0.25
    connect_timeout_s: float = 300.0
    max_frame_bytes: int = 1 << 30
    group: str = ""
    run: str = ""
    generation: int = 0
    job: str = ""
    weight: int | None = None
    priority: int = 0
    fallback: Fallback | None = None
    codecs: Mapping[str, CodecSpec] = field(default_factory=dict)
    versions: Mapping[str, int] = field(default_factory=dict)
    skip_after_s: Mapping[str, float] = field(default_factory=dict)
    one_set: bool = False
    agreement: AgreementBounds | None = None
    skip_poison: bool = False
    hand_on: bool = False
    called: str = "DistillLoader"
    translations: Mapping[str, Translation] = field(default_factory=dict)
    store: StoreUse | None = None
    info: dict[str, Scalar] = field(default_factory=dict)

    def welcome(self, ping_interval_s: float, teacher: str) -> Welcome:
        """What a worker of a teacher that is taken hears."""
        return Welcome(
            student=self.student,
            ping_interval_s=ping_interval_s,
            heartbeat_ttl_s=self.heartbeat_ttl_s,
            max_frame_bytes=self.max_frame_bytes,
            share=self.share,
            codecs=[] if self.fallback is None else self.fallback.codecs_of(teacher),
        )

    @property
    def wanted(self) -> tuple[str, ...]:
        """The groups of which it wants labels while the fleet is not overloaded."""
        return self.teachers if self.fallback is None else self.teachers[:1]

    @property
    def share(self) -> JobShare:
        """What workers that serve several jobs, and the coordinator, are told of this one."""
        return JobShare(job=self.job or self.group, weight=self.weight, priority=self.priority)
