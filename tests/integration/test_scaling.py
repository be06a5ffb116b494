"""A real coordinator decides how many workers there should be, and a person says otherwise."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from edldist.coordinator.scaling.scaling import Bounds, Rules
from edldist.errors import RefusedError
from edldist.wire.messages import Event, GroupStatus, Heartbeat, Need, Registered
from edldist.wire.query import StatusClient
from tests.harness import local_job
from tests.integration.members import FakeMember, Running, student, teacher, until

pytestmark = pytest.mark.timeout(240)
TTL_S = 1.5  # a machine that is busy with other tests may pause this one
QUICK = Rules(decide_every_s=0.05, down_after_s=0.4, least_down_s=0.4, most_down_s=0.4)


class Job:
    """A coordinator, one worker and one student, whose figures a test makes up."""

    def __init__(self, stack: contextlib.ExitStack, http_token: str | None = None, **bounds: str) -> None:
        scale = {name: Bounds.parse(text) for name, text in bounds.items()}
        self.running = Running(scale=scale, scaling=QUICK, http_token=http_token, heartbeat_ttl_s=TTL_S)
        stack.callback(self.running.stop)
        self.client = stack.enter_context(contextlib.closing(StatusClient(self.running.address)))
        self.worker = teacher(stack, self.running.address, device_type="A100")
        self.student = student(stack, self.running.address, low_watermark=2, high_watermark=8)

    def join(self) -> None:
        """One after the other: each has its own connection, so the student could be here first."""
        for member in (self.worker, self.student):
            member.register()
            member.expect(Registered)

    def beat(self, hunger: float, **stats: Any) -> None:
        needs = [Need(group="big", hunger=hunger, lacking=5, buffered=1)]
        self.worker.send(Heartbeat(id="t1", capacity=100.0, stats=stats))
        self.student.send(Heartbeat(id="s1", needs=needs, starved=0.5))

    def group(self, name: str = "big") -> GroupStatus | None:
        return next((group for group in self.client.query().groups if group.name == name), None)

    def await_wanted(self, wanted: int, hunger: float, **stats: Any) -> GroupStatus:
        def look() -> GroupStatus | None:
            self.beat(hunger, **stats)
            group = self.group()
            return group if group is not None and group.wanted == wanted else None

        return until(look, f"{wanted} workers are wanted")

    def scaled(self) -> list[tuple[object, object]]:
        records = self.client.query().records
        events = [r.fields for r in records if isinstance(r, Event) and r.event == "scaled"]
        return [(fields["before"], fields["wanted"]) for fields in events]


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as opened:
        yield opened


def test_what_members_report_decides_how_many_are_wanted(stack: contextlib.ExitStack) -> None:
    job = Job(stack, big="1:8")
    job.join()
    group = job.await_wanted(5, hunger=480.0)
    assert (group.least, group.most, group.held) == (1, 8, None)
    assert (group.workers, group.demand, group.capacity, group.starved) == (1, 480.0, 100.0, 0.5)
    assert group.by_device == {"A100": 100.0} and group.leaving == ["t1"]
    assert group.why == "students could take 480 samples/s, a worker gives 100"
    job.await_wanted(2, hunger=150.0)
    assert job.scaled() == [(1, 5), (5, 2)]

    def left() -> bool:
        job.beat(150.0, draining=True)
        now = job.group()
        return now is not None and (now.workers, now.draining, now.leaving) == (0, 1, [])

    until(left, "one that drains counts no more")


def test_a_persons_number_holds_until_auto(stack: contextlib.ExitStack) -> None:
    job = Job(stack, big="1:8")
    job.join()
    job.await_wanted(5, hunger=480.0)
    answer = job.client.scale("big", 3).group
    assert (answer.wanted, answer.held) == (3, 3)
    job.await_wanted(3, hunger=700.0)
    assert job.client.scale("big", None).group.held is None
    job.await_wanted(7, hunger=700.0)
    assert job.scaled() == [(1, 5), (5, 3), (3, 7)]


@pytest.mark.parametrize(
    ("group", "workers", "words"),
    [
        ("big", 9, "teacher 'big' has from 1 to 8 workers; 9 are not within"),
        ("big", 0, "0 are not within"),
        ("huge", 2, "no teacher group 'huge' can be scaled here; there are: big"),
    ],
)
def test_what_cannot_be_done_is_refused(
    stack: contextlib.ExitStack, group: str, workers: int, words: str
) -> None:
    job = Job(stack, big="1:8")
    with pytest.raises(RefusedError, match=words):
        job.client.scale(group, workers)


def test_a_fresh_coordinator_wants_those_that_are_here(stack: contextlib.ExitStack) -> None:
    """It says nothing before everybody had time to register: whoever acts on it would end workers."""
    job = Job(stack, big="1:8")
    others = [teacher(stack, job.running.address, f"t{n}") for n in range(2, 5)]
    members: list[FakeMember] = [job.worker, *others]
    group = job.group()
    assert group is not None and (group.wanted, group.why) == (None, "the coordinator has just started")
    for member in members:
        member.register()

    def look() -> GroupStatus | None:
        for member in members:
            member.beat()
        group = job.group()
        return group if group is not None and group.wanted is not None else None

    assert until(look, "a number is wanted").wanted == 4
    assert job.scaled() == []


def test_an_autoscaler_asks_over_http_with_a_token(stack: contextlib.ExitStack) -> None:
    job = Job(stack, http_token="secret", big="1:8")
    job.join()
    job.await_wanted(5, hunger=480.0)

    def answer(**headers: str) -> tuple[int, str | None, Any]:
        connection = http.client.HTTPConnection(str(job.running.coordinator.http_address), timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/scaling/big", headers=headers)
            response = connection.getresponse()
            return response.status, response.headers["WWW-Authenticate"], json.loads(response.read())

    status, kind, body = answer()
    assert (status, kind) == (401, "Bearer") and "Authorization: Bearer" in body["error"]
    status, kind, body = answer(Authorization="Bearer secret")
    assert (status, kind, body["wanted"], body["most"]) == (200, None, 5, 8)


def test_groups_without_bounds_are_shown_and_left_alone(stack: contextlib.ExitStack) -> None:
    job = Job(stack)
    job.join()

    def look() -> GroupStatus | None:
        job.beat(480.0)
        group = job.group()
        return group if group is not None and group.demand else None

    group = until(look, "the group is here")
    assert (group.workers, group.demand) == (1, 480.0)
    assert (group.wanted, group.least, group.most) == (None, None, None)
    assert "--scale" in group.why


def test_real_members_say_what_they_could_give_and_take() -> None:
    """A loop that works for a hundredth of the time that its only worker takes for a batch."""
    with local_job() as job:
        job.teacher("takes_its_time", batch_size=8)
        loader = job.loader([{"x": torch.zeros(8, 2)}] * 10_000, inputs="x")
        with contextlib.closing(StatusClient(job.address)) as client:

            def told() -> GroupStatus | None:
                groups = client.query().groups  # none before somebody has joined
                return groups[0] if groups and groups[0].demand and groups[0].capacity else None

            batches = iter(loader)
            deadline = time.monotonic() + 90
            while (group := told()) is None:
                next(batches)
                assert time.monotonic() < deadline
        assert group.by_device == {"cpu": group.capacity}
        assert group.starved is not None and group.starved > 0.5
        assert group.demand is not None and group.capacity is not None
        assert group.demand > 2 * group.capacity
