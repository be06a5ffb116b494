"""The state of a job in Prometheus' text format. Pure: the status page in, the page for a scraper out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_OF_GROUPS = {
    "workers": ("edldist_teacher_workers", "Teacher workers that are here and do not drain."),
    "draining": ("edldist_teacher_draining_workers", "Teacher workers that are about to leave."),
    "wanted": ("edldist_teacher_wanted_workers", "Teacher workers that there should be."),
    "least": ("edldist_teacher_least_workers", "Lower bound of the wanted workers."),
    "most": ("edldist_teacher_most_workers", "Upper bound of the wanted workers."),
    "held": ("edldist_teacher_held_workers", "Workers that a person asked for, until they ask for auto."),
    "demand": (
        "edldist_teacher_demand_samples_per_second",
        "Samples that the students would take if they never waited for labels.",
    ),
    "starved": (
        "edldist_teacher_starved_ratio",
        "Share of the last seconds in which the student that waits most waited for labels.",
    ),
}
_OF_WORKERS = {
    "samples": ("edldist_worker_samples", "Samples that a teacher worker has labelled."),
    "passes": ("edldist_worker_passes", "Forward passes of a teacher worker."),
    "busy_s": ("edldist_worker_busy_seconds", "Time that a teacher worker has spent in forward passes."),
    "out_of_memory": ("edldist_worker_out_of_memory", "Times that a pass of a teacher worker had no memory."),
}
_OF_STUDENTS = {
    "samples": ("edldist_student_samples", "Samples that a student rank has taken."),
    "batches": ("edldist_student_batches", "Batches that a student rank has taken."),
    "starved_s": ("edldist_student_starved_seconds", "Time that a student rank has waited for labels."),
    "backpressure_s": ("edldist_student_backpressure_seconds", "Time that a student's queue was full."),
    "requeued": ("edldist_student_requeued_tasks", "Tasks that went back to the front of a student's queue."),
    "duplicates": ("edldist_student_duplicate_answers", "Answers that others had given before."),
    "hedged": ("edldist_student_hedged_tasks", "Tasks that a second worker got, too."),
    "failed": ("edldist_student_failed_tasks", "Tasks that a model failed on."),
    "skipped": (
        "edldist_student_skipped_samples",
        "Samples that no worker could label, and that were left out.",
    ),
    "left_out": (
        "edldist_student_left_out_samples",
        "Samples that were consumed without a step, because they had made a loss spike.",
    ),
    "stale": ("edldist_student_stale_samples", "Samples that were labelled by too old a version, and again."),
    "missed": ("edldist_student_missed_samples", "Samples without labels of a teacher that was missing."),
    "retracted": (
        "edldist_student_retracted_labels",
        "Labels of workers that were put aside, which others made anew.",
    ),
    "doubtful": (
        "edldist_student_doubtful_labels",
        "Labels that a student rank had taken of workers that were put aside later.",
    ),
}
_LEVELS = {
    "buffered": ("edldist_student_buffered_batches", "Labelled batches that a student has not taken yet."),
    "aside": (
        "edldist_student_workers_aside",
        "Connected workers that get no tasks, because they do not answer as the others do.",
    ),
    "differs_nats": (
        "edldist_student_largest_difference_nats",
        "Largest difference between workers that label, of distributions.",
    ),
    "differs_relative": (
        "edldist_student_largest_difference_ratio",
        "Largest difference between workers that label, of other outputs.",
    ),
    "queue_bytes": ("edldist_student_queue_bytes", "Memory of a student's open batches."),
}


def exposition(page: Mapping[str, Any]) -> bytes:
    """The state of the job as a scraper reads it.

    Args:
        page: what ``/status`` tells.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(page))
    return generate_latest(registry)


class _Page(Collector):
    def __init__(self, page: Mapping[str, Any]) -> None:
        self._page = page

    def collect(self) -> Iterable[Metric]:
        page = self._page
        yield GaugeMetricFamily(
            "edldist_coordinator_uptime_seconds", "Age of this coordinator.", value=page["uptime_s"]
        )
        yield CounterMetricFamily(
            "edldist_coordinator_garbage_messages", "Messages that were none.", value=page["garbage"]
        )
        members = GaugeMetricFamily("edldist_members", "Members that are here.", labels=["role"])
        for role, count in page["counts"].items():
            members.add_metric([role.removesuffix("s")], count)
        yield members
        yield from self._groups()
        workers = [member for member in page["members"] if member["role"] == "teacher"]
        students = [member for member in page["members"] if member["role"] == "student"]
        yield from _counters(_OF_WORKERS, "worker", workers)
        yield from _counters(_OF_STUDENTS, "student", students)
        for key, (name, what) in _LEVELS.items():
            level = GaugeMetricFamily(name, what, labels=["student"])
            for member, value in _figures(students, key):
                level.add_metric([member["id"]], value)
            yield level

    def _groups(self) -> Iterable[Metric]:
        for key, (name, what) in _OF_GROUPS.items():
            metric = GaugeMetricFamily(name, what, labels=["group"])
            for group in self._page["groups"]:
                if group[key] is not None:
                    metric.add_metric([group["name"]], group[key])
            yield metric
        capacity = GaugeMetricFamily(
            "edldist_teacher_capacity_samples_per_second",
            "Samples that a teacher worker on such a device could label if it never waited for tasks.",
            labels=["group", "device_type"],
        )
        for group in self._page["groups"]:
            for device, value in group["by_device"].items():
                capacity.add_metric([group["name"], device], value)
        yield capacity


def _counters(
    known: Mapping[str, tuple[str, str]], role: str, members: list[Mapping[str, Any]]
) -> Iterable[Metric]:
    for key, (name, what) in known.items():
        metric = CounterMetricFamily(name, what, labels=[role, "group"])
        for member, value in _figures(members, key):
            metric.add_metric([member["id"], member["group"]], value)
        yield metric


def _figures(members: list[Mapping[str, Any]], key: str) -> Iterable[tuple[Mapping[str, Any], float]]:
    """What members say of one figure; theirs is not checked anywhere else."""
    for member in members:
        value = member["stats"].get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield member, value
