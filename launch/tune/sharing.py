"""What a coordinator says of several jobs, parted by job. Pure."""

from __future__ import annotations

import msgspec

from edldist.wire.messages import Status

__all__ = ["share_of_fleet", "share_of_job"]


def share_of_job(status: Status, job: str) -> Status:
    """What concerns one job: its own ranks and records, and the teachers that serve it as others.

    Its numbers are no place to ask on from: whoever asked for the whole answer does that.
    """
    return msgspec.structs.replace(
        status,
        members=[each for each in status.members if each.role == "teacher" or each.job == job],
        records=[each for each in status.records if each.job in ("", job)],
        seq=0,
    )


def share_of_fleet(status: Status) -> Status:
    """What concerns all jobs: every member, and the records that are of no job."""
    records = [each for each in status.records if not each.job]
    return msgspec.structs.replace(status, records=records, seq=0)
