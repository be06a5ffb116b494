"""Who is not in the job: processes that an engine tells of, and whom the coordinator refused. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edldist.wire.messages import MemberStatus, RefusedStatus
from edldist.wording import duration
from edldist_launch.contract.backend import JobState, ProcessState

__all__ = ["not_joined", "refused"]


def not_joined(placed: JobState, members: Sequence[MemberStatus]) -> list[str]:
    """A line for each process that should be in the job and is not, and for each role that lacks some.

    Processes that came to their end are left out; ranks are told by what their coordinator calls them, so a
    node that runs counts as joined once any rank has.
    """
    known = {member.id for member in members}
    ranks = any(member.role == "student" for member in members)
    lines = []
    for role in placed.roles:
        for process in role.processes:
            joined = process.id in known or role.name == "coordinator" or (role.name == "student" and ranks)
            if process.phase == "succeeded" or (process.phase == "running" and joined):
                continue
            lines.append(_line(process, placed.phase in ("succeeded", "failed")))
        lacking = role.wanted - role.count("pending", "running", "failed", "succeeded")
        if lacking > 0 and placed.phase == "running":
            lines.append(f"{role.name}: {lacking} of {role.wanted} have not been started")
    return lines


def refused(those: Sequence[RefusedStatus], placed: JobState | str | None) -> list[str]:
    """A line for each that the coordinator would not have, unless the engine passes its last words on."""
    roles = placed.roles if isinstance(placed, JobState) else ()
    said = [(process.id, process.reason) for role in roles for process in role.processes]
    lines = []
    for each in those:
        if any(each.id == process and each.reason in words for process, words in said):
            continue
        where = f" on {each.host}" if each.host else ""
        lines.append(f"{each.id}{where} was refused {duration(each.ago_s)} ago: {each.reason}")
    return lines


def _line(process: ProcessState, ended: bool) -> str:
    what = {
        "pending": "still waits, and edldist stop removes it" if ended else "waits to be started",
        "running": "still runs, and edldist stop ends it" if ended else "runs, and is not in the job yet",
        "leaving": "was told to leave",
        "failed": "has ended",
    }[process.phase]
    if process.id == "prepare" and process.phase == "running" and not ended:
        what = "runs, and all others wait for its end"
    parts = [f"{process.id} {what}"]
    if process.reason:
        parts.append(f": {process.reason}")
    facts = [f"on {process.where}"] if process.where else []
    facts += [process.engine_id] if process.engine_id not in ("", process.id) else []
    facts += [f"started {process.restarts + 1} times"] if process.restarts else []
    return "".join(parts) + (f" ({', '.join(facts)})" if facts else "")
