"""What a coordinator says of several jobs, parted by job."""

from __future__ import annotations

from edldist.clock import SystemClock
from edldist.coordinator.members.membership import Membership, Record
from edldist.student.service.job.events import Events
from edldist.wire.messages import Event, Goodbye, MemberStatus, Register, Report, Status
from edldist_launch.record.tally import Tally
from edldist_launch.tune.sharing import share_of_fleet, share_of_job


def member(member_id: str, role: str, job: str = "") -> MemberStatus:
    rest = {"group": "", "address": "", "process": member_id, "host": "h", "pid": 1, "links": []}
    return MemberStatus(
        id=member_id,
        role=role,
        job=job,
        joined_s=0.0,
        silent_s=0.0,
        info={"rank": 0},
        stats={"samples": 5},
        **rest,
    )


def report(job: str, reporter: str, **values: float) -> Report:
    return Report(reporter=reporter, seq=1, rank=0, t=1.0, values=dict(values), job=job)


STATUS = Status(
    incarnation="one",
    uptime_s=1.0,
    members=[member("t", "teacher"), member("a", "student", "one"), member("b", "student", "two")],
    records=[
        Event(event="teacher_joined", t=1.0, fields={"id": "t"}),
        Event(event="student_joined", t=1.0, fields={"id": "a"}, job="one"),
        report("one", "p", step=3, accuracy=0.5),
        report("two", "q", step=9, accuracy=0.9),
        Event(event="checkpoint_saved", t=1.0, fields={"step": 9}, job="two"),
    ],
    seq=5,
)


def test_two_jobs_at_one_coordinator_do_not_merge() -> None:
    one, two = Tally(), Tally()
    lines = one.observe(share_of_job(STATUS, "one"), 0.0)
    two.observe(share_of_job(STATUS, "two"), 0.0)
    assert [line["event"] for line in lines] == ["teacher_joined", "student_joined", "report"]
    assert (one.metrics, one.steps, one.checkpoint) == ({"accuracy": 0.5}, 3, None)
    assert (two.metrics, two.steps, two.checkpoint) == ({"accuracy": 0.9}, 9, 9)
    assert one.result(1.0)["samples"] == two.result(1.0)["samples"] == 5


def test_the_fleet_sees_every_member_and_what_is_of_no_job() -> None:
    share = share_of_fleet(STATUS)
    assert [each.id for each in share.members] == ["t", "a", "b"]
    assert [each.event for each in share.records if isinstance(each, Event)] == ["teacher_joined"]
    assert share.seq == 0


def test_what_the_coordinator_says_of_a_student_names_its_job() -> None:
    members = Membership("one", 1.0, 3.0, 0.0)
    register = Register(id="a", role="student", process="p", address="tcp://h:1", teachers=["t"], job="mine")
    joined = members.register("peer", register, 0.0, 0.0)
    left = members.goodbye("peer", Goodbye(id="a"), 1.0)
    members.register("peer", register, 2.0, 2.0)
    lost = [action for now in range(2, 10) for action in members.tick(float(now), float(now))]
    events = [action.event for action in (*joined, *left, *lost) if isinstance(action, Record)]
    assert [(each.event, each.job) for each in events] == [
        (name, "mine") for name in ("student_joined", "student_left", "student_lost")
    ]


def test_what_a_student_says_of_itself_names_its_job() -> None:
    sent: list[Event] = []

    class Link:
        def send(self, message: Event) -> bool:
            sent.append(message)
            return True

    events = Events("a", SystemClock(), "mine")
    events.labels_missing("teacher", 1.0)
    events.send(Link())  # type: ignore[arg-type]
    assert [each.job for each in sent] == ["mine"]
