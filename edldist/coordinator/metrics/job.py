"""What the coordinator tells of the job as a whole."""

from __future__ import annotations

from edldist.coordinator.metrics.spec import MetricSpec, counter, gauge, info

__all__ = ["JOB"]

JOB: tuple[MetricSpec, ...] = (
    gauge(
        "edldist_coordinator_uptime_seconds",
        "seconds",
        "coordinator",
        "uptime_s",
        "Age of this coordinator. Where it falls, it was restarted: labels flowed on meanwhile, and sums "
        "over members begin anew.",
    ),
    counter(
        "edldist_coordinator_garbage_messages",
        "messages",
        "coordinator",
        "garbage",
        "Messages that were none of edldist's, or reported what no member may: dropped, and no more. Where "
        "they keep coming, something else talks to this port, or a process of another revision does.",
    ),
    info(
        "edldist_build",
        "coordinator",
        "build",
        "Always 1. Its labels say which edldist, protocol and Python the coordinator runs; members with "
        "another protocol are refused.",
    ),
    gauge(
        "edldist_members",
        "processes",
        "role",
        "counts",
        "Teacher workers (role teacher) and student ranks (role student) that are here.",
    ),
    counter(
        "edldist_restarts",
        "restarts",
        "restarts",
        "restarts",
        "Of role teacher: workers that took the place of one that had ended. Of role student: how often the "
        "ranks were begun anew, after one was lost or one joined (student_restarts of result.json).",
    ),
    counter(
        "edldist_events",
        "events",
        "event",
        "events",
        "Lines of events.jsonl by the name of the event: members that joined, left or were lost, workers "
        "that were quarantined or put aside, checkpoints, requeued tasks, changes of scale, loss spikes.",
    ),
    counter(
        "edldist_checkpoint_save_seconds",
        "seconds",
        "checkpoint",
        "seconds",
        "Time that it took to save checkpoints, from the step to the moment when they were safe. Divide by "
        'edldist_events_total{event="checkpoint_saved"} for one.',
    ),
    counter(
        "edldist_checkpoint_saved_bytes",
        "bytes",
        "checkpoint",
        "bytes",
        "Bytes of the checkpoints that were saved.",
    ),
    gauge(
        "edldist_checkpoint_step",
        "steps",
        "checkpoint",
        "step",
        "Step of the checkpoint that was saved last: a run that is killed now goes on from there.",
    ),
)
