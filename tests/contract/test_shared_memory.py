"""What two transports on one host do with large frames, and with each other's mistakes."""

from __future__ import annotations

import errno
import gc
import logging
import mmap
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from edldist.errors import ConfigError
from edldist.wire.memfile import FileAddress, address_of, make_file
from edldist.wire.messages import Ack, encode
from edldist.wire.offers import SHARING_MAGIC, Offer, References, decode_sharing, encode_sharing
from edldist.wire.transport import Piece, Received
from edldist.wire.zeromq import ZmqHub, ZmqLink, ZmqPoller, ZmqTransport

ANYWHERE = "tcp://127.0.0.1:0"
LARGE = 200_000


class Pair:
    """A hub and a link, each with a poller of its own, and what their sockets carried."""

    def __init__(self, hub: bool = True, link: bool = True) -> None:
        self.server = ZmqTransport(1 << 22, shared_memory=hub).poller()
        self.client = ZmqTransport(1 << 22, shared_memory=link).poller()
        self.hub: ZmqHub = self.server.bind(ANYWHERE)
        self.link: ZmqLink = self.client.connect(self.hub.address, "t-1")
        self.link.send(Ack(seq=0))
        self.at_hub()

    def at_hub(self) -> Received:
        return take(self.server, self.hub)

    def at_link(self) -> Received:
        return take(self.client, self.link)

    def there_and_back(self, frame: bytes) -> tuple[Received, Received]:
        self.link.send(Ack(seq=1), [frame])
        there = self.at_hub()
        self.hub.send(b"t-1", Ack(seq=2), [frame])
        return there, self.at_link()

    def settle(self, seconds: float = 0.05) -> None:
        """Let both sides take in what they say to each other."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for poller, end in ((self.server, self.hub), (self.client, self.link)):
                assert end.receive() is None
                poller.wait(0.002)

    def paired(self) -> Pair:
        deadline = time.monotonic() + 10
        while not (self.hub_pairs and self.link_pairs):
            assert time.monotonic() < deadline
            self.there_and_back(bytes(LARGE))
            self.settle(0.01)
        return self

    @property
    def hub_pairs(self) -> bool:
        return b"t-1" in self.hub._pairings and self.hub._pairings[b"t-1"].paired

    @property
    def link_pairs(self) -> bool:
        return b"" in self.link._pairings and self.link._pairings[b""].paired

    def close(self) -> None:
        self.client.close()
        self.server.close()


def take(poller: ZmqPoller, end: ZmqHub | ZmqLink) -> Received:
    deadline = time.monotonic() + 10
    while (received := end.receive()) is None:
        assert time.monotonic() < deadline, "no message within 10 s"
        poller.wait(0.05)
    return received


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Bytes that left through sockets since the last call."""
    count = [0]
    real = ZmqPoller._open

    def opened(self, kind, address):
        socket = real(self, kind, address)
        send = socket.send_multipart

        def counted(parts, *args, **kwargs):
            count[0] += sum(memoryview(part).nbytes for part in parts)
            return send(parts, *args, **kwargs)

        object.__setattr__(socket, "send_multipart", counted)
        return socket

    monkeypatch.setattr(ZmqPoller, "_open", opened)

    def since() -> int:
        value, count[0] = count[0], 0
        return value

    return since


class Lent:
    """Memory as torch's: a file in /dev/shm without a name."""

    def __init__(self, size: int) -> None:
        path = f"/dev/shm/torch_edldist_test_{os.getpid()}"
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)
        os.ftruncate(self.fd, size)
        self.memory = memoryview(mmap.mmap(self.fd, size))

    def piece(self, start: int, stop: int) -> Piece:
        return Piece(self.memory[start:stop], address_of(self.fd), start)

    def close(self) -> None:
        os.close(self.fd)


@pytest.fixture
def lent() -> Iterator[Lent]:
    lent = Lent(1 << 24)
    yield lent
    lent.close()


def test_large_frames_leave_the_socket_once_both_sides_know_each_other(carried) -> None:
    pair = Pair().paired()
    carried()
    frame = os.urandom(LARGE)
    for _ in range(20):
        there, back = pair.there_and_back(frame)
        assert bytes(there.frames[0]) == frame == bytes(back.frames[0])
        del there, back
    assert carried() < 20 * 2 * 1000
    pair.close()


def test_without_the_other_side_everything_goes_through_the_socket(carried) -> None:
    for hub, link in ((True, False), (False, True), (False, False)):
        pair = Pair(hub, link)
        for _ in range(3):
            there, back = pair.there_and_back(bytes(LARGE))
            assert len(there.frames[0]) == len(back.frames[0]) == LARGE
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
    pair.close()
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "through the socket (it is switched off on the other side)" in record.getMessage()


def test_frames_keep_their_places_among_small_ones(pair: Pair, lent: Lent) -> None:
    pair.paired()
    lent.memory[100:300_000] = bytes(range(100)) * 2999
    frames = [b"a", os.urandom(LARGE), b"", lent.piece(100, 300_000), os.urandom(LARGE), b"z"]
    wanted = [bytes(f.memory if isinstance(f, Piece) else f) for f in frames]
    pair.hub.send(b"t-1", Ack(seq=1), frames)
    assert [bytes(f) for f in pair.at_link().frames] == wanted
    pair.link.send(Ack(seq=1), frames)
    assert [bytes(f) for f in pair.at_hub().frames] == wanted


def test_lent_memory_is_read_where_it_lies_and_what_is_written_stays_with_the_reader(
    pair: Pair, lent: Lent
) -> None:
    pair.paired()
    pair.hub.send(b"t-1", Ack(seq=1), [lent.piece(4096, 4096 + LARGE)])
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
        pair.hub.send(b"t-1", Ack(seq=1), [lent.piece(start, stop)])
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
    pair.hub.send(b"t-1", Ack(seq=1), [b"small", lent.piece(0, LARGE)])
    lent.close()
    received = pair.at_link()
    assert [bytes(f) for f in received.frames] == [b"small", b""]
    assert pair.link.garbage == 0 and pair.hub_pairs


def test_lent_memory_outlives_its_owner_where_it_was_read(pair: Pair) -> None:
    pair.paired()
    lent = Lent(1 << 20)
    lent.memory[:4] = b"kept"
    pair.hub.send(b"t-1", Ack(seq=1), [lent.piece(0, LARGE)])
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
        pair.hub.send(b"t-1", Ack(seq=number), [frame])
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
    pair.hub.send(b"t-1", Ack(seq=8), [bytes(LARGE)])
    pair.hub.send(b"t-1", Ack(seq=9))
    assert take(client, link).message == Ack(seq=9)
    assert link.garbage == 1
    ghost, pair.client, pair.link = pair.client, client, link
    ghost.close()
    pair.settle()
    assert not pair.hub_pairs
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
    monkeypatch.setattr("edldist.wire.mappings.mmap.mmap", fail)
    pair.hub.send(b"t-1", Ack(seq=1), [bytes(1 << 20)])
    pair.settle()
    monkeypatch.setattr("edldist.wire.mappings.mmap.mmap", real)
    assert pair.link.garbage == 1 and not pair.hub_pairs and pair.link_pairs
    pair.hub.send(b"t-1", Ack(seq=2), [bytes(1 << 20)])
    received = pair.at_link()
    assert received.message == Ack(seq=2) and len(received.frames[0]) == 1 << 20


def lies(pair: Pair, lent: Lent, tmp_path: Path) -> dict[str, dict[str, object]]:
    """Changes to a true reference to lent memory, each of which makes a lie."""
    ordinary = tmp_path / "document"
    ordinary.write_bytes(bytes(1 << 20))
    held = os.open(ordinary, os.O_RDONLY)
    unsealed = os.memfd_create("edldist-unsealed", os.MFD_CLOEXEC)
    os.ftruncate(unsealed, 1 << 20)
    pipe, _ = os.pipe()
    true = address_of(lent.fd)
    return {
        "another process": {"address": FileAddress(1, true.fd, true.device, true.inode)},
        "a document": {"address": address_of(held)},
        "memory that may shrink": {"address": address_of(unsealed)},
        "a pipe": {"address": address_of(pipe)},
        "beyond the file": {"start": (1 << 24) - LARGE + 1},
        "far beyond the file": {"start": 1 << 61},
        "larger than a frame may be": {"length": 1 << 23},
        "nothing behind the end": {"start": 1 << 24, "length": 0},
        "lent memory as a slab": {"generation": 1},
        "a frame that is none": {"frame": 2},
        "the proof": {"proof": bytes(32)},
    }


LIES = [
    *("another process", "a document", "memory that may shrink", "a pipe", "beyond the file"),
    *("far beyond the file", "larger than a frame may be", "lent memory as a slab", "a frame that is none"),
    *("nothing behind the end", "the proof"),
]


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_reference_is_garbage_and_harms_nobody(
    pair: Pair, lent: Lent, tmp_path: Path, lie: str
) -> None:
    pair.paired()
    raw = pair.link._pairings[b""].wrap(encode(Ack(seq=1)), [b"x", lent.piece(0, LARGE)]).raw
    message = decode_sharing(raw[0])
    assert isinstance(message, References)
    before = len(os.listdir("/proc/self/fd"))
    changes = lies(pair, lent, tmp_path)[lie]
    opened = len(os.listdir("/proc/self/fd")) - before
    proof = changes.pop("proof", message.proof)
    reference = msgspec.structs.replace(message.references[0], **changes)
    pair.link._socket.send_multipart([encode_sharing(References(proof, [reference])), *raw[1:]])
    pair.link.send(Ack(seq=2))
    assert pair.at_hub().message == Ack(seq=2)
    assert pair.hub.garbage == 1
    assert len(os.listdir("/proc/self/fd")) <= before + opened + 1, "at most the mapping of the true file"
    pair.settle()
    for _ in range(3):
        there, back = pair.there_and_back(b"k" * LARGE)
        assert bytes(there.frames[0]) == bytes(back.frames[0]) == b"k" * LARGE
        pair.settle()


def test_a_reference_to_what_is_not_there_is_an_empty_frame(pair: Pair, lent: Lent) -> None:
    pair.paired()
    true = address_of(lent.fd)
    for address in (FileAddress(true.pid, 9_999, true.device, true.inode), true):
        piece = Piece(lent.memory[:LARGE], FileAddress(address.pid, address.fd, address.device, 1), 0)
        pair.link.send(Ack(seq=1), [piece])
        assert [bytes(f) for f in pair.at_hub().frames] == [b""]


MALFORMED = [
    pytest.param([SHARING_MAGIC], id="magic alone"),
    pytest.param([SHARING_MAGIC + b"\xc1"], id="no message"),
    pytest.param([SHARING_MAGIC + b"\x91" * 100_000], id="deep"),
    pytest.param([encode_sharing(References(bytes(32), []))], id="references without a message"),
    pytest.param([encode_sharing(References(bytes(32), [])), encode(Ack(seq=1))], id="from a stranger"),
]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("frames", MALFORMED)
def test_malformed_messages_about_memory_are_garbage(pair: Pair, frames: list[bytes], known: bool) -> None:
    if known:
        pair.paired()
    pair.link._socket.send_multipart(frames)
    pair.link.send(Ack(seq=2))
    assert pair.at_hub().message == Ack(seq=2)
    assert pair.hub.garbage == 1
    pair.settle()
    pair.paired()


def test_strangers_leave_nothing_behind_and_learn_nothing(pair: Pair) -> None:
    """An offer that leads to some other memory file of this user is declined, not read out."""
    fd = make_file(100)
    os.pwrite(fd, b"someone's secret", 0)
    for address in (address_of(fd), FileAddress(1, 1, 1, 1), FileAddress(-1, -1, 0, 0)):
        pair.link._socket.send(encode_sharing(Offer(address)))
    pair.server.wait(1)
    pair.settle()
    assert not pair.hub._pairings
    os.close(fd)


def test_pairs_of_dead_processes_are_given_back(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edldist.wire.zeromq._SWEEP_S", 0.01)
    pair.paired()
    pair.client.close()
    deadline = time.monotonic() + 5
    while pair.hub._pairings:
        assert time.monotonic() < deadline
        pair.server.wait(0.01)


def test_closing_gives_all_memory_and_descriptors_back() -> None:
    def use() -> None:
        pair = Pair().paired()
        for _ in range(3):
            pair.there_and_back(bytes(LARGE))
        pair.close()

    use()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        use()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    assert "memfd:edldist" not in Path("/proc/self/maps").read_text()


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
