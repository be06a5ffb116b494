"""What happened in a job, in words: the same on a terminal, on the dashboard and in a report. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edldist.wording import number

__all__ = ["KINDS", "describe_event", "happening_in_words"]

KINDS = {
    **dict.fromkeys(("teacher_joined", "teacher_readmitted", "student_joined", "labels_back"), "good"),
    "checkpoint_saved": "good",
    **dict.fromkeys(("teacher_left", "student_left", "node_ended", "coordinator_started"), "quiet"),
    **dict.fromkeys(("scaled", "checkpoint_restored", "remark", "keys_changed"), "quiet"),
    **dict.fromkeys(("teacher_quarantined", "teacher_put_aside", "labels_missing"), "wait"),
    **dict.fromkeys(("overload_step", "job_degraded", "job_waits"), "wait"),
    "job_let_in": "good",
    **dict.fromkeys(("loss_spiked", "rolled_back", "clock_skew"), "wait"),
    **dict.fromkeys(("teacher_lost", "teacher_refused", "student_lost", "task_poisoned"), "bad"),
    **dict.fromkeys(("checkpoint_failed", "checkpoint_damaged"), "bad"),
}
"""Events that a person follows a run by, and how to take each: good, quiet, wait or bad."""

_RECORDED_ONLY = ("student_left", "checkpoint_saved", "coordinator_started", "node_ended")
"""What would drown a terminal, or is said there by whoever did it."""


def describe_event(line: Mapping[str, Any]) -> str | None:
    """A change of state in words, or None for events that only the record needs. Total."""
    return None if line.get("event") in _RECORDED_ONLY else happening_in_words(line)


def happening_in_words(line: Mapping[str, Any]) -> str | None:
    """An event in words; None for those that are counted and not told.

    Total: an event may come from anybody, with any fields of any type.
    """
    event, who = str(line.get("event")), line.get("id", "")
    if event in ("teacher_joined", "teacher_left", "teacher_lost", "teacher_refused", "student_lost"):
        role, _, what = event.partition("_")
        reason = f" ({line['reason']})" if line.get("reason") else ""
        silent = f" (silent for {_seconds(line['silent_s'])} s)" if "silent_s" in line else ""
        return f"{role} {who} {what}{reason}{silent}"
    if event == "remark":
        return str(line.get("text"))
    if event == "scaled":
        name, wanted, before = line.get("name"), line.get("wanted"), line.get("before")
        return f"teacher {name}: {wanted} workers are wanted, not {before}: {line.get('reason')}"
    if event == "overload_step":
        name, asked, gives = line.get("name"), number(line.get("demand")), number(line.get("capacity"))
        steps = f"{line.get('step')} (before: {line.get('before')})"
        return f"teacher {name}, asked {asked} samples/s, gives {gives}: {steps}"
    if event == "job_degraded":
        return f"job {line.get('job')} is labelled by {line.get('to')} from now on"
    if event == "job_waits":
        return f"job {line.get('job')} waits: {line.get('reason')}"
    if event == "job_let_in":
        return f"job {line.get('job')} is let in after {_seconds(line.get('waited_s'))} s"
    if event in ("student_joined", "student_left"):
        return f"student rank {line.get('rank')} {event.partition('_')[2]}"
    if event == "checkpoint_saved":
        return f"checkpoint of step {number(line.get('step'))} saved in {_seconds(line.get('seconds'))} s"
    if event == "coordinator_started":
        return f"coordinator started, at {line.get('address')}"
    if event == "keys_changed":
        return _keys_in_words(line)
    if event == "node_ended":
        return f"student node on {line.get('host')} ended with code {line.get('code')}"
    if event == "teacher_quarantined":
        worker, seconds = line.get("worker"), number(line.get("for_s"))
        return f"teacher {worker} gets no work for {seconds} s, it keeps failing: {line.get('error')}"
    if event in ("labels_missing", "labels_back"):
        teacher, seconds = line.get("teacher"), _seconds(line.get("gone_s"))
        if event == "labels_back":
            return f"teacher {teacher} is back after {seconds} s: its labels are used again"
        return f"teacher {teacher} has had no worker for {seconds} s: batches go on without its labels"
    if event == "teacher_put_aside":
        worker, consumed = line.get("worker"), number(line.get("consumed"))
        reason = f"{line.get('reason')} ({consumed} labels of it were used)"
        return f"teacher {worker} on {line.get('host')} is put aside by {line.get('student')}: {reason}"
    if event == "teacher_readmitted":
        return f"teacher {line.get('worker')} answers as the others again, says {line.get('student')}"
    if event == "task_poisoned":
        place = f"samples {line.get('samples')} of batch {line.get('batch')}"
        return f"{place} cannot be labelled by teacher {line.get('teacher')}: {line.get('error')}"
    if event in ("checkpoint_failed", "checkpoint_damaged"):
        return f"checkpoint of step {line.get('step')} {event.partition('_')[2]}: {line.get('reason')}"
    if event == "loss_spiked":
        place = f"after step {number(line.get('step'))}, epoch {number(line.get('epoch'))}"
        found = f"{line.get('what')} is {line.get('value')} (bound {line.get('bound')})"
        return f"spike {place}: {found}, behind sample {number(line.get('position'))}"
    if event == "rolled_back":
        restored, batches = number(line.get("restored")), number(line.get("batches"))
        return f"back from step {number(line.get('step'))} to {restored}, leaving out {batches} batches"
    if event in ("checkpoint_restored", "clock_skew"):
        fields = " ".join(f"{key}={value}" for key, value in line.items() if key not in ("t", "event"))
        return f"{event.replace('_', ' ')}: {fields}"
    return None


def _keys_in_words(line: Mapping[str, Any]) -> str:
    added, retired, former = (line.get(name) or 0 for name in ("added", "retired", "former"))
    words = [
        f"{number(count)} {what}" for count, what in ((added, "came"), (retired, "count no more")) if count
    ]
    words += [f"{number(former)} former ones count for a while"] if former else []
    what = "the coordinator has a new key" if line.get("rotated") else "keys have changed"
    return f"{what}: {', '.join(words)}" if words else what


def _seconds(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else number(value)
