"""The modules that are checked, and the tests that stand for each.

Modules with the same tests are checked together: those are imported and measured once. Of each file of tests
only what reaches a changed line is run.
"""

from __future__ import annotations

__all__ = ["SUBJECTS", "path_of"]

_QUEUE = (
    *("queue_bounds", "label_queue_turns", "overdue_leases", "label_queue", "waking", "wanted", "absences"),
    *("queue_books", "withdrawals", "sleepers", "minds", "delivery", "student_service", "versions"),
    "label_queue_states",
)
_SERVICE = (
    *("student_links", "student_silence", "student_service", "delivery", "withdrawals", "peers", "pings"),
    *("quarantine", "waking", "assembly", "former_teachers", "unsuited", "versions", "comparing", "minds"),
    *("needs", "job_link", "translation", "grouping", "held_bytes", "student_looks"),
    "questions",
)
_TEACHER = (
    *("pipeline_memory", "pipeline", "batch_size", "capacity", "ledger", "demand", "batcher"),
    *("engine_entries", "top_entries", "pipeline_traced", "passage"),
)
_COORDINATOR = (
    *("membership", "status", "orders", "coordinator_machines", "rates", "assignment", "records"),
    *("load", "policies", "scaling"),
)
_RENDEZVOUS = ("rendezvous_restart", "rendezvous", "coordinator_machines")
_SAMPLING = ("sampler", "dealing", "position", "draws", "data_set_size", "reading", "index_lists")
_CHECKPOINT = (
    *("checkpoint_tree", "checkpoint_tensors", "sameness", "checkpoint_registry", "rank_state", "earlier"),
    *("checkpoint", "checkpoint_rng"),
)
_BACKLOG = ("contract/backlog",)

SUBJECTS: dict[str, tuple[str, ...]] = {
    "student/service/service.py": _SERVICE,
    "student/service/delivery.py": _SERVICE,
    "student/service/batch.py": _SERVICE,
    "student/service/grouping.py": _SERVICE,
    "student/service/peers.py": _SERVICE,
    "student/service/comparing.py": _SERVICE,
    "student/service/unsuited.py": _SERVICE,
    "student/service/needs.py": _SERVICE,
    "student/queue/pings.py": _SERVICE,
    "student/queue/quarantine.py": _SERVICE,
    "student/queue/minds.py": _SERVICE,
    "student/queue/queue.py": _QUEUE,
    "student/queue/blame.py": _QUEUE,
    "student/queue/batches.py": _QUEUE,
    "student/queue/track.py": _QUEUE,
    "student/queue/sleepers.py": _QUEUE,
    "student/queue/hedging.py": _QUEUE,
    "student/queue/task.py": _QUEUE,
    "student/queue/workers.py": _QUEUE,
    "student/queue/wanted.py": _QUEUE,
    "student/queue/flow.py": _QUEUE,
    "student/queue/absences.py": _QUEUE,
    "teacher/passes/pipeline.py": _TEACHER,
    "teacher/passes/batch_size.py": _TEACHER,
    "teacher/engines/entries.py": _TEACHER,
    "teacher/service/ledger.py": _TEACHER,
    "teacher/service/demand.py": _TEACHER,
    "teacher/service/batcher.py": _TEACHER,
    "teacher/capacity.py": _TEACHER,
    "coordinator/membership.py": _COORDINATOR,
    "coordinator/assignment.py": _COORDINATOR,
    "coordinator/rates.py": _COORDINATOR,
    "coordinator/load.py": _COORDINATOR,
    "coordinator/policies.py": _COORDINATOR,
    "coordinator/scaling.py": _COORDINATOR,
    "coordinator/records.py": _COORDINATOR,
    "coordinator/board.py": _COORDINATOR,
    "coordinator/orders.py": _COORDINATOR,
    "coordinator/fingerprints.py": _COORDINATOR,
    "coordinator/rendezvous.py": _RENDEZVOUS,
    "sampling/sampler.py": _SAMPLING,
    "sampling/position.py": _SAMPLING,
    "sampling/sampled.py": _SAMPLING,
    "sampling/counted.py": _SAMPLING,
    "sampling/dealing.py": _SAMPLING,
    "sampling/draws.py": _SAMPLING,
    "checkpoint/tree.py": _CHECKPOINT,
    "checkpoint/tensorfile.py": _CHECKPOINT,
    "checkpoint/manifest.py": _CHECKPOINT,
    "checkpoint/sameness.py": _CHECKPOINT,
    "checkpoint/registry.py": _CHECKPOINT,
    "wire/zmq/backlog.py": _BACKLOG,
}


def path_of(test: str) -> str:
    """The file of a test, from the root: of a name alone that of a unit test."""
    folder, _, name = f"unit/{test}".rpartition("/") if "/" not in test else test.rpartition("/")
    return f"tests/{folder}/test_{name}.py"
