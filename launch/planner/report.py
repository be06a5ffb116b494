"""A plan in words, as JSON, and as keys of a job file. Pure."""

from __future__ import annotations

from typing import Any

from edldist.wording import duration
from edldist_launch.planner.planning import Check, Plan
from edldist_launch.planner.setting import Setting
from edldist_launch.planner.target import Option

__all__ = ["assumed", "document", "fragment", "in_words"]

FAR = 0.15
"""A replay that misses the rate of its own run by more is told as a warning."""
P95_FAR = 0.25
"""The same of how long 95% of the tasks take at most."""


def in_words(plan: Plan) -> list[str]:
    """What a person should know, line by line."""
    best = plan.best
    done = best.replayed
    own = plan.planned_for.loop.samples_per_s
    head = "plan" if plan.met else f"no plan meets the target ({plan.target.in_words()}); the nearest"
    lines = [
        f"{head}: {_named(best.setting)}",
        f"  student   {done.efficiency:.1%} of its own speed, {done.samples_per_s:,.0f} of {own:,.0f} "
        f"samples/s; waits for labels {done.starved:.1%} of the time, 95% of its batches "
        f"{_ms(done.wait_p95_s)} at most",
        f"  takes     {duration(best.lasts_s)} for {best.samples:,} samples",
        f"  costs     {best.worker_s:,.0f} worker seconds ({best.worker_s / 3600:.3g} worker hours)",
        "  workers   "
        + ", ".join(f"on {device} busy {share:.0%} of the time" for device, share in done.busy.items())
        + f"; half of the tasks take {_ms(done.task_p50_s)} there at most, 95% take {_ms(done.task_p95_s)}",
        "the frontier (cost, efficiency):",
    ]
    for option in plan.frontier:
        mark = "  <- the plan" if option.setting == best.setting else ""
        lines.append(
            f"  {option.worker_s:10,.0f} worker seconds  {option.replayed.efficiency:6.1%}  "
            f"{_named(option.setting)}{mark}"
        )
    lines += ["checked, by replaying the runs themselves:"] if plan.checks else []
    lines += [f"  {_checked(each)}" for each in plan.checks]
    return lines + ["assumed:", *(f"  - {each}" for each in assumed(plan))]


def assumed(plan: Plan) -> list[str]:
    """What the figures rest on."""
    run = plan.planned_for
    loop = run.loop
    lines = [
        f"the student is that of {run.folder}: {loop.ranks} ranks of {loop.batch_samples} samples a batch, "
        f"{_ms(loop.own_s)} from batch to batch when it never waits, its data loader included",
    ]
    for device, pace in plan.paces.items():
        lines.append(
            f"workers on {device} are as {pace.rows} rows say: a full pass of "
            f"{plan.best.setting.batch_size} takes {_ms(pace.pass_s(plan.best.setting.batch_size))} (half of "
            f"the passes differ by {pace.error:.1%} or more from the fit; sizes of {pace.sizes[0]} to "
            f"{pace.sizes[1]} were seen)"
        )
    lines += [
        f"batch sizes of {', '.join(map(str, plan.sizes))} were tried; there may be "
        + ", ".join(f"{count} workers on {device}" for device, count in plan.most.items()),
        "each worker has its device to itself: more of them do not slow each other down",
        f"messages travel for {_ms(plan.trip_s)}, nobody dies, and every sample costs the same",
    ]
    if not run.watermarks_known:
        lines.append(
            f"the loader reads ahead as by default (low_watermark={run.low_watermark}, "
            f"high_watermark={run.high_watermark}): the run does not say"
        )
    if any(pace.overlaps for pace in plan.paces.values()):
        lines.append("on devices other than the CPU, copies of one pass overlap the compute of another")
    return lines


def fragment(plan: Plan) -> dict[str, Any]:
    """Keys of a job file, with dots, as ``--set`` takes them."""
    teacher = f"teachers.{plan.planned_for.position or 0}"
    setting = plan.best.setting
    return {
        f"{teacher}.batch_size": setting.batch_size,
        f"{teacher}.replicas": {"min": 1, "max": plan.enough, "start": setting.workers},
        "student.low_watermark": setting.low,
        "student.high_watermark": setting.high_watermark,
    }


def document(plan: Plan) -> dict[str, Any]:
    """All of it, for programs."""
    run = plan.planned_for
    return {
        "target": {"kind": plan.target.kind, "value": plan.target.value},
        "met": plan.met,
        "plan": _option(plan.best),
        "frontier": [_option(option) for option in plan.frontier],
        "job": fragment(plan),
        "student": {
            "folder": str(run.folder),
            "ranks": run.loop.ranks,
            "batch_samples": run.loop.batch_samples,
            "own_s": run.loop.own_s,
            "samples_per_s": run.loop.samples_per_s,
        },
        "workers": {
            device: {
                "rows": pace.rows,
                "sizes": list(pace.sizes),
                "error": pace.error,
                "stages": {
                    stage: {
                        "floor_s": line.floor_s,
                        "base_s": line.base_s,
                        "row_s": line.row_s,
                        "error": line.error,
                    }
                    for stage, line in pace.lines.items()
                },
            }
            for device, pace in plan.paces.items()
        },
        "checks": [
            {
                "folder": str(each.logs.folder),
                "samples_per_s": each.samples_per_s,
                "replayed_samples_per_s": each.replayed_samples_per_s,
                "task_p95_s": each.task_p95_s,
                "replayed_task_p95_s": each.replayed_task_p95_s,
            }
            for each in plan.checks
        ],
        "assumed": assumed(plan),
    }


def _option(option: Option) -> dict[str, Any]:
    done, setting = option.replayed, option.setting
    return {
        "batch_size": setting.batch_size,
        "low_watermark": setting.low,
        "high_watermark": setting.high_watermark,
        "workers": dict(setting.counts),
        "samples_per_s": done.samples_per_s,
        "efficiency": done.efficiency,
        "starved": done.starved,
        "wait_p95_s": done.wait_p95_s,
        "task_p50_s": done.task_p50_s,
        "task_p95_s": done.task_p95_s,
        "busy": dict(done.busy),
        "samples": option.samples,
        "lasts_s": option.lasts_s,
        "worker_s": option.worker_s,
    }


def _checked(each: Check) -> str:
    words = (
        f"{each.logs.folder} ({_named(each.setting)}): {each.replayed_samples_per_s:,.0f} samples/s, was "
        f"{each.samples_per_s:,.0f} ({each.rate_error:+.1%}); 95% of the tasks "
        f"{_ms(each.replayed_task_p95_s)}, were {_ms(each.task_p95_s)} ({each.p95_error:+.1%})"
    )
    if abs(each.rate_error) > FAR:
        words += (
            ". Something held it up that no row tells of, or the run is too short: do not trust this plan"
        )
    elif abs(each.p95_error) > P95_FAR:
        words += (
            f". {len(each.logs.rows):,} stage rows told of them: let it run for longer, or do not trust how "
            "long tasks are to take"
        )
    return words


def _named(setting: Setting) -> str:
    workers = ", ".join(f"{count} on {device}" for device, count in setting.counts)
    return f"{workers}, batch size {setting.batch_size}, high watermark {setting.high_watermark}"


def _ms(seconds: float) -> str:
    # What is left of differences of clocks that agree is no time.
    return f"{seconds:.3g} s" if seconds >= 1 else f"{round(seconds * 1e3, 6):.3g} ms"
