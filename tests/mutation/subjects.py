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
    *("questions", "service_store", "degraded_service"),
)
_TEACHER = (
    *("pipeline_memory", "pipeline", "batch_size", "capacity", "ledger", "demand", "batcher"),
    *("engine_entries", "top_entries", "pipeline_traced", "pipeline_timed", "passage", "shares"),
)
_COORDINATOR = (
    *("membership", "group_fingerprints", "status", "orders", "coordinator_machines", "rates"),
    *("assignment", "records"),
    *("settling", "members_again", "stages"),
)
_LINKS = ("assignment", "link_graph")
_SCALING = ("load", "policies", "scaling", "scaling_states")
_NEEDS = ("needs",)
_PINGS = ("pings",)
_MINDS = ("minds",)
_PASSAGE = ("passage",)
_OVERLOAD = ("overload", "overloaded_fleet")
_LIVES = ("metrics", "stages")
_PULSE = ("pulse",)
_RENDEZVOUS = (
    "rendezvous_turns",
    "rendezvous_restart",
    "rendezvous",
    "live_rendezvous",
    "coordinator_machines",
)
_ATTENDANCE = ("attendance",)
_SAMPLER = ("sampler", "index_lists")
_DEALING = ("dealing", "data_set_size")
_DRAWS = ("draws",)
_POSITION = ("position", "counted", "opened_epochs", "data_set_size", "reading", "sampler", "index_lists")
_CHECKPOINT = (
    *("checkpoint_tree", "checkpoint_tensors", "sameness", "checkpoint_registry", "rank_state", "earlier"),
    *("checkpoint", "checkpoint_rng", "checkpoint_stores", "checkpoint_manifest"),
)
_EQUAL = (
    *("coalescing", "following", "fullness", "label_queue", "queue_books", "queue_bounds"),
    *("withdrawals", "versions", "absences"),
)
_SHEDDING = ("shedding",)
_STORE = ("shelf", "store_index", "store_files", "store_sharing", "label_store", "label_stores")
_STORE_MEMORY = ("kept_rows", "label_memory", "store_index")
_STORE_INDEX = ("store_index",)
_STORE_KEYS = ("store_keys",)
_KEYS = ("key_changes", "key_folder")

SUBJECTS: dict[str, tuple[str, ...]] = {
    "student/service/service.py": _SERVICE,
    "student/service/probing.py": _SERVICE,
    "student/service/kept/kept_labels.py": ("service_store",),
    "student/service/delivery.py": _SERVICE,
    "student/batch/batch.py": _SERVICE,
    "student/batch/grouping.py": _SERVICE,
    "student/service/peers.py": _SERVICE,
    "student/service/comparing.py": _SERVICE,
    "student/service/unsuited.py": _SERVICE,
    "student/service/job/needs.py": _NEEDS,
    "student/queue/pings.py": _PINGS,
    "student/queue/quarantine.py": _SERVICE,
    "student/queue/minds.py": _MINDS,
    "student/queue/queue.py": _QUEUE,
    "student/queue/leasing.py": _QUEUE,
    "student/queue/lacking.py": _QUEUE,
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
    "student/queue/coalescing.py": _EQUAL,
    "student/queue/following.py": _EQUAL,
    "student/queue/provenance.py": _EQUAL,
    "student/queue/retired.py": _EQUAL,
    "student/queue/fullness.py": _EQUAL,
    "student/service/job/shedding.py": _SHEDDING,
    "teacher/passes/pipeline.py": _TEACHER,
    "teacher/passes/batch_size.py": _TEACHER,
    "teacher/engines/entries.py": _TEACHER,
    "teacher/service/ledger.py": _TEACHER,
    "teacher/service/demand.py": _TEACHER,
    "teacher/service/batcher.py": _TEACHER,
    "teacher/service/shares.py": _TEACHER,
    "teacher/capacity.py": _TEACHER,
    "teacher/passage.py": _PASSAGE,
    "coordinator/members/membership.py": _COORDINATOR,
    "coordinator/links/assignment.py": _LINKS,
    "coordinator/links/link_graph.py": _LINKS,
    "coordinator/members/rates.py": _COORDINATOR,
    "coordinator/scaling/load.py": _SCALING,
    "coordinator/scaling/policies.py": _SCALING,
    "coordinator/scaling/scaling.py": _SCALING,
    "coordinator/course/records.py": _COORDINATOR,
    "coordinator/pages/board.py": ("board",),
    "coordinator/links/orders.py": _COORDINATOR,
    "coordinator/members/fingerprints.py": _COORDINATOR,
    "coordinator/overload/overload.py": _OVERLOAD,
    "coordinator/overload/shedding.py": _OVERLOAD,
    "coordinator/members/lives.py": _LIVES,
    "coordinator/course/pulse.py": _PULSE,
    "coordinator/rendezvous.py": _RENDEZVOUS,
    "meeting/attendance.py": _ATTENDANCE,
    "sampling/sampler.py": _SAMPLER,
    "sampling/position.py": _POSITION,
    "sampling/sampled.py": _POSITION,
    "sampling/counted.py": _POSITION,
    "sampling/dealing.py": _DEALING,
    "sampling/draws.py": _DRAWS,
    "checkpoint/tree.py": _CHECKPOINT,
    "checkpoint/tensorfile.py": _CHECKPOINT,
    "checkpoint/manifest.py": _CHECKPOINT,
    "checkpoint/sameness.py": _CHECKPOINT,
    "checkpoint/registry.py": _CHECKPOINT,
    "store/key_index.py": _STORE_INDEX,
    "store/sample_key.py": _STORE_KEYS,
    "store/segment.py": _STORE_MEMORY,
    "store/memory.py": _STORE_MEMORY,
    "store/kept_rows.py": _STORE_MEMORY,
    "store/shelf.py": _STORE,
    "store/room.py": ("store_room",),
    "store/recipe.py": _STORE_KEYS,
    "store/shard_header.py": ("shard_header",),
    "keys/keyring.py": _KEYS,
    "keys/live.py": _KEYS,
    "weights/average.py": ("weight_average",),
    "weights/published.py": ("followed_weights", "weights"),
    "weights/followed.py": ("followed_weights", "weights"),
    "wire/zmq/backlog.py": ("backlog",),
}


def path_of(test: str) -> str:
    """The file of a test, from the root: of a name alone that of a unit test."""
    folder, _, name = f"unit/{test}".rpartition("/") if "/" not in test else test.rpartition("/")
    return f"tests/{folder}/test_{name}.py"
