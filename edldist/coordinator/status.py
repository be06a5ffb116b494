"""What the coordinator answers those who ask for the state of the job. Pure."""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import Any

import msgspec

from edldist.coordinator.course.records import Records
from edldist.coordinator.members.lives import group_of
from edldist.coordinator.members.membership import Membership
from edldist.coordinator.overload.shedding import Shedding
from edldist.coordinator.scaling.load import GroupLoad, loads
from edldist.coordinator.scaling.scaling import Scaling
from edldist.keys.open_link import link_of, link_words
from edldist.observe.states import states_of
from edldist.observe.troubles import troubles
from edldist.observe.waiting import waits
from edldist.wire.messages import (
    GroupStatus,
    MemberStatus,
    NodeQuery,
    NodeStatus,
    RankStatus,
    RefusedStatus,
    Status,
)

__all__ = ["StatusView"]

MOST_EXPLAINED = 32
"""Members of which the page says why they wait."""


class StatusView:
    """Answers out of members, records and what is wanted, which it only reads.

    Owned by the coordinator's main thread.
    """

    def __init__(
        self,
        incarnation: str,
        started_at: float,
        members: Membership,
        records: Records,
        scaling: Scaling,
        shedding: Shedding,
    ) -> None:
        self._incarnation = incarnation
        self._started_at = started_at
        self._members = members
        self._records = records
        self._scaling = scaling
        self._shedding = shedding
        self._address = ""
        self._sealed = False

    def listens(self, address: str, sealed: bool) -> None:
        """Where the coordinator listens, and whether with keys."""
        self._address, self._sealed = address, sealed

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
                    job=m.register.job,
                    low_watermark=m.register.low_watermark,
                    high_watermark=m.register.high_watermark,
                )
                for member_id, m in sorted(members.items())
            ],
            records=records,
            seq=seq,
            groups=self.groups(),
            heartbeat_interval_s=self._members.heartbeat_interval_s,
            refused=[
                RefusedStatus(
                    id=refusal.id,
                    role=refusal.role,
                    group=refusal.group,
                    host=refusal.host,
                    reason=refusal.reason,
                    ago_s=now - refusal.at,
                )
                for refusal in self._members.refusals
            ],
            link=self._link(),
        )

    def _link(self) -> str:
        """How safe from others the job's connections are."""
        addresses = (each.register.address for each in self._members.members.values())
        return link_of(self._sealed, [self._address, *addresses])

    def groups(self) -> list[GroupStatus]:
        """Every teacher group that is here, is wanted by a student, or has bounds."""
        known = loads(self._members.members.values())
        return [self._group(name, known.get(name)) for name in sorted({*known, *self._scaling.groups})]

    def group(self, name: str) -> GroupStatus:
        """One teacher group."""
        return self._group(name, loads(self._members.members.values()).get(name))

    def _group(self, name: str, load: GroupLoad | None) -> GroupStatus:
        load = load or GroupLoad()
        standing = self._scaling[name]
        bounds = standing.bounds if standing is not None else None
        ranged = bounds if bounds is not None and bounds.automatic else None
        capacities = load.capacities()
        return GroupStatus(
            name=name,
            workers=len(load.workers),
            draining=load.draining,
            wanted=standing.wanted if standing is not None else None,
            least=ranged.least if ranged is not None else None,
            most=ranged.most if ranged is not None else None,
            held=standing.held if standing is not None else None,
            demand=load.demand,
            capacity=fmean(capacities) if capacities else None,
            by_device=load.by_device,
            starved=load.starved,
            leaving=load.leaving(),
            why=standing.why if standing is not None else "nobody told the coordinator its bounds (--scale)",
            shed=int(self._shedding.step(name)),
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

    def _lives(self, now: float) -> dict[str, Any]:
        lives, stages = self._members.lives, self._members.lives.stages.copy()
        for member in self._members.members.values():
            register = member.register
            stages.add(register.role, group_of(register), member.stages, member.stages_before or ())
        return {"gone": lives.gone(now), "restarts": lives.restarts(), "stages": stages.told()}

    def page(self, now: float, garbage: int) -> bytes:
        """All members, each with its state in words, and some counts as JSON, for HTTP."""
        whole = self.whole(now, self._records.last)
        page = msgspec.to_builtins(whole)
        explained = 0
        for told, member, state in zip(page["members"], whole.members, states_of(whole), strict=True):
            notes = troubles(member)
            if state.word == "waits" and explained < MOST_EXPLAINED:
                explained += 1  # why somebody waits takes a look at all others
                notes += waits(member, whole.members)
            told |= {"state": state.word, "tone": state.tone, "notes": notes}
        for key in ("type", "records"):
            page.pop(key, None)
        counts = Counter(m["role"] for m in page["members"])
        page["link_words"] = link_words(whole.link)
        page["counts"] = {"teachers": counts["teacher"], "students": counts["student"]}
        page["garbage"] = garbage
        page["settled"] = self._members.settled(now)
        page |= self._records.happenings.told() | self._lives(now)
        return msgspec.json.encode(page)
