"""torchrun's side of a rendezvous, against a real coordinator that dies at any moment."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import psutil
import pytest
from torch.distributed import DistNetworkError, DistStoreError, TCPStore
from torch.distributed.elastic.rendezvous import RendezvousConnectionError, RendezvousInfo
from torch.distributed.elastic.utils import store as store_util

from edldist.meeting import store_door
from edldist.meeting.store_door import MAGIC, Door, new_word
from edldist.wire.process import process_id
from edldist_launch.node import rendezvous
from edldist_launch.node.rendezvous import CoordinatorRendezvous, LoneRendezvous
from tests.integration.members import Running, until

pytestmark = pytest.mark.timeout(240)

WITHIN_S = 90.0


def later(work: Callable[[], Any]) -> Future[Any]:
    """Run something in a thread of its own."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator that needs not be waited for: nobody else is there to report to it."""
    monkeypatch.setattr("edldist.coordinator.rendezvous.SETTLE_S", 1.5)


@pytest.fixture
def nodes(
    running: Running, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., CoordinatorRendezvous]]:
    """Makes nodes of one run; in truth each is a process."""
    monkeypatch.setenv("EDLDIST_GENERATION", "")  # put back after what nodes set
    with contextlib.ExitStack() as stack:

        def make(name: str, most: int = 2, connect_timeout_s: float = 60.0) -> CoordinatorRendezvous:
            monkeypatch.setattr(rendezvous, "process_id", lambda: name)
            node = CoordinatorRendezvous(
                running.address, "run", "job", (1, most), "127.0.0.1", 1, connect_timeout_s
            )
            stack.callback(node.leave)
            return node

        yield make


def meet(*nodes: CoordinatorRendezvous) -> list[RendezvousInfo]:
    return [joined.result(WITHIN_S) for joined in [later(node.next_rendezvous) for node in nodes]]


def store_of(info: RendezvousInfo) -> TCPStore:
    """As the ranks of a node open it."""
    place = info.bootstrap_store_info
    assert place.master_addr == "127.0.0.1"
    return TCPStore("127.0.0.1", place.master_port, is_master=False, timeout=timedelta(seconds=WITHIN_S))


def listening() -> dict[int, str]:
    """Where this process listens, by port."""
    found = psutil.Process().net_connections("tcp")
    return {each.laddr.port: each.laddr.ip for each in found if each.status == "LISTEN"}


def test_nodes_agree_on_ranks_and_their_ranks_meet_in_one_store(
    nodes: Callable[..., CoordinatorRendezvous],
) -> None:
    a, b = nodes("a"), nodes("b")
    for value in ("first", "second"):  # and in one of its own again, when a group forms anew
        infos = meet(a, b)
        assert sorted(info.rank for info in infos) == [0, 1]
        assert {info.world_size for info in infos} == {2}
        one, other = map(store_of, infos)
        assert not one.check(["key"])
        one.set("key", value)
        assert other.get("key") == value.encode()


def test_every_generation_has_a_name_of_its_own_which_its_ranks_inherit(
    nodes: Callable[..., CoordinatorRendezvous], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(
        rendezvous, "generation_name", lambda *given: told.append("/".join(map(str, given))) or told[-1]
    )
    a, b = nodes("a"), nodes("b")
    for number in (1, 2):
        meet(a, b)
        one, other = told[-2:]
        assert one == other == os.environ["EDLDIST_GENERATION"]
        assert one.startswith(f"run/{number}/") and one.endswith(("a", "b"))


def test_ranks_store_is_on_the_loopback_interface_and_a_stranger_is_not_let_through_the_door(
    nodes: Callable[..., CoordinatorRendezvous], caplog: pytest.LogCaptureFixture
) -> None:
    a, b = nodes("a"), nodes("b")
    infos = meet(a, b)
    places = listening()
    for info in infos:
        assert places[info.bootstrap_store_info.master_port] == "127.0.0.1"
    (first,) = [node for node, info in zip((a, b), infos, strict=True) if info.rank == 0]
    door = first._attendance.report.node
    assert places[door.port] in ("::", "0.0.0.0") and door.door and door.door not in repr(door)
    with socket.create_connection(("127.0.0.1", door.port), timeout=WITHIN_S) as stranger:
        said = b""
        while len(said) < len(MAGIC) + 32:
            said += stranger.recv(100)
        stranger.sendall(bytes(64))
        assert stranger.recv(100) == b"", "hung up"
    until(lambda: "who is no node of this run" in caplog.text, "the door to say so")
    with pytest.raises(DistNetworkError):
        TCPStore("127.0.0.1", door.port, is_master=False, timeout=timedelta(seconds=1))


@pytest.mark.slow
def test_the_barrier_at_the_end_outlives_the_coordinator(
    running: Running, nodes: Callable[..., CoordinatorRendezvous]
) -> None:
    first, second = meet(nodes("a"), nodes("b"))
    early = later(lambda: store_util.barrier(first.store, 2, "end", barrier_timeout=WITHIN_S))
    until(lambda: nodes_view(first).counts.get("end/num_members"), "the first to be counted")
    running.stop()
    again = Running(running.address)
    try:
        store_util.barrier(second.store, 2, "end", barrier_timeout=WITHIN_S)
        early.result(WITHIN_S)
    finally:
        again.stop()
        running.stop = lambda: None  # type: ignore[method-assign]


def nodes_view(info: RendezvousInfo) -> Any:
    return info.store._attendance.view


def test_who_waits_for_a_node_that_left_is_told(nodes: Callable[..., CoordinatorRendezvous]) -> None:
    a, b = nodes("a"), nodes("b")
    first, _ = meet(a, b)
    waiting = later(lambda: first.store.get("never"))
    b.leave()
    with pytest.raises(DistStoreError, match="nodes b left generation 1 of run run: nobody may write never"):
        waiting.result(WITHIN_S)


def test_who_waits_for_what_nobody_writes_gives_up(nodes: Callable[..., CoordinatorRendezvous]) -> None:
    (info,) = meet(nodes("a", most=1))
    assert not info.store.check(["never"])
    info.store.set("there", b"\x00\xff")
    assert info.store.check(["there"]) and info.store.get("there") == b"\x00\xff"
    with pytest.raises(DistStoreError, match=r"waited 0.1 s in vain for the values of never"):
        info.store.wait(["never"], timedelta(seconds=0.1))


def test_the_table_of_a_generation_ends_with_it(nodes: Callable[..., CoordinatorRendezvous]) -> None:
    a, b = nodes("a", most=3), nodes("b", most=3)
    first, _ = meet(a, b)
    waiting = later(lambda: first.store.get("never"))
    b.next_rendezvous_ = later(b.next_rendezvous)  # type: ignore[attr-defined]
    until(lambda: a.num_nodes_waiting(), "a to hear that b waits")
    with pytest.raises(DistStoreError):
        waiting.result(WITHIN_S)
    (again,) = meet(a)
    assert again.world_size == 2 and b.next_rendezvous_.result(WITHIN_S).world_size == 2  # type: ignore[attr-defined]
    with pytest.raises(DistStoreError, match="generation 1 of run run is over: 2 followed it"):
        first.store.get("never")


@pytest.mark.slow
def test_a_node_leaves_a_generation_of_which_another_was_lost(
    nodes: Callable[..., CoordinatorRendezvous], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "ABSENT_S", 0.5)
    a, b = nodes("a"), nodes("b")
    meet(a, b)
    assert a.num_nodes_waiting() == 0
    b._attendance.close()  # not a word more
    gone = time.monotonic()
    until(lambda: a.num_nodes_waiting(), "a to find that b is gone")
    assert time.monotonic() - gone > 0.5
    monkeypatch.setattr(rendezvous, "YOUNG_S", 0.1)  # ranks that began long ago notice by themselves
    assert a.num_nodes_waiting() == 0


def test_a_coordinator_that_never_answers_is_given_up(
    running: Running, nodes: Callable[..., CoordinatorRendezvous]
) -> None:
    running.stop()
    running.stop = lambda: None  # type: ignore[method-assign]
    node = nodes("a", connect_timeout_s=0.5)
    with pytest.raises(RendezvousConnectionError, match=f"no coordinator answered at {running.address}"):
        node.next_rendezvous()


def test_a_node_of_its_own_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDLDIST_GENERATION", "")
    node = LoneRendezvous("run")
    first, name = node.next_rendezvous(), os.environ["EDLDIST_GENERATION"]
    second = node.next_rendezvous()
    me = process_id()
    assert (name, os.environ["EDLDIST_GENERATION"]) == (f"run@{me}/1/{me}", f"run@{me}/2/{me}")
    for info in (first, second):
        assert (info.rank, info.world_size) == (0, 1)
        assert info.bootstrap_store_info.master_addr == "127.0.0.1"
    assert node.num_nodes_waiting() == 0
    store_util.barrier(second.store, 1, "end", barrier_timeout=1)
    assert node.shutdown()


def test_a_process_is_one_node(running: Running) -> None:
    node = CoordinatorRendezvous(running.address, "run", "job", (1, 2), "127.0.0.1", 1, 5.0)
    assert node._attendance.report.node.process == process_id()
    node.leave()


def test_strangers_at_one_address_leave_room_before_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_door, "MOST_OF_ONE_HOST", 3)
    door = Door(new_word(), lambda: 9)
    with contextlib.ExitStack() as stack:
        stack.callback(door.close)

        def heard() -> bytes:
            stranger = stack.enter_context(
                socket.create_connection(("127.0.0.1", door.port), timeout=WITHIN_S)
            )
            return stranger.recv(len(MAGIC))

        assert [heard() for _ in range(4)] == [MAGIC] * 3 + [b""]
        assert door._has_room("10.0.0.9") and not door._has_room("127.0.0.1")
