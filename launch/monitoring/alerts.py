"""When Prometheus should say something, and what is worth being computed once for everybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edldist_launch.monitoring.selector import select

__all__ = ["ALERTS", "RECORDED", "Alert", "Recorded", "groups"]


@dataclass(frozen=True)
class Recorded:
    """A query whose answer is kept as a series of its own.

    ``record`` is its name: what of, which figure, over how long.
    """

    record: str
    query: str


@dataclass(frozen=True)
class Alert:
    """A query that answers while something is wrong.

    Attributes:
        held: for how long it has to be so.
        severity: ``critical`` where training stands or loses what it did, else ``warning``.
        summary: what is wrong, in a line.
        advice: what to look at, and what to do.
    """

    name: str
    query: str
    held: str
    severity: Literal["critical", "warning"]
    summary: str
    advice: str


RECORDED: Sequence[Recorded] = (
    Recorded(
        "edldist:student_samples:rate1m",
        "sum without (student, job_name) (rate(edldist_student_samples_total[1m]))",
    ),
    Recorded(
        "edldist:worker_samples:rate1m",
        "sum without (worker) (rate(edldist_worker_samples_total[1m]))",
    ),
    Recorded(
        "edldist:worker_busy:ratio1m",
        "avg without (worker) (rate(edldist_worker_busy_seconds_total[1m]))",
    ),
    Recorded(
        "edldist:student_starved:ratio1m",
        "max without (student) (rate(edldist_student_starved_seconds_total[1m]))",
    ),
    Recorded(
        "edldist:student_backpressure:ratio1m",
        "max without (student) (rate(edldist_student_backpressure_seconds_total[1m]))",
    ),
    Recorded(
        "edldist:teacher_stage_seconds:p99_5m",
        "histogram_quantile(0.99, rate(edldist_teacher_stage_seconds_bucket[5m]))",
    ),
    Recorded(
        "edldist:student_stage_seconds:p99_5m",
        "histogram_quantile(0.99, rate(edldist_student_stage_seconds_bucket[5m]))",
    ),
)

ALERTS: Sequence[Alert] = (
    Alert(
        "EdldistCoordinatorSilent",
        "up == 0",
        *("2m", "warning", "a coordinator has not answered for 2 minutes"),
        "Labels flow on without it, but nobody can join, and nothing scales. Look whether its process runs, "
        "and start it again: it is told everything anew by those who are here.",
    ),
    Alert(
        "EdldistNoTeachers",
        'edldist_teacher_workers == 0 and ignoring (group, role) edldist_members{role="student"} > 0',
        *("5m", "critical", "students wait, and group {{ $labels.group }} has no teacher worker"),
        "Training stands until a worker joins. See why they left in events.jsonl and in the logs of the "
        "workers, and whether the cluster has room for new ones.",
    ),
    Alert(
        "EdldistTooFewTeachers",
        "edldist_teacher_workers < edldist_teacher_wanted_workers",
        *("30m", "warning", "group {{ $labels.group }} has had fewer workers than are wanted for 30 minutes"),
        "Nodes, quota or images may be missing: look at pending pods or queued Slurm jobs.",
    ),
    Alert(
        "EdldistStarved",
        "edldist_teacher_starved_ratio > 0.5",
        *("15m", "warning", "a student waits for labels of {{ $labels.group }} more than half of its time"),
        "The teachers are the bottleneck: add workers (edldist scale), raise the upper bound of the group, "
        "or let a larger batch_size use their devices better.",
    ),
    Alert(
        "EdldistNoProgress",
        "sum without (student, job_name) (rate(edldist_student_samples_total[5m])) == 0 "
        'and ignoring (role) edldist_members{role="student"} > 0',
        *("10m", "critical", "students are here, and have taken no sample for 10 minutes"),
        "edldist status says what each rank waits for. A rank that hangs in its own code, or in a "
        "collective, takes no batch although its buffer is full.",
    ),
    Alert(
        "EdldistWorkersLost",
        'increase(edldist_events_total{event="teacher_lost"}[15m]) > 3',
        *("0m", "warning", "{{ $value | humanize }} teacher workers were lost within 15 minutes"),
        "Their tasks went to others. Look at the last lines of their logs (edldist logs), at memory, and "
        "whether spot machines are taken away.",
    ),
    Alert(
        "EdldistStudentsRestart",
        'increase(edldist_restarts_total{role="student"}[30m]) > 2',
        *("0m", "critical", "the students were begun anew {{ $value | humanize }} times within 30 minutes"),
        "Each time they go on from the last checkpoint, and do again what came after it. Look at the last "
        "lines of the rank that ended first.",
    ),
    Alert(
        "EdldistTasksRequeued",
        "sum without (student, job_name) (rate(edldist_student_requeued_tasks_total[10m])) "
        "> 0.1 * sum without (student, job_name) (rate(edldist_student_done_tasks_total[10m])) > 0",
        *("10m", "warning", "more than a tenth of all tasks go back to the queue"),
        "Workers fail, are lost, or give back what they hold: events.jsonl says which of it (task_requeued).",
    ),
    Alert(
        "EdldistLateAnswers",
        "sum without (student) (increase(edldist_student_late_answers_total[15m])) > 10",
        *("0m", "warning", "workers of job {{ $labels.job_name }} are written off, and answer later"),
        "They live, and are slower than they may be: raise coordinator.heartbeat_ttl_s, or lower batch_size.",
    ),
    Alert(
        "EdldistWorkersDistrusted",
        'sum without (event) (increase(edldist_events_total{event=~"teacher_quarantined|teacher_put_aside"}'
        "[15m])) > 0",
        *("0m", "warning", "a worker fails again and again, or does not answer as the others do"),
        "It gets no work meanwhile. Its device may be broken, or its weights or libraries others: compare it "
        "with its group in edldist status.",
    ),
    Alert(
        "EdldistSamplesSkipped",
        "sum without (student) (increase(edldist_student_skipped_samples_total[15m])) > 0",
        *("0m", "warning", "samples of job {{ $labels.job_name }} are left out: no worker can label them"),
        "The job says on_poison: skip. events.jsonl has their positions and the model's error "
        "(task_poisoned).",
    ),
    Alert(
        "EdldistCheckpointsFail",
        'sum without (event) (increase(edldist_events_total{event=~"checkpoint_failed|checkpoint_damaged"}'
        "[30m])) > 0",
        *("0m", "critical", "a checkpoint could not be saved, or was found damaged"),
        "Training goes on, and what it does is lost if it ends now. Look at the room on the disk, and at "
        "events.jsonl for the reason.",
    ),
    Alert(
        "EdldistLossSpikes",
        'increase(edldist_events_total{event="loss_spiked"}[30m]) > 3',
        *("0m", "warning", "the loss has spiked {{ $value | humanize }} times within 30 minutes"),
        "Each time the run goes back to a checkpoint and leaves some batches out. Lower the learning rate, "
        "or look at the data there.",
    ),
)


def groups(matcher: str = "") -> list[dict[str, Any]]:
    """The groups of rules as Prometheus reads them.

    Args:
        matcher: takes the series of the jobs that are meant; empty for all.
    """
    recorded = [{"record": each.record, "expr": select(each.query, matcher)} for each in RECORDED]
    alerts = [
        {
            "alert": each.name,
            "expr": select(each.query, matcher),
            "for": each.held,
            "labels": {"severity": each.severity},
            "annotations": {"summary": each.summary, "description": each.advice},
        }
        for each in ALERTS
    ]
    return [{"name": "edldist-figures", "rules": recorded}, {"name": "edldist-job", "rules": alerts}]
