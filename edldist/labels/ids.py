"""Numbers of entries of a vocabulary in as few bytes as the vocabulary's size allows, on any device.

V entries take w = bits of V - 1. Up to 8 bits travel as one byte; more as a word of 16 bits, little-endian,
and what is above 16 bits as *planes*: the bits 16 of all ids of a row, then the bits 17, and so on, eight to
a byte. So 32 ids are 32 bytes at V = 256, 64 at V = 50,257, and 72 at V = 151,936 (18 bits).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["bytes_of_ids", "numbers_in", "pack_ids", "unpack_ids"]

_WORD_BITS = 16


def bytes_of_ids(count: int, vocabulary: int) -> int:
    """How many bytes so many ids take."""
    bits = _bits(vocabulary)
    return count if bits <= 8 else 2 * count + -(-(bits - _WORD_BITS) * count // 8) * (bits > _WORD_BITS)


def pack_ids(ids: Tensor, vocabulary: int) -> Tensor:
    """Ids as bytes.

    Args:
        ids: int64 [R, K], each within the vocabulary.
        vocabulary: V.

    Returns:
        uint8 [R, ``bytes_of_ids(K, V)``].
    """
    bits = _bits(vocabulary)
    if bits <= 8:
        return ids.to(torch.uint8)
    words = ids.to(torch.int16).view(torch.uint8)  # keeps the lower bits
    if bits <= _WORD_BITS:
        return words
    places = torch.arange(_WORD_BITS, bits, device=ids.device).unsqueeze(-1)
    planes = ((ids.unsqueeze(-2) >> places) & 1).flatten(-2).to(torch.uint8)
    planes = F.pad(planes, (0, -planes.shape[-1] % 8)).view(ids.shape[0], -(-planes.shape[-1] // 8), 8)
    return torch.cat([words, (planes << _within_byte(ids)).sum(dim=-1, dtype=torch.uint8)], dim=-1)


def unpack_ids(packed: Tensor, count: int, vocabulary: int) -> Tensor:
    """What ``pack_ids`` packed.

    Args:
        packed: uint8 [..., ``bytes_of_ids(count, vocabulary)``].

    Returns:
        int64 [..., count].
    """
    bits = _bits(vocabulary)
    if bits <= 8:
        return packed.to(torch.int64)
    ids = numbers_in(packed[..., : 2 * count], torch.int16).to(torch.int64) & 0xFFFF
    if bits <= _WORD_BITS:
        return ids
    planes = bits - _WORD_BITS
    each = (packed[..., 2 * count :].unsqueeze(-1) >> _within_byte(packed)) & 1
    above = each.flatten(-2)[..., : planes * count].reshape(*ids.shape[:-1], planes, count)
    places = torch.arange(_WORD_BITS, bits, device=packed.device).unsqueeze(-1)
    return ids + (above.to(torch.int64) << places).sum(dim=-2)


def numbers_in(columns: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers of some dtype whose bytes lie in columns of uint8, which may begin anywhere."""
    return columns.clone(memory_format=torch.contiguous_format).view(dtype)


def _bits(vocabulary: int) -> int:
    return (vocabulary - 1).bit_length()


def _within_byte(like: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)
