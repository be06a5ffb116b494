"""The modules that are checked, and the unit tests that stand for each, the quickest first."""

from __future__ import annotations

__all__ = ["SUBJECTS"]

_QUEUE = (
    "queue_bounds",
    "label_queue_turns",
    "overdue_leases",
    "label_queue",
    "waking",
    "wanted",
    "withdrawals",
    "absences",
    "label_queue_states",
)
_TURNS = ("student_links", "student_silence", "student_service")
_SERVICE = (
    *_TURNS,
    *("peers", "quarantine", "pings", "waking", "assembly", "former_teachers", "unsuited", "versions"),
    *("comparing", "job_link", "translation"),
)
_PIPELINE = ("pipeline_memory", "pipeline")

SUBJECTS: dict[str, tuple[str, ...]] = {
    "student/service/delivery.py": ("delivery", "withdrawals", *_SERVICE),
    "student/service/service.py": _SERVICE,
    "student/queue/queue.py": (*_QUEUE, "delivery", "student_service"),
    "teacher/passes/pipeline.py": _PIPELINE,
    "student/queue/blame.py": _QUEUE,
    "student/queue/batches.py": (*_QUEUE, "delivery"),
    "student/queue/track.py": _QUEUE,
    "student/queue/sleepers.py": ("sleepers", *_QUEUE),
    "student/queue/hedging.py": _QUEUE,
    "student/queue/task.py": _QUEUE,
    "student/queue/workers.py": _QUEUE,
    "student/queue/wanted.py": _QUEUE,
    "student/queue/flow.py": _QUEUE,
    "student/queue/pings.py": ("pings", *_TURNS),
    "student/queue/quarantine.py": ("quarantine", "peers", *_TURNS),
    "student/service/batch.py": ("assembly", "held_bytes", "withdrawals", *_TURNS, "waking"),
    "student/service/grouping.py": ("grouping", *_TURNS),
    "student/service/peers.py": ("peers", *_TURNS),
    "student/queue/absences.py": ("absences", "wanted"),
    "student/queue/minds.py": ("minds", "comparing"),
    "student/service/comparing.py": ("comparing", "minds", *_TURNS),
    "student/service/unsuited.py": ("unsuited", *_TURNS),
    "teacher/engines/entries.py": ("engine_entries", "top_entries"),
    "teacher/service/ledger.py": ("ledger", "demand", "batcher"),
    "teacher/service/demand.py": ("demand", "ledger"),
    "teacher/service/batcher.py": ("batcher", "ledger", "demand"),
    "teacher/passes/batch_size.py": ("batch_size", *_PIPELINE),
    "coordinator/membership.py": ("membership", "status", "orders", "coordinator_machines"),
    "coordinator/assignment.py": ("rates", "membership", "assignment"),
    "coordinator/rates.py": ("rates", "membership", "assignment"),
    "coordinator/load.py": ("load", "policies"),
    "coordinator/policies.py": ("policies", "scaling"),
    "coordinator/scaling.py": ("scaling",),
    "student/service/needs.py": ("needs",),
    "teacher/capacity.py": ("capacity",),
    "coordinator/records.py": ("records", "membership"),
    "coordinator/board.py": ("membership", "status", "orders"),
    "coordinator/orders.py": ("orders", "membership"),
    "coordinator/fingerprints.py": ("membership",),
    "coordinator/rendezvous.py": ("rendezvous_restart", "rendezvous", "coordinator_machines"),
}
