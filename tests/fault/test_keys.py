"""A job with keys: nobody else gets in, and neither deaths nor new keys cost it a sample."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest
import zmq

from edldist.errors import CoordinatorUnreachableError, RefusedError
from edldist.keys.folder import KeyFolder
from edldist.keys.pair import OPERATOR, TEACHER
from edldist.wire.messages import Event, Status
from edldist.wire.query import StatusClient
from tests.fault.crew import crew
from tests.fault.harness import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE"),
    pytest.mark.timeout(300),
]


def test_a_job_with_keys_goes_on_through_deaths_and_new_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = KeyFolder(tmp_path / "keys")
    keys.make()
    monkeypatch.setenv("EDLDIST_KEYS", os.fspath(keys.path))
    options = {"samples": 400, "batch_size": 20, "step_s": 0.01}
    with crew(tmp_path / "job", 2, options, keys=keys.path) as party:
        address = party.job.address
        party.await_steps(10)

        # Who has no key, or one for another role.
        def ask(role: str = OPERATOR, timeout_s: float = 20.0) -> Status:
            with contextlib.closing(StatusClient(address, role=role)) as client:
                return client.query(timeout_s=timeout_s)

        assert ask().members
        with pytest.raises(RefusedError, match="a teacher's key may not ask for the state"):
            ask(TEACHER)
        monkeypatch.delenv("EDLDIST_KEYS")
        with pytest.raises(CoordinatorUnreachableError):
            ask(timeout_s=1)
        other = KeyFolder(tmp_path / "other")
        other.make()
        monkeypatch.setenv("EDLDIST_KEYS", os.fspath(other.path))
        with pytest.raises(CoordinatorUnreachableError, match="proves none of the keys"):
            ask(timeout_s=10)
        monkeypatch.setenv("EDLDIST_KEYS", os.fspath(keys.path))

        # A worker is killed, and the coordinator, and another worker comes.
        victim, *_ = party.workers()
        victim.kill()
        party.hire()
        party.await_steps(10)
        coordinator = next(role for role in party.job.roles if role.name == "coordinator")
        coordinator.kill()
        party.job.coordinator()
        party.staff(2)
        party.await_steps(10)

        # New keys, and soon the former ones count no more.
        former = {role: keys.ring(role).own.public for role in ("coordinator", "teacher", "student")}
        rotated = time.time()
        keys.rotate(keep_s=3600)

        def changes() -> list[Event]:
            return [event for event in party.job.events("keys_changed") if event.t > rotated]

        party.await_steps(10)
        wait_for("the rotation to be seen", lambda: len(changes()) == 1, 30)
        keys.retire()
        assert all(keys.ring(role).own.public != public for role, public in former.items())
        began = time.time()
        party.await_steps(20)
        wait_for("everybody to be here", lambda: len(party.job.status().members) == 3, 60)
        wait_for("both changes to be seen", lambda: len(changes()) == 2, 30)
        assert [(event.fields["rotated"], event.fields["retired"]) for event in changes()] == [
            (True, 0),
            (False, 4),
        ]

        # And so fast that no member has read the new ones when the former count no more.
        newest = keys.ring("coordinator").own.public
        keys.rotate(keep_s=3600)
        keys.retire()
        assert keys.ring("coordinator").own.public != newest
        party.await_steps(20)
        wait_for("the last change to be seen", lambda: len(changes()) > 2, 30)
        wait_for("everybody to be here", lambda: len(party.job.status().members) == 3, 60)
        lost = [event for event in party.job.events("teacher_lost") if event.t > rotated]
        assert not lost, "new keys cost no member its place"
        assert party.gap_s(began) < 30
        party.finish()
