"""What a student's service hears from the coordinator, and goes on without."""

from __future__ import annotations

import pytest

from edldist.errors import ProtocolVersionError
from edldist.wire.messages import Registered, TeachersHere


@pytest.fixture
def joined(party):
    """A party whose student is registered, and the coordinator's end of the wire."""
    job = party()
    coordinator = job.poller.bind("tcp://nobody:1")
    job.turn()
    peer = coordinator.receive().sender
    answer = Registered(
        incarnation="i", heartbeat_interval_s=1.0, heartbeat_ttl_s=3.0, wall_s=0.0, asked_wall_s=0.0
    )
    coordinator.send(peer, answer)
    job.turn()
    return job, lambda message: coordinator.send(peer, message)


def test_a_student_knows_which_groups_are_there_while_one_that_it_wants_is_not(joined):
    job, say = joined
    assert job.service.groups_here() == []
    say(TeachersHere(groups=["law", "code"]))
    job.turn()
    assert job.service.groups_here() == ["law", "code"]


def test_a_coordinator_of_another_revision_ends_a_student_without_workers_alone(joined, monkeypatch):
    job, _ = joined

    def receive():
        raise ProtocolVersionError("1", "2")

    monkeypatch.setattr(job.service._job._link, "receive", receive)
    with pytest.raises(ProtocolVersionError):
        job.turn()
    monkeypatch.undo()
    job.worker("a")
    monkeypatch.setattr(job.service._job._link, "receive", receive)
    job.turn()
