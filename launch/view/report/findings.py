"""What went wrong in a run, and what held it up, in words: events and figures in, sentences out. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edldist.observe.event_words import describe_event
from edldist.observe.states import Tone
from edldist.wording import duration
from edldist_launch.view.report.evidence import Evidence

__all__ = ["Finding", "findings"]

MOST_NAMED = 4
WORTH_A_WORD = 0.1
"""Of the time of training: a smaller part is not worth a word."""


@dataclass(frozen=True)
class Finding:
    """One sentence, and whether it is bad news, worth a look, or good to know."""

    tone: Tone
    words: str


def findings(evidence: Evidence) -> list[Finding]:
    """The sentences, the worst first; none where a run went through without anything to tell."""
    found = [*_end(evidence), *_figures(evidence.result), *_events(evidence.events), *_waiting(evidence)]
    found += [Finding("wait", words) for words in evidence.damage]
    order = {"bad": 0, "wait": 1, "quiet": 2, "good": 3}
    return sorted(found, key=lambda finding: order[finding.tone])


def _end(evidence: Evidence) -> Iterator[Finding]:
    reason = str(evidence.result.get("reason") or "")
    if evidence.status == "running":
        yield Finding("quiet", "The job still runs: this is what there was of it when the report was made.")
    elif evidence.status == "killed":
        yield Finding(
            "bad",
            "The run left no result: it was killed with whoever watched it, or its disk took nothing.",
        )
    elif evidence.status == "failed":
        yield Finding("bad", f"The run failed: {reason}" if reason else "The run failed, and gave no reason.")
    elif evidence.status == "interrupted":
        yield Finding("wait", f"The run was interrupted{f': {reason}' if reason else ''}.")


def _figures(result: Mapping[str, Any]) -> Iterator[Finding]:
    counted: tuple[tuple[str, Tone, str], ...] = (
        ("skipped_samples", "wait", "{} samples were left out: no worker could label them."),
        ("missed_samples", "wait", "{} samples were learnt without the labels of a missing teacher."),
        ("left_out_samples", "wait", "{} samples were taken without a step, behind spikes of the loss."),
        ("doubtful_labels", "wait", "{} labels of workers that were put aside had been learnt from."),
        ("retracted_labels", "quiet", "{} labels of workers that were put aside were made anew by others."),
        ("student_restarts", "wait", "Restarts of the students: {}."),
    )
    for key, tone, words in counted:
        if number := _count(result.get(key)):
            yield Finding(tone, words.format(f"{number:,}"))
    tasks = result.get("tasks")
    if isinstance(tasks, Mapping) and (failed := _count(tasks.get("failed"))):
        yield Finding("wait", f"{failed:,} tasks failed on a worker's model, and were tried elsewhere.")
    if isinstance(tasks, Mapping) and (again := _count(tasks.get("requeued"))):
        yield Finding("quiet", f"{again:,} tasks were handed out again, and their labels counted once.")


def _events(events: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    named: tuple[tuple[str, Tone, str, str], ...] = (
        ("task_poisoned", "bad", "part of a batch had no labels", "parts of batches had no labels"),
        ("teacher_lost", "wait", "teacher worker was lost", "teacher workers were lost"),
        ("teacher_crashed", "wait", "crash of a teacher worker", "crashes of teacher workers"),
        ("student_lost", "wait", "student rank was lost", "student ranks were lost"),
        ("student_crashed", "wait", "crash of a student node", "crashes of student nodes"),
        ("coordinator_crashed", "wait", "crash of the coordinator", "crashes of the coordinator"),
        ("teacher_refused", "wait", "teacher worker was refused", "teacher workers were refused"),
        ("teacher_quarantined", "wait", "quarantine of a worker", "quarantines of workers"),
        ("teacher_put_aside", "wait", "worker was put aside", "workers were put aside"),
        ("labels_missing", "wait", "absence of a teacher", "absences of teachers"),
        ("checkpoint_failed", "bad", "checkpoint could not be saved", "checkpoints could not be saved"),
        ("checkpoint_damaged", "bad", "checkpoint was damaged", "checkpoints were damaged"),
        ("loss_spiked", "wait", "spike of the loss", "spikes of the loss"),
        ("rolled_back", "wait", "return behind a spike", "returns behind spikes"),
        ("clock_skew", "wait", "disagreement of two hosts' clocks", "disagreements of two hosts' clocks"),
    )
    counts = Counter(str(event["event"]) for event in events)
    for name, tone, one, many in named:
        if not counts[name]:
            continue
        those = [event for event in events if event["event"] == name]
        who = list(dict.fromkeys(str(each.get("id") or each.get("worker") or "") for each in those))
        listed = ", ".join(filter(None, who[:MOST_NAMED])) + (", ..." if len(who) > MOST_NAMED else "")
        last = describe_event(those[-1])
        about = f" ({listed})" if listed.strip(", .") else ""
        said = f"{counts[name]} {one if counts[name] == 1 else many}{about}."
        yield Finding(tone, f"{said} The last: {last}." if last else said)
    starts = counts["coordinator_started"] - max(1, counts["job_started"])
    if starts > 0:
        times = "once" if starts == 1 else f"{starts} times"
        yield Finding("quiet", f"The coordinator was started again {times}; labels flowed on without it.")
    if counts["job_started"] > 1:
        yield Finding(
            "quiet", f"The folder holds {counts['job_started']} runs, each going on with the former."
        )


def _waiting(evidence: Evidence) -> Iterator[Finding]:
    """Which side held the other up, by the times that both waited."""
    times = evidence.series.times_s
    trained_s = times[-1] - times[0] if len(times) > 1 else 0.0
    starved_s, full_s = (_seconds(evidence.result.get(key)) for key in ("starved_s", "backpressure_s"))
    if trained_s <= 0:
        return
    if starved_s >= WORTH_A_WORD * trained_s:
        part = min(1.0, starved_s / trained_s)
        yield Finding(
            "wait" if part >= 0.3 else "quiet",
            f"The teachers held the students up: of {duration(trained_s)}, the student that waited most "
            f"waited {duration(starved_s)} ({part:.0%}) for labels. More or faster workers shorten the run.",
        )
    elif full_s >= WORTH_A_WORD * trained_s:
        several = max((most for most in evidence.series.workers if math.isfinite(most)), default=0) > 1
        yield Finding(
            "quiet",
            f"The students held the teachers up: their buffers were full for {duration(full_s)} of "
            f"{duration(trained_s)}. {'Fewer workers' if several else 'A slower worker'} would have done.",
        )


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _seconds(value: object) -> float:
    sane = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12
    return float(value) if sane else 0.0  # type: ignore[arg-type]
