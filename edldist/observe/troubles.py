"""What a person should know of a member beyond its figures, in words. Pure."""

from __future__ import annotations

from edldist.observe.overload import STEPS
from edldist.wire.messages import MemberStatus

__all__ = ["troubles"]


def troubles(member: MemberStatus) -> list[str]:
    """What a person should know about a member beyond its figures."""
    stats, said = member.stats, list[str]()
    if stats.get("quarantine"):
        said.append(f"gets no work: {stats['quarantine']}")
    if stats.get("draining"):
        said.append("finishes what it holds, and leaves")
    if stats.get("out_of_memory"):
        times, size = stats["out_of_memory"], stats.get("batch_size")
        said.append(f"ran out of memory ({times}x): at most {size} samples a pass now")
    if stats.get("held_back"):
        said.append(f"reads nothing until there is room: {stats['held_back']}")
    shed = stats.get("shed")
    if isinstance(shed, int) and 0 < shed < len(STEPS):
        said.append(f"is on an overloaded fleet: {STEPS[shed]}")
    if stats.get("degraded"):
        now = f", now by {stats['degraded_to']}" if stats.get("degraded_to") else ""
        said.append(f"had {stats['degraded']} samples labelled more cheaply{now}")
    if stats.get("missed"):
        said.append(f"took {stats['missed']} samples without labels of a missing teacher")
    if stats.get("aside"):
        said.append(f"has put {stats['aside']} workers aside, which do not answer as the others do")
    if stats.get("doubtful"):
        said.append(f"has learnt from {stats['doubtful']} labels of workers that were put aside later")
    if stats.get("skipped"):
        said.append(f"left out {stats['skipped']} samples that no worker could label")
    return said
