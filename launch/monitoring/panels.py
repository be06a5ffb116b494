"""What the dashboard shows: each panel with its queries, in the rows in which a person looks for a cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["ROWS", "Panel", "Query", "Row"]

Look = Literal["lines", "number", "table", "stack"]


@dataclass(frozen=True)
class Query:
    """What to ask, and what to call each series of the answer."""

    ask: str
    called: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        unit: as Grafana names it.
        width: of 24 columns.
    """

    title: str
    unit: str
    queries: Sequence[Query]
    look: Look = "lines"
    width: int = 8
    most: float | None = None


@dataclass(frozen=True)
class Row:
    """Panels that belong together."""

    title: str
    panels: Sequence[Panel]


def _quantiles(family: str) -> list[Query]:
    buckets = f"sum by (group, stage, le) (rate({family}_bucket[$__rate_interval]))"
    return [
        Query(f"histogram_quantile({share}, {buckets})", f"{{{{stage}}}} {{{{group}}}} p{100 * share:g}")
        for share in (0.5, 0.99)
    ]


def _rate(series: str, by: str) -> Query:
    called = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
    return Query(f"sum by ({by}) (rate({series}[$__rate_interval]))", called)


ROWS: Sequence[Row] = (
    Row(
        "The job",
        [
            Panel(
                "Training",
                "samples/s",
                [Query("sum(rate(edldist_student_samples_total[$__rate_interval]))")],
                *("number", 4),
            ),
            Panel("Teacher workers", "short", [Query("sum(edldist_teacher_workers)")], *("number", 3)),
            Panel("Student ranks", "short", [Query('sum(edldist_members{role="student"})')], *("number", 3)),
            Panel(
                "Waiting for labels",
                "percentunit",
                [Query("max(rate(edldist_student_starved_seconds_total[$__rate_interval]))")],
                *("number", 4, 1.0),
            ),
            Panel("Last checkpoint: step", "short", [Query("max(edldist_checkpoint_step)")], *("number", 4)),
            Panel(
                "Restarts of the students",
                "short",
                [Query('max(edldist_restarts_total{role="student"})')],
                *("number", 3),
            ),
            Panel(
                "Coordinator up for", "s", [Query("min(edldist_coordinator_uptime_seconds)")], *("number", 3)
            ),
            Panel(
                "Samples a second: taken, and labelled",
                "samples/s",
                [
                    Query("sum(rate(edldist_student_samples_total[$__rate_interval]))", "taken by students"),
                    Query(
                        "sum by (group) (rate(edldist_worker_samples_total[$__rate_interval]))",
                        "labelled by {{group}}",
                    ),
                    Query("edldist_teacher_demand_samples_per_second", "wanted of {{group}}"),
                ],
                width=12,
            ),
            Panel(
                "Which side waits",
                "percentunit",
                [
                    Query(
                        "max(rate(edldist_student_starved_seconds_total[$__rate_interval]))",
                        "students wait for labels",
                    ),
                    Query(
                        "max(rate(edldist_student_backpressure_seconds_total[$__rate_interval]))",
                        "buffers are full: teachers wait",
                    ),
                    Query("edldist_teacher_starved_ratio", "students wait, of the last seconds ({{group}})"),
                ],
                *("lines", 12, 1.0),
            ),
        ],
    ),
    Row(
        "Teachers",
        [
            Panel(
                "Workers",
                "short",
                [
                    Query("edldist_teacher_workers", "{{group}} here"),
                    Query("edldist_teacher_wanted_workers", "{{group}} wanted"),
                    Query("edldist_teacher_draining_workers", "{{group}} leaving"),
                    Query("edldist_teacher_least_workers", "{{group}} at least"),
                    Query("edldist_teacher_most_workers", "{{group}} at most"),
                    Query("edldist_teacher_held_workers", "{{group}} as a person asked"),
                ],
            ),
            Panel(
                "Samples a second by worker", "samples/s", [_rate("edldist_worker_samples_total", "worker")]
            ),
            Panel(
                "Share of time in forward passes",
                "percentunit",
                [_rate("edldist_worker_busy_seconds_total", "worker")],
            ),
            Panel(
                "Capacity of one worker",
                "samples/s",
                [Query("edldist_teacher_capacity_samples_per_second", "{{group}} on {{device_type}}")],
            ),
            Panel(
                "Tasks and forward passes a second",
                "ops",
                [
                    Query(
                        "sum by (group) (rate(edldist_worker_tasks_total[$__rate_interval]))",
                        "tasks {{group}}",
                    ),
                    Query(
                        "sum by (group) (rate(edldist_worker_passes_total[$__rate_interval]))",
                        "passes {{group}}",
                    ),
                    Query(
                        "sum by (group) (rate(edldist_worker_out_of_memory_total[$__rate_interval]))",
                        "without memory {{group}}",
                    ),
                ],
            ),
            Panel(
                "Tasks in hand, and samples a pass",
                "short",
                [
                    Query("edldist_worker_held_tasks", "tasks of {{worker}}"),
                    Query("edldist_worker_batch_size", "batch size of {{worker}}"),
                ],
            ),
            Panel(
                "Samples in queues of workers",
                "short",
                [
                    Query("edldist_worker_queue_samples", "{{stage}} of {{worker}}"),
                    Query("edldist_worker_room_samples", "room of {{worker}}"),
                ],
            ),
            Panel(
                "Bytes in queues of workers",
                "bytes",
                [Query("edldist_worker_queue_bytes", "{{stage}} of {{worker}}")],
            ),
            Panel("Stages of the teachers", "s", _quantiles("edldist_teacher_stage_seconds"), width=12),
            Panel(
                "Waits before stages of the teachers",
                "s",
                _quantiles("edldist_teacher_stage_wait_seconds"),
                width=12,
            ),
            Panel(
                "Bytes a second of workers, by transport",
                "Bps",
                [_rate("edldist_worker_tensor_bytes_total", "direction, transport")],
                width=12,
            ),
            Panel("Versions", "short", [Query("edldist_worker_info")], *("table", 12)),
            Panel("Which edldist", "short", [Query("edldist_build_info")], *("table", 12)),
        ],
    ),
    Row(
        "Students",
        [
            Panel("Steps a second", "ops", [_rate("edldist_student_batches_total", "student")]),
            Panel(
                "Batches in the buffer",
                "short",
                [
                    Query("edldist_student_buffered_batches", "labelled, {{student}}"),
                    Query("edldist_student_open_batches", "read, {{student}}"),
                ],
            ),
            Panel(
                "Leases and connections",
                "short",
                [
                    Query("edldist_student_leased_tasks", "leased tasks of {{student}}"),
                    Query("edldist_student_connected_workers", "workers at {{student}}"),
                ],
            ),
            Panel("Stages of the students", "s", _quantiles("edldist_student_stage_seconds"), width=12),
            Panel(
                "Bytes a second of students, by transport",
                "Bps",
                [_rate("edldist_student_tensor_bytes_total", "direction, transport")],
                width=12,
            ),
            Panel("Memory of open batches", "bytes", [Query("edldist_student_queue_bytes", "{{student}}")]),
            Panel(
                "Checkpoints: seconds and bytes of one",
                "short",
                [
                    Query(
                        "increase(edldist_checkpoint_save_seconds_total[15m]) / ignoring (event) "
                        'increase(edldist_events_total{event="checkpoint_saved"}[15m])',
                        "seconds",
                    ),
                    Query(
                        "increase(edldist_checkpoint_saved_bytes_total[15m]) / ignoring (event) "
                        'increase(edldist_events_total{event="checkpoint_saved"}[15m])',
                        "bytes",
                    ),
                ],
                width=16,
            ),
        ],
    ),
    Row(
        "What went wrong",
        [
            Panel(
                "Events in 5 minutes",
                "short",
                [Query("sum by (event) (increase(edldist_events_total[5m])) > 0", "{{event}}")],
                *("stack", 12),
            ),
            Panel(
                "Tasks a second that took more than one attempt",
                "ops",
                [
                    Query("sum(rate(edldist_student_done_tasks_total[$__rate_interval]))", "done"),
                    Query("sum(rate(edldist_student_requeued_tasks_total[$__rate_interval]))", "requeued"),
                    Query("sum(rate(edldist_student_hedged_tasks_total[$__rate_interval]))", "hedged"),
                    Query("sum(rate(edldist_student_failed_tasks_total[$__rate_interval]))", "failed"),
                    Query(
                        "sum(rate(edldist_student_duplicate_answers_total[$__rate_interval]))", "duplicates"
                    ),
                    Query("sum(rate(edldist_student_late_answers_total[$__rate_interval]))", "late"),
                ],
                width=12,
            ),
            Panel(
                "Samples that were not labelled as asked",
                "short",
                [
                    Query("sum(edldist_student_skipped_samples_total)", "skipped"),
                    Query("sum(edldist_student_left_out_samples_total)", "left out"),
                    Query("sum(edldist_student_missed_samples_total)", "missed"),
                    Query("sum(edldist_student_stale_samples_total)", "stale"),
                    Query("sum(edldist_student_degraded_samples_total)", "more cheaply"),
                ],
            ),
            Panel(
                "Jobs on an overloaded fleet",
                "short",
                [
                    Query("edldist_teacher_overload_step", "step, {{group}}"),
                    Query(
                        "sum by (job_name) (rate(edldist_student_overload_seconds_total[$__rate_interval]))",
                        "ranks that ease off, {{job_name}}",
                    ),
                    Query(
                        "sum by (job_name) (rate(edldist_student_held_seconds_total[$__rate_interval]))",
                        "ranks that wait, {{job_name}}",
                    ),
                ],
            ),
            Panel(
                "Labels that were kept",
                "short",
                [
                    Query("sum(rate(edldist_student_found_samples_total[$__rate_interval]))", "found /s"),
                    Query(
                        "sum(rate(edldist_student_unfound_samples_total[$__rate_interval]))", "not found /s"
                    ),
                    Query("sum(rate(edldist_student_coalesced_samples_total[$__rate_interval]))", "equal /s"),
                    Query("sum(edldist_student_unkept_samples_total)", "not kept"),
                ],
            ),
            Panel(
                "Workers that answer otherwise",
                "short",
                [
                    Query("edldist_student_workers_aside", "aside, {{student}}"),
                    Query("edldist_student_largest_difference_nats", "nats, {{student}}"),
                    Query("edldist_student_largest_difference_ratio", "share, {{student}}"),
                    Query("sum(edldist_student_retracted_labels_total)", "labels retracted"),
                    Query("sum(edldist_student_doubtful_labels_total)", "labels in doubt"),
                ],
            ),
            Panel(
                "Garbage",
                "short",
                [
                    Query("edldist_coordinator_garbage_messages_total", "coordinator"),
                    Query("edldist_student_garbage_messages_total", "{{student}}"),
                ],
            ),
        ],
    ),
)
