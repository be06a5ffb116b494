"""Which side of a running job holds up the other, and why, in words and figures. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import fmean, median

from edldist.tracing.kinds import Kind
from edldist.wire.messages import GroupStatus
from edldist_launch.doctor.finding import Finding, fail, warn
from edldist_launch.doctor.job_figures import JobFigures, StudentFigures, WorkerFigures
from edldist_launch.doctor.job_path import PathFigures

__all__ = ["diagnose"]

STARVED = 0.10
"""From this share of waiting on, the loop is held up by labels."""
READING = 0.30
BUSY = 0.70
"""Workers that compute for this share of the time are at work; the rest goes into sending and receiving."""
SLOW = 0.5
"""A worker whose passes give less than this share of its group's median is slow."""
SLOW_BUSY = 0.10
"""Below this share of computing a worker's pace is that of a few passes, and holds nobody up."""
SMALL_PASS = 0.5
SHORT_PASS_S = 0.002
DEAR_STAGE = 0.25
FAR = 0.3
"""From this share of a task's turnaround on, the way between the hosts counts."""
LINK = 0.6

_STAGES = {
    Kind.DECODE: (
        "reading inputs",
        "send fewer bytes; where workers read a data set, with more threads (--dataset-threads)",
    ),
    Kind.COPY_IN: (
        "bringing inputs to the device",
        "send fewer bytes, or inputs by reference",
    ),
    Kind.ENCODE: ("the codec", "choose a cheaper one (docs/codecs.md says what each costs)"),
    Kind.COPY_OUT: ("bringing labels to the host", "choose a codec that makes them smaller (docs/codecs.md)"),
}


def diagnose(
    figures: JobFigures, paths: Mapping[str, PathFigures] | None = None, link_bytes_per_s: float | None = None
) -> list[Finding]:
    """What is to be said of a job: who holds up whom first, then what else is worth a look.

    Args:
        figures: of some seconds.
        paths: by teacher group, what a trace of these seconds says; None where there is none.
        link_bytes_per_s: what the network of the students' host can carry; None where nobody knows.
    """
    findings = list(_missing(figures))
    findings.append(_bottleneck(figures, paths or {}))
    for group in figures.groups:
        workers = figures.of_group(group.name)
        findings += _slow(workers)
        findings += _passes(group, workers)
        findings += _stages(group.name, workers, (paths or {}).get(group.name))
    findings += _network(figures, link_bytes_per_s)
    findings += _excluded(figures)
    findings += _again(figures)
    return findings


# --- who holds up whom -----------------------------------------------------------------------------------


def _bottleneck(figures: JobFigures, paths: Mapping[str, PathFigures]) -> Finding:
    told = [each for each in figures.students if each.starved is not None]
    if not told:
        return _no_steps(figures)
    worst = max(told, key=lambda each: (each.starved or 0.0) + (each.reading or 0.0))
    starved, reading, own = worst.starved or 0.0, worst.reading or 0.0, worst.own or 0.0
    shares = (
        f"of {worst.called}'s time its own steps take {own:.0%}, waiting for labels {starved:.0%} and its "
        f"data loader {reading:.0%}, at {worst.samples_per_s:.0f} samples/s"
    )
    workers = [each for each in figures.workers if each.group in worst.teachers and each.busy is not None]
    busy = fmean([each.busy or 0.0 for each in workers]) if workers else None
    idle = busy is not None and busy < BUSY
    if reading >= READING and reading >= starved:
        return _data_loader(shares, busy)
    if starved < STARVED:
        return _steps(shares, worst, busy, figures)
    if reading >= READING and idle:
        return _data_loader(shares, busy)
    if busy is None:
        return fail(
            "labels",
            f"{shares}: no worker of {_named(worst.teachers)} has told how busy it is",
            "start workers, or look at edldist status: who waits for whom",
        )
    if not idle:
        return _teachers(shares, workers, busy, figures)
    return _between(shares, busy, worst, paths)


def _no_steps(figures: JobFigures) -> Finding:
    if not figures.students:
        return fail(
            "students",
            "no student is in the job: nobody asks for labels",
            "start one (edldist run); edldist status says which are being started",
        )
    waiting = max(figures.students, key=lambda each: each.waiting_s)
    if waiting.waiting_s > 0:
        return fail(
            "labels",
            f"{waiting.called} has waited for labels for {waiting.waiting_s:.1f} s, and took no batch in "
            f"{figures.elapsed_s:.1f} s",
            "edldist status says for whom it waits; a model may need long for its first pass",
        )
    return warn(
        "students",
        f"no student took a batch in {figures.elapsed_s:.1f} s, and none waits for labels: they start, "
        "evaluate, save, or their steps are longer",
        "look again with more --seconds",
    )


def _data_loader(shares: str, busy: float | None) -> Finding:
    beside = "" if busy is None else f"; workers compute for {busy:.0%} of theirs"
    return warn(
        "data loader",
        f"the students' data loaders are what everybody waits for: {shares}{beside}",
        "read with worker processes (DataLoader num_workers, pin_memory), make what __getitem__ and the "
        "collate function do cheaper, or let teachers read inputs by reference (docs/teachers.md)",
    )


def _steps(shares: str, worst: StudentFigures, busy: float | None, figures: JobFigures) -> Finding:
    full = f", and what may be read ahead was all labelled for {worst.full:.0%} of it" if worst.full else ""
    spare = [said for group in figures.groups if (said := _spare(group))]
    remedy = "more ranks or a faster device for the students make it faster; more teachers do not"
    if spare:
        remedy += f". {' and '.join(spare)}"
    beside = "" if busy is None else f"; workers compute for {busy:.0%} of the time"
    return Finding(
        "student steps", "ok", f"labels are there when they are wanted: {shares}{full}{beside}", remedy
    )


def _spare(group: GroupStatus) -> str:
    """How many workers of a group would do, if that is fewer than there are."""
    needed = _needed(group)
    if needed is None or needed >= group.workers:
        return ""
    return f"{needed} of the {group.workers} workers of {group.name} would do ({_way_to(needed, group)})"


def _needed(group: GroupStatus) -> int | None:
    if not group.demand or not group.capacity:
        return None
    return max(1, math.ceil(group.demand / group.capacity))


def _way_to(needed: int, group: GroupStatus) -> str:
    """What brings a group to so many workers, or as near as its job lets it."""
    if group.least is None or group.most is None:
        return "start some more by hand" if needed > group.workers else "end others with SIGTERM"
    nearest = min(max(needed, group.least), group.most)
    if nearest == group.workers:
        return f"its replicas in the job file allow {group.least} to {group.most}"
    bound = (
        ""
        if nearest == needed
        else f", as far as its replicas in the job file allow: {group.least} to {group.most}"
    )
    return f"edldist scale {group.name}={nearest}{bound}"


def _teachers(shares: str, workers: list[WorkerFigures], busy: float, figures: JobFigures) -> Finding:
    names = sorted({each.group for each in workers})
    wanted = [
        f"{needed} workers of {group.name} would keep up, where there are {group.workers} "
        f"({_way_to(needed, group)})"
        for group in figures.groups
        if group.name in names and (needed := _needed(group)) is not None and needed > group.workers
    ]
    more = "; ".join(wanted) or "start more workers, or give them a faster device"
    return warn(
        "teachers",
        f"the teachers are too slow: {shares}; the {len(workers)} workers of {_named(names)} compute for "
        f"{busy:.0%} of theirs",
        f"{more}. Larger passes (--batch-size auto), --autocast bf16 and --compile make each one faster",
    )


def _between(
    shares: str,
    busy: float,
    worst: StudentFigures,
    paths: Mapping[str, PathFigures],
) -> Finding:
    """The loop waits for labels, and the workers for tasks: it is the way, or too little is under way."""
    far = [
        (name, path)
        for name in worst.teachers
        if (path := paths.get(name)) is not None
        and path.turnaround_s
        and path.transit_s is not None
        and path.transit_s >= FAR * path.turnaround_s
    ]
    if far:
        name, path = max(far, key=lambda each: each[1].transit_s or 0.0)
        assert path.turnaround_s is not None and path.transit_s is not None
        return warn(
            "network",
            f"tasks and labels are long on their way: {shares}; workers compute for {busy:.0%} of theirs, "
            f"and of the {path.turnaround_s * 1e3:.1f} ms until a task of {name} is answered "
            f"{path.transit_s * 1e3:.1f} ms are both ways ({path.transit_s / path.turnaround_s:.0%}); "
            f"{worst.called} moves {_bytes(worst.bytes_per_s)}/s",
            "send fewer bytes (docs/codecs.md; inputs by reference), read further ahead (high_watermark), or "
            "bring workers nearer: on one host tensors go through shared memory",
        )
    return warn(
        "read-ahead",
        f"too little is under way: {shares}, although workers compute for only {busy:.0%} of theirs; "
        f"{worst.called} has {worst.buffered} labelled batches",
        "let the loop read further ahead (high_watermark, max_bytes), or cut its batches smaller "
        "(task_size), so that all workers have some at once",
    )


# --- what else is worth a look -----------------------------------------------------------------------------


def _missing(figures: JobFigures) -> Iterator[Finding]:
    wanted = {name for student in figures.students for name in student.teachers}
    here = {group.name for group in figures.groups if group.workers or group.draining}
    for name in sorted(wanted - here):
        refused = [each.reason for each in figures.refused if each.group == name]
        why = f" (one was refused: {refused[-1]})" if refused else ""
        yield fail(
            "workers",
            f"students want labels of {name!r}, and no worker of it is here{why}",
            f"start one: edldist teacher --name {name}; or call the loader's teacher= as workers are called",
        )


def _slow(workers: list[WorkerFigures]) -> Iterator[Finding]:
    paces = {each.id: each.pace for each in workers if each.pace is not None}
    for each in workers:
        others = [pace for name, pace in paces.items() if name != each.id]
        if each.pace is None or not others or each.pace >= SLOW * (usual := median(others)):
            continue
        if each.busy is not None and each.busy < SLOW_BUSY:
            continue
        yield warn(
            "slow worker",
            f"{each.id} on {each.host} labels {each.pace:.0f} samples in a second of computing, the others "
            f"of {each.group} {usual:.0f} in the median",
            "look at what else computes on that device or host (its clocks, its threads), or let it go: "
            "labels come in order, and its tasks come last",
        )


def _passes(group: GroupStatus, workers: list[WorkerFigures]) -> Iterator[Finding]:
    known = [each for each in workers if each.fill is not None and each.pass_s is not None]
    if not known:
        return
    fill, size = fmean([each.fill or 0.0 for each in known]), known[0].batch_size
    pass_s = fmean([each.pass_s or 0.0 for each in known])
    busy = fmean([each.busy or 0.0 for each in known])
    if fill < SMALL_PASS and busy >= BUSY:
        yield warn(
            "small passes",
            f"a pass of {group.name} has {fill * size:.0f} samples in the mean, and could have {size} "
            f"({fill:.0%}), while workers compute for {busy:.0%} of the time",
            "let students read further ahead (high_watermark) or in larger batches; tasks that are cut small "
            "(task_size, deterministic) have passes of their own",
        )
    elif fill >= 0.9 and pass_s < SHORT_PASS_S:
        yield warn(
            "batch size",
            f"passes of {group.name} are full with {size} samples, and take {pass_s * 1e3:.2f} ms each",
            "raise --batch-size (or auto): what each pass costs besides its samples counts then",
        )


def _stages(name: str, workers: list[WorkerFigures], path: PathFigures | None) -> Iterator[Finding]:
    if path is None:
        return
    computing = path.stages.get(Kind.FORWARD, 0.0)
    busy = [each.busy for each in workers if each.busy is not None]
    if busy and fmean(busy) < SLOW_BUSY * computing:
        return  # passes, of which computing is that share, hold nobody up
    for kind, (what, remedy) in _STAGES.items():
        share = path.stages.get(kind, 0.0)
        if share >= DEAR_STAGE:
            label = "codec" if kind is Kind.ENCODE else "passes"
            yield warn(label, f"{what} takes {share:.0%} of the time of {name}'s passes", remedy)


def _network(figures: JobFigures, link_bytes_per_s: float | None) -> Iterator[Finding]:
    if not link_bytes_per_s:
        return
    hosts: dict[str, float] = {}
    for each in figures.students:
        hosts[each.host] = hosts.get(each.host, 0.0) + each.bytes_per_s
    for host, moved in hosts.items():
        if moved >= LINK * link_bytes_per_s:
            yield warn(
                "network",
                f"the students of {host} move {_bytes(moved)}/s, {moved / link_bytes_per_s:.0%} of what its "
                f"network carries ({_bytes(link_bytes_per_s)}/s)",
                "send fewer bytes: a smaller codec (docs/codecs.md), inputs by reference, workers on it",
            )


def _excluded(figures: JobFigures) -> Iterator[Finding]:
    for worker in figures.workers:
        if worker.quarantine:
            yield warn(
                "quarantine",
                f"{worker.id} on {worker.host} gets no work: {worker.quarantine}",
                "its log says what its model raised; it is tried again by itself, and ends for good with "
                "edldist scale",
            )
        if worker.out_of_memory:
            yield warn(
                "memory",
                f"{worker.id} on {worker.host} ran out of memory {worker.out_of_memory} times: passes have "
                f"at most {worker.batch_size} samples now",
                "lower --batch-size to what fits from the start",
            )
    for refused in figures.refused:
        yield warn(
            "refused",
            f"{refused.role} {refused.id} of {refused.host or 'an unknown host'} was refused "
            f"{refused.ago_s:.0f} s ago: {refused.reason}",
            "mend what it says, and start it again",
        )


def _again(figures: JobFigures) -> Iterator[Finding]:
    requeued = sum(each.requeued for each in figures.students)
    duplicates = sum(each.duplicates for each in figures.students)
    if requeued or duplicates:
        yield warn(
            "done again",
            f"{requeued} tasks went back to the queue in {figures.elapsed_s:.1f} s, and {duplicates} answers "
            "came twice or too late",
            "workers are lost, fail or answer late: edldist status and the workers' logs say which",
        )


def _named(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names) or "no group"


def _bytes(value: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f} B"
