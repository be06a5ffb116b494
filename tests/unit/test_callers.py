"""Who may connect, and how often."""

from __future__ import annotations

import pytest

from edldist.wire.zmq import callers
from edldist.wire.zmq.callers import FINE, GREETINGS, GREETINGS_S, Callers, most_connections


def test_one_address_holds_half_of_all_connections_and_no_more() -> None:
    of_all = Callers(8)
    assert [of_all.came("10.0.0.1", 0.0) for _ in range(4)] == [""] * 4
    assert "one address may hold 4" in of_all.came("10.0.0.1", 0.0)
    of_all.left("10.0.0.1")
    assert "one address may hold 4" in of_all.came("10.0.0.1", 0.0)
    of_all.left("10.0.0.1")
    of_all.left("10.0.0.1")
    assert of_all.came("10.0.0.1", 0.0) == ""
    assert of_all.came("10.0.0.2", 0.0) == ""


def test_all_addresses_together_hold_so_many() -> None:
    of_all = Callers(8)
    assert not any(of_all.came(f"10.0.0.{number}", 0.0) for number in range(8))
    assert "8 connections are open; there may be 8" in of_all.came("10.0.0.9", 0.0)
    of_all.left("10.0.0.9")
    of_all.left("10.0.0.1")
    assert of_all.came("10.0.0.9", 0.0) == ""


def greet(of_all: Callers, host: str, now: float) -> bool:
    """Come and go; whether one might have stayed."""
    why = of_all.came(host, now)
    of_all.left(host)
    assert not why or "times a second" in why
    return not why


def test_greetings_of_an_address_are_bounded_and_those_of_others_are_not_touched() -> None:
    of_all = Callers(1000)
    assert all(greet(of_all, "10.0.0.1", 5.0) for _ in range(GREETINGS))
    assert not any(greet(of_all, "10.0.0.1", 5.0) for _ in range(100))
    assert greet(of_all, "10.0.0.2", 5.0)
    later = 5.0 + 10 / GREETINGS_S
    assert sum(greet(of_all, "10.0.0.1", later) for _ in range(100)) == 10


def test_who_had_to_be_cut_off_waits() -> None:
    of_all = Callers(1000)
    for _ in range(GREETINGS // FINE):
        assert greet(of_all, "10.0.0.1", 5.0)
        of_all.fine("10.0.0.1", 5.0)
    assert not greet(of_all, "10.0.0.1", 5.0)
    assert greet(of_all, "10.0.0.1", 5.0 + 2 / GREETINGS_S)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("10.0.0.1", "10.0.0.2", False),
    ],
)
def test_addresses_that_one_host_may_have_are_one(one: str, other: str, same: bool) -> None:
    of_all = Callers(2)
    assert of_all.came(one, 0.0) == ""
    assert bool(of_all.came(other, 0.0)) == same


def test_what_is_kept_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "_MOST_ADDRESSES", 10)
    of_all = Callers(1000)
    for number in range(100):
        greet(of_all, f"10.0.0.{number}", 0.0)
    assert len(of_all._buckets) == 10 and not of_all._open


def test_descriptors_are_left_for_other_things() -> None:
    assert most_connections() >= 64
