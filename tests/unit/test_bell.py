"""The bell of a poller: rung by many, it writes once until it is cleared, and nobody rings unheard."""

from __future__ import annotations

import os
import select

import pytest

from edldist.wire.zmq.poller import _Bell


def heard(bell: _Bell) -> bool:
    return bool(select.select([bell.fd], [], [], 0)[0])


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []
    write = os.eventfd_write
    monkeypatch.setattr(os, "eventfd_write", lambda fd, value: (made.append(value), write(fd, value)))
    return made


def test_many_rings_are_one_until_they_are_heard(writes: list[int]) -> None:
    bell = _Bell()
    for _ in range(5):
        bell.ring()
    assert heard(bell) and len(writes) == 1
    bell.clear()
    assert not heard(bell)
    bell.ring()
    assert heard(bell) and len(writes) == 2


@pytest.mark.parametrize("moment", ["before it is read", "after it was read"])
def test_a_ring_in_the_midst_of_a_clear_does_not_silence_those_behind_it(
    monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    bell = _Bell()
    read = os.eventfd_read

    def read_meanwhile(fd: int) -> int:
        if moment == "before it is read":
            bell.ring()
        value = read(fd)
        if moment == "after it was read":
            bell.ring()
        return value

    bell.ring()
    monkeypatch.setattr(os, "eventfd_read", read_meanwhile)
    bell.clear()
    monkeypatch.setattr(os, "eventfd_read", read)
    bell.ring()
    assert heard(bell)


def test_an_interrupt_in_the_midst_of_a_ring_does_not_silence_those_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bell = _Bell()
    write = os.eventfd_write

    def interrupted(fd: int, value: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "eventfd_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bell.ring()
    monkeypatch.setattr(os, "eventfd_write", write)
    bell.ring()
    assert heard(bell)
