"""References to memory that lie, and messages about memory that are none: garbage, and no harm."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from edldist.wire.messages import Ack, encode
from edldist.wire.shm.memfile import FileAddress, address_of, make_file
from edldist.wire.shm.offers import SHARING_MAGIC, Offer, References, Unpaired, decode_sharing, encode_sharing
from edldist.wire.transport import Piece
from tests.contract.pair import LARGE, Lent, Pair


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


PREFACE = encode_sharing(Unpaired())[:7]
MALFORMED = [
    pytest.param([SHARING_MAGIC], id="magic alone"),
    pytest.param([PREFACE], id="preface alone"),
    pytest.param([PREFACE + b"\xc1"], id="no message"),
    pytest.param([PREFACE + b"\x91" * 100_000], id="deep"),
    pytest.param([SHARING_MAGIC + PREFACE[2:3] + b"else" + b"\xc1"], id="another revision"),
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
