"""What the coordinator answers those who ask for the state of the job. Pure."""

from __future__ import annotations

from collections import Counter

import msgspec

from edldist.coordinator.membership import Membership
from edldist.coordinator.records import Records
from edldist.wire.messages import MemberStatus, NodeQuery, NodeStatus, RankStatus, Status

__all__ = ["StatusView"]


class StatusView:
    """Answers out of members and records, which it only reads. Owned by the coordinator's main thread."""

    def __init__(self, incarnation: str, started_at: float, members: Membership, records: Records) -> None:
        self._incarnation = incarnation
        self._started_at = started_at
        self._members = members
        self._records = records

    def whole(self, now: float, since: int) -> Status:
        """All members, and the records after ``since``: grows with the job."""
        records, seq = self._records.since(since)
        members = self._members.members
        serving: dict[str, list[str]] = {}
        for teacher_id in sorted(members):
            for student_id in members[teacher_id].links:
                if student_id in members:
                    serving.setdefault(student_id, []).append(teacher_id)
        return Status(
            incarnation=self._incarnation,
            uptime_s=now - self._started_at,
            members=[
                MemberStatus(
                    id=member_id,
                    role=m.register.role,
                    group=m.register.group,
                    address=m.register.address,
                    process=m.register.process,
                    host=m.register.host,
                    pid=m.register.pid,
                    joined_s=now - m.joined_at,
                    silent_s=now - m.last_seen,
                    links=sorted(m.links & members.keys()) if m.is_teacher else serving.get(member_id, []),
                    info=m.register.info,
                    stats=m.stats,
                    teachers=m.register.teachers,
                    samples_per_s=m.recent.value,
                )
                for member_id, m in sorted(members.items())
            ],
            records=records,
            seq=seq,
        )

    def of_node(self, query: NodeQuery) -> NodeStatus:
        """A node's own ranks: as large as the node is."""
        wanted = frozenset(query.processes)
        events = self._records.events_since(query.since, "student_lost")
        lost = {str(event.fields.get("process")) for event in events}
        return NodeStatus(
            incarnation=self._incarnation,
            ranks=[
                RankStatus(process=member.register.process, stats=member.stats)
                for member in self._members.of_processes(wanted)
                if not member.is_teacher
            ],
            lost=sorted(lost & wanted),
            seq=self._records.last,
        )

    def page(self, now: float, garbage: int) -> bytes:
        """All members and some counts as JSON, for HTTP."""
        page = msgspec.to_builtins(self.whole(now, self._records.last))
        for key in ("type", "records"):
            page.pop(key, None)
        counts = Counter(m["role"] for m in page["members"])
        page["counts"] = {"teachers": counts["teacher"], "students": counts["student"]}
        page["garbage"] = garbage
        page["settled"] = self._members.settled(now)
        return msgspec.json.encode(page)
