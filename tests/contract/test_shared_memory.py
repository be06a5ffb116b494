"""What two transports on one host do with large frames, and where they fall back to the socket."""

from __future__ import annotations

import errno
import gc
import logging
import mmap
import os
import threading
import time
from pathlib import Path

import pytest
import zmq

from edldist.errors import ConfigError
from edldist.wire.messages import Ack
from edldist.wire.transport import Piece, Sender
from edldist.wire.zmq.transport import ZmqTransport
from tests.contract.pair import LARGE, Lent, Pair, take


def test_large_frames_leave_the_socket_once_both_sides_know_each_other(carried) -> None:
    pair = Pair().paired()
    carried()
    frame = os.urandom(LARGE)
    for _ in range(20):
        there, back = pair.there_and_back(frame)
        assert bytes(there.frames[0]) == frame == bytes(back.frames[0])
        assert not there.own_memory and not back.own_memory
        del there, back
    assert carried() < 20 * 2 * 1000
    pair.close()


def test_without_the_other_side_everything_goes_through_the_socket(carried) -> None:
    for hub, link in ((True, False), (False, True), (False, False)):
        pair = Pair(hub, link)
        for _ in range(3):
            there, back = pair.there_and_back(bytes(LARGE))
            assert len(there.frames[0]) == len(back.frames[0]) == LARGE
            assert there.own_memory and back.own_memory
            pair.settle()
        assert not pair.hub_pairs and not pair.link_pairs
        assert carried() > 6 * LARGE
        assert pair.hub.garbage == pair.link.garbage == 0
        pair.close()


def test_the_fallback_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pair = Pair(hub=False)
    for _ in range(3):
        pair.there_and_back(bytes(LARGE))
        pair.settle()
    pair.until(lambda: bool(caplog.records))
    pair.close()
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "through the socket (it is switched off on the other side)" in record.getMessage()


def test_frames_keep_their_places_among_small_ones(pair: Pair, lent: Lent) -> None:
    pair.paired()
    lent.memory[100:300_000] = bytes(range(100)) * 2999
    frames = [b"a", os.urandom(LARGE), b"", lent.piece(100, 300_000), os.urandom(LARGE), b"z"]
    wanted = [bytes(f.memory if isinstance(f, Piece) else f) for f in frames]
    pair.hub.send(Sender(b"t-1"), Ack(seq=1), frames)
    assert [bytes(f) for f in pair.at_link().frames] == wanted
    pair.link.send(Ack(seq=1), frames)
    assert [bytes(f) for f in pair.at_hub().frames] == wanted


def test_lent_memory_is_read_where_it_lies_and_what_is_written_stays_with_the_reader(
    pair: Pair, lent: Lent
) -> None:
    pair.paired()
    pair.hub.send(Sender(b"t-1"), Ack(seq=1), [lent.piece(4096, 4096 + LARGE)])
    (frame,) = pair.at_link().frames
    lent.memory[4096:4100] = b"live"
    assert bytes(frame[:4]) == b"live"
    frame[:4] = b"mine"  # as a model does that changes its inputs in place
    assert bytes(frame[:4]) == b"mine"
    assert bytes(lent.memory[4096:4100]) == b"live"


def test_lent_memory_that_is_read_again_is_what_the_owner_has(pair: Pair, lent: Lent) -> None:
    """A task that comes back to the worker that had it, or a batch of the next epoch at the same place."""
    pair.paired()
    lent.memory[:] = b"o" * len(lent.memory)
    for start, stop in (
        (0, LARGE),
        (LARGE, 2 * LARGE),
        (0, LARGE),
        (100_000, 100_000 + LARGE),
        (0, 2 * LARGE),
    ):
        pair.hub.send(Sender(b"t-1"), Ack(seq=1), [lent.piece(start, stop)])
        (frame,) = pair.at_link().frames
        assert bytes(frame) == b"o" * (stop - start)
        frame[:] = b"x" * len(frame)


def test_frames_of_slabs_can_be_written_to(pair: Pair) -> None:
    pair.paired()
    there, back = pair.there_and_back(b"k" * LARGE)
    for frame in (there.frames[0], back.frames[0]):
        frame[:3] = b"xyz"
        assert bytes(frame[:4]) == b"xyzk"


def test_lent_memory_that_was_freed_meanwhile_is_an_empty_frame(pair: Pair) -> None:
    """A task that another worker has answered: its batch may be gone when this one reads it."""
    pair.paired()
    lent = Lent(1 << 20)
    pair.hub.send(Sender(b"t-1"), Ack(seq=1), [b"small", lent.piece(0, LARGE)])
    lent.close()
    received = pair.at_link()
    assert [bytes(f) for f in received.frames] == [b"small", b""]
    assert pair.link.garbage == 0 and pair.hub_pairs


def test_lent_memory_outlives_its_owner_where_it_was_read(pair: Pair) -> None:
    pair.paired()
    lent = Lent(1 << 20)
    lent.memory[:4] = b"kept"
    pair.hub.send(Sender(b"t-1"), Ack(seq=1), [lent.piece(0, LARGE)])
    (frame,) = pair.at_link().frames
    lent.close()
    del lent
    pair.close()
    assert bytes(frame[:4]) == b"kept"


def test_a_reader_that_keeps_everything_costs_no_more_than_the_bound(pair: Pair) -> None:
    pair.paired()
    kept = []
    for number in range(40):
        frame = bytes([number]) * LARGE
        pair.hub.send(Sender(b"t-1"), Ack(seq=number), [frame])
        kept.append(pair.at_link().frames[0])
    assert [bytes(frame) for frame in kept] == [bytes([number]) * LARGE for number in range(40)]
    assert len(pair.hub._pairings[b"t-1"]._pool) == 8
    del kept
    gc.collect()
    assert all(slab.free for slab in pair.hub._pairings[b"t-1"]._pool._slabs)


def test_what_was_sent_just_before_closing_arrives(pair: Pair) -> None:
    """A worker that drains sends its last labels, says goodbye and leaves."""
    pair.paired()
    frames = [bytes([number]) * LARGE for number in range(3)]
    closed = []

    def close() -> None:
        for number, frame in enumerate(frames):
            pair.link.send(Ack(seq=number), [frame])
        pair.link.close()
        pair.client.close()
        closed.append(True)

    thread = threading.Thread(target=close)
    thread.start()
    while not pair.client._context.closed:
        time.sleep(0.001)
    thread.join(0.1)
    assert thread.is_alive(), "its memory waits for the reader"
    received = [pair.at_hub() for _ in frames]
    thread.join()
    assert [bytes(r.frames[0]) for r in received] == frames
    assert closed


def test_closing_does_not_wait_for_a_reader_that_is_gone(pair: Pair) -> None:
    pair.paired()
    pair.link.send(Ack(seq=1), [bytes(LARGE)])
    pair.server.close()
    began = time.monotonic()
    pair.link._socket.setsockopt(zmq.LINGER, 0)
    pair.client.close()
    assert time.monotonic() - began < 1


def test_another_process_under_the_same_name_is_met_anew(pair: Pair) -> None:
    """It gets no references to memory that the former one had mapped; what was under way is lost."""
    pair.paired()
    client = ZmqTransport(1 << 22, shared_memory=True).poller()
    link = client.connect(pair.hub.address, "t-1")
    link.send(Ack(seq=7))
    assert pair.at_hub().message == Ack(seq=7)
    pair.hub.send(Sender(b"t-1"), Ack(seq=8), [bytes(LARGE)])
    pair.hub.send(Sender(b"t-1"), Ack(seq=9))
    assert take(client, link).message == Ack(seq=9)
    assert link.garbage == 1
    ghost, pair.client, pair.link = pair.client, client, link
    ghost.close()
    pair.until(lambda: not pair.hub_pairs)
    pair.paired()
    there, back = pair.there_and_back(b"n" * LARGE)
    assert bytes(there.frames[0]) == bytes(back.frames[0]) == b"n" * LARGE


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM, errno.EMFILE])
def test_too_little_memory_falls_back_to_the_socket_and_warns_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    pair.paired()
    caplog.clear()

    def fail(*args: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fail)
    frame = os.urandom(1 << 20)  # larger than any slab so far
    for _ in range(3):
        there, back = pair.there_and_back(frame)
        assert bytes(there.frames[0]) == bytes(back.frames[0]) == frame
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2, "once for each process's side"
    assert all("through the socket" in text and os.strerror(number) in text for text in warnings)


def test_no_memory_for_a_page_falls_back_too(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", lambda *a: (_ for _ in ()).throw(OSError(errno.EMFILE, "x")))
    for _ in range(3):
        there, back = pair.there_and_back(bytes(LARGE))
        assert len(there.frames[0]) == len(back.frames[0]) == LARGE
        pair.settle()
    assert not pair.hub_pairs and not pair.link_pairs


def test_a_reader_that_cannot_map_asks_for_the_socket(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, carried
) -> None:
    pair.paired()

    def fail(*args: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    real = mmap.mmap
    slabs = pair.hub._pairings[b"t-1"]._pool
    placed = slabs.put([bytes(1 << 20)])  # a slab that the reader has not mapped yet
    assert placed is not None
    slabs.take_back(placed)
    monkeypatch.setattr("edldist.wire.shm.mappings.mmap.mmap", fail)
    pair.hub.send(Sender(b"t-1"), Ack(seq=1), [bytes(1 << 20)])
    pair.until(lambda: pair.link.garbage == 1 and not pair.hub_pairs and pair.link_pairs)
    monkeypatch.setattr("edldist.wire.shm.mappings.mmap.mmap", real)
    pair.hub.send(Sender(b"t-1"), Ack(seq=2), [bytes(1 << 20)])
    received = pair.at_link()
    assert received.message == Ack(seq=2) and len(received.frames[0]) == 1 << 20


def test_pairs_of_dead_processes_are_given_back(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edldist.wire.zmq.poller._SWEEP_S", 0.01)
    pair.paired()
    pair.client.close()
    deadline = time.monotonic() + 90
    while pair.hub._pairings:
        assert time.monotonic() < deadline
        pair.server.wait(0.01)


def test_closing_gives_all_memory_and_descriptors_back() -> None:
    def use() -> None:
        pair = Pair().paired()
        for _ in range(3):
            pair.there_and_back(bytes(LARGE))
        pair.close()

    def held() -> tuple[int, int]:
        """Descriptors, and mappings of shared memory; other tests of this process may have left some."""
        gc.collect()
        return len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count("memfd:edldist")

    use()
    before = held()
    for _ in range(5):
        use()
    assert held() == before


@pytest.mark.parametrize(("value", "wanted"), [("0", False), ("1", True), (None, True)])
def test_the_variable_switches_it(monkeypatch: pytest.MonkeyPatch, value: str | None, wanted: bool) -> None:
    monkeypatch.delenv("EDLDIST_SHARED_MEMORY", raising=False)
    if value is not None:
        monkeypatch.setenv("EDLDIST_SHARED_MEMORY", value)
    assert ZmqTransport().shared_memory is wanted
    assert ZmqTransport(shared_memory=True).shared_memory, "the argument wins"


def test_another_value_of_the_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDLDIST_SHARED_MEMORY", "maybe")
    with pytest.raises(ConfigError, match="EDLDIST_SHARED_MEMORY='maybe': use 1 .* or 0"):
        ZmqTransport()
