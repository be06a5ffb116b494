"""What the head of a file of labels says, and what it may not."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from edldist.checkpoint.manifest import DamagedError
from edldist.store.layout import Column
from edldist.store.shard_header import ShardHeader, block_digest, name_of

BLOCK = 100
LAYOUT = [("values", "float16", (3,)), ("width", "uint8", (0,))]


class Head:
    """The head of a file of 5 samples, of which one may change what it likes before it is read.

    Attributes:
        said: the header's object, ``__metadata__`` with its own.
        data: bytes behind it.
    """

    def __init__(self, lengths: list[int] | None = None, witness: bool = False) -> None:
        rows = 5 if lengths is None else sum(lengths)
        sizes = {} if lengths is None else {"lengths": 5 * 8}
        sizes |= {"keys": 5 * 32} | ({"witness": 5 * 32} if witness else {})
        sizes |= {"labels.values": rows * 6, "labels.width": 0}
        self.said: dict[str, Any] = {}
        at = 0
        for name, size in sizes.items():
            self.said[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
            at += size
        self.data = bytes(range(256)) * 4
        self.data = self.data[:at]
        self.metadata: dict[str, str] = {
            "format": "edldist.labels/1",
            "recipe": "ab",
            "layout": msgspec.json.encode(LAYOUT).decode(),
            "block_bytes": str(BLOCK),
            "blocks": b"".join(block_digest(self.data[at : at + BLOCK]) for at in range(0, at, BLOCK)).hex(),
        }

    def read(self, more_bytes: int = 0, recipe: str = "ab") -> ShardHeader:
        text = msgspec.json.encode({"__metadata__": self.metadata, **self.said})
        head = len(text).to_bytes(8, "little") + text
        return ShardHeader(name_of(head), head, len(head) + len(self.data) + more_bytes, recipe)

    def refused(self, more_bytes: int = 0, recipe: str = "ab") -> str:
        with pytest.raises(DamagedError) as caught:
            self.read(more_bytes, recipe)
        return str(caught.value)


@pytest.mark.parametrize("lengths", [None, [1, 3, 1, 2, 1]])
@pytest.mark.parametrize("witness", [False, True])
def test_a_head_says_what_is_in_its_file_and_where(lengths: list[int] | None, witness: bool) -> None:
    header = Head(lengths, witness).read()
    assert (header.samples, header.rows) == (5, 5 if lengths is None else 8)
    assert header.ragged == (lengths is not None)
    assert header.layout == tuple(Column(*column) for column in LAYOUT)
    first = 160 + 160 * witness + 40 * header.ragged
    whole = first + 6 * header.rows
    assert header.offsets["labels.values"] == (first, whole)
    assert header.nbytes == header.start + whole
    assert header.first_blocks == -(-first // BLOCK), "those with keys, lengths and witnesses"
    assert header.blocks == -(-whole // BLOCK)


def test_labels_of_no_bytes_have_as_many_rows_as_samples() -> None:
    head = Head()
    head.metadata["layout"] = msgspec.json.encode([("width", "uint8", (0,))]).decode()
    del head.said["labels.values"]
    head.said["labels.width"]["data_offsets"] = [160, 160]
    head.data = head.data[:160]
    head.metadata["blocks"] = head.metadata["blocks"][: 2 * 2 * 16]
    assert head.read().rows == 5


def test_each_block_is_compared_with_its_own_digest() -> None:
    head = Head()
    header = head.read()
    header.check(0, head.data[:BLOCK])
    header.check(1, memoryview(head.data)[BLOCK:])
    for block, data in ((0, head.data[BLOCK:]), (1, head.data[:BLOCK])):
        with pytest.raises(DamagedError) as caught:
            header.check(block, data)
        start = header.start + block * BLOCK
        assert f"was changed, in the {len(data)} bytes from {start:,} on" in str(caught.value)


def test_a_head_under_another_name_or_of_another_recipe_or_format_is_refused() -> None:
    assert "labels of the recipe ab, not cd" in Head().refused(recipe="cd")
    head = Head()
    head.metadata["format"] = "edldist.labels/2"
    assert "has the format 'edldist.labels/2'; this version reads 'edldist.labels/1'" in head.refused()
    with pytest.raises(DamagedError, match="the header of x is not what was written"):
        ShardHeader("x", b"\x02" + bytes(7) + b"{}", 10, "ab")


def set_block_bytes(head: Head) -> None:
    head.metadata["block_bytes"] = "0"


def set_no_layout(head: Head) -> None:
    head.metadata["layout"] = "[]"


def set_no_samples(head: Head) -> None:
    head.said["keys"]["data_offsets"] = [0, 31]


def set_fewer_keys(head: Head) -> None:
    head.said["keys"]["data_offsets"] = [0, 128]


def set_odd_keys(head: Head) -> None:
    head.said["keys"]["data_offsets"] = [0, 161]


def set_odd_witness(head: Head) -> None:
    head.said["witness"]["data_offsets"] = [0, 128]


def set_odd_lengths(head: Head) -> None:
    head.said["lengths"]["data_offsets"] = [0, 39]


def set_odd_labels(head: Head) -> None:
    head.said["labels.width"]["data_offsets"] = [0, 1]


def set_stranger(head: Head) -> None:
    head.said["more"] = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}


def set_no_keys(head: Head) -> None:
    del head.said["keys"]


def set_negative(head: Head) -> None:
    head.said["keys"]["data_offsets"] = [-1, 159]


def set_no_hexadecimals(head: Head) -> None:
    head.metadata["blocks"] = "x" + head.metadata["blocks"][1:]


NO_LABELS, NOT_AS_MANY = "it holds no labels", "its tensors are not as many, or as large, as they must be"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (set_block_bytes, NO_LABELS),
        (set_no_layout, NO_LABELS),
        (set_no_samples, NO_LABELS),
        (set_fewer_keys, "4 keys of 5 rows"),
        (set_odd_keys, NOT_AS_MANY),
        (set_odd_witness, NOT_AS_MANY),
        (set_odd_labels, NOT_AS_MANY),
        (set_stranger, NOT_AS_MANY),
        (set_no_keys, "'keys'"),
        (set_negative, "data_offsets"),
        (set_no_hexadecimals, "non-hexadecimal"),
    ],
)
def test_a_head_that_contradicts_itself_cannot_be_read(change: Any, says: str) -> None:
    head = Head(witness=True)
    change(head)
    said = head.refused()
    assert "the header of" in said and "cannot be read" in said and says in said


def test_lengths_are_eight_bytes_each_and_samples_may_have_several_rows() -> None:
    head = Head([1, 3, 1, 2, 1])
    set_odd_lengths(head)
    assert NOT_AS_MANY in head.refused()
    head = Head([1, 3, 1, 2, 1])
    set_fewer_keys(head)
    assert NOT_AS_MANY in head.refused()


@pytest.mark.parametrize("more", [-1, 1, BLOCK])
def test_a_file_of_another_size_is_refused(more: int) -> None:
    assert "and was written with others" in Head().refused(more)


def test_a_head_with_a_digest_too_few_or_too_many_is_refused() -> None:
    for text in ("", "00" * 15, "00" * 16):
        head = Head()
        head.metadata["blocks"] = head.metadata["blocks"][: 2 * 16] + text
        assert ("and was written with others" in head.refused()) if text != "00" * 16 else head.read()
    head = Head()
    head.metadata["blocks"] += "00" * 16
    assert "and was written with others" in head.refused()


def test_a_file_is_named_by_the_digest_of_its_head() -> None:
    assert name_of(b"head") == f"{hashlib.blake2b(b'head', digest_size=16).hexdigest()}.safetensors"


def test_a_block_of_one_byte_is_one() -> None:
    head = Head()
    head.metadata["block_bytes"] = "1"
    head.metadata["blocks"] = b"".join(block_digest(head.data[at : at + 1]) for at in range(190)).hex()
    assert head.read().blocks == 190
