"""Texts and bytes among the inputs of a model: rows of a tensor, so that they are cut and joined like others.

A row is its length (4 bytes, little-endian), the bytes (of text: UTF-8), and zeros up to the width of the
widest. On the wire the dtype of such a tensor is ``str`` or ``bytes``; in a process its name says so
(``TextName``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edldist.errors import InputError, WireError

__all__ = ["KINDS", "TextName", "are_texts", "even", "pack_texts", "unpack_texts"]

KINDS: dict[str, type[str] | type[bytes]] = {"str": str, "bytes": bytes}
"""Wire name -> type."""

_LENGTH_BYTES = 4
_PAGE = 4096


class TextName(str):
    """The name of a tensor whose rows are texts.

    Attributes:
        kind: ``str`` or ``bytes``.
    """

    kind: str

    def __new__(cls, name: str, kind: str) -> TextName:
        made = super().__new__(cls, name)
        made.kind = kind
        return made


def are_texts(values: Any) -> bool:
    """Whether this is a list, or a tuple, of texts or of bytes: one at least, and the first is one."""
    return isinstance(values, (list, tuple)) and bool(values) and isinstance(values[0], (str, bytes))


def pack_texts(name: str, values: Sequence[Any]) -> tuple[TextName, Tensor]:
    """Texts, or bytes, as an input of a model.

    Args:
        values: ``are_texts``.

    Returns:
        Its name, and uint8 [len(values), width]; widths come in steps, so that those of most batches agree.

    Raises:
        InputError: some of them are of another type, or text that is no Unicode.
    """
    kind = type(values[0])
    other = next((at for at, value in enumerate(values) if type(value) is not kind), None)
    if other is not None:
        raise InputError(
            f"input {name!r} begins with a {kind.__name__} and has a {type(values[other]).__name__} as entry "
            f"{other}; all must be of one type"
        )
    try:
        rows = [value.encode() if kind is str else value for value in values]
    except UnicodeEncodeError as exc:
        raise InputError(f"input {name!r} has text that is no Unicode: {exc}") from exc
    width = _width(max(map(len, rows)))
    memory = bytearray(width * len(rows))
    for at, row in enumerate(rows):
        start = at * width
        memory[start : start + _LENGTH_BYTES] = len(row).to_bytes(_LENGTH_BYTES, "little")
        memory[start + _LENGTH_BYTES : start + _LENGTH_BYTES + len(row)] = row
    return TextName(name, kind.__name__), torch.frombuffer(memory, dtype=torch.uint8).view(len(rows), width)


def unpack_texts(name: TextName, rows: Tensor) -> list[str] | list[bytes]:
    """What ``pack_texts`` was given.

    Raises:
        WireError: it cannot be; the rows are somebody else's.
    """
    if rows.dtype is not torch.uint8 or rows.dim() != 2 or rows.shape[1] < _LENGTH_BYTES:
        raise WireError(f"input {str(name)!r} of type {name.kind} is {rows.dtype}{list(rows.shape)}")
    most = rows.shape[1] - _LENGTH_BYTES
    found: list[Any] = []
    for row in rows.cpu().contiguous().numpy():
        length = int.from_bytes(row[:_LENGTH_BYTES].tobytes(), "little")
        if length > most:
            raise WireError(f"entry {len(found)} of input {str(name)!r} has {length} bytes in {most}")
        found.append(row[_LENGTH_BYTES : _LENGTH_BYTES + length].tobytes())
    if name.kind == "bytes":
        return found
    try:
        return [value.decode() for value in found]
    except UnicodeDecodeError as exc:
        raise WireError(f"input {str(name)!r} has text that is no UTF-8: {exc}") from exc


def even(parts: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Parts of one batch with their texts in one width, so that they can be joined."""
    widths: dict[str, int] = {
        name: max(part[name].shape[1] for part in parts if name in part)
        for name in parts[0]
        if isinstance(name, TextName)
    }
    return [
        {
            name: torch.nn.functional.pad(rows, (0, widths.get(name, 0) - rows.shape[1]))
            if name in widths
            else rows
            for name, rows in part.items()
        }
        for part in parts
    ]


def _width(most: int) -> int:
    """Bytes of a row: a power of two, or whole pages."""
    whole = most + _LENGTH_BYTES
    return 1 << (whole - 1).bit_length() if whole <= _PAGE else -(-whole // _PAGE) * _PAGE
