"""Kept labels for people's own scripts: as tensors, and as a training loop would get them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edldist.labels.grammar import CodecSpec
from edldist.store.kept_rows import KeptRows, Numbers
from edldist.store.sample_key import Keys

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KeptBatch"]


class KeptBatch:
    """Labels of some samples.

    Attributes:
        keys: uint8 [n, 32].
        witness: digests of the inputs, uint8 [n, 32], where samples are named by ids; else None.
        lengths: rows of each sample, int64 [n]; None: one each.
    """

    def __init__(self, kept: KeptRows, codec: CodecSpec) -> None:
        self._kept = kept
        self._codec = codec
        self.keys: Keys = kept.keys
        self.witness: Keys | None = kept.witness
        self.lengths: Numbers | None = None if kept.ends is None else np.diff(kept.ends)

    def tensors(self) -> dict[str, Tensor]:
        """What the codec sent, rows first: a copy, in host memory."""
        import torch

        tensors = {}
        for column, table in zip(self._kept.layout, self._kept.tables, strict=True):
            flat = torch.from_numpy(np.array(table).reshape(-1)).view(getattr(torch, column.dtype))
            tensors[column.name] = flat.reshape(len(table), *column.shape)
        return tensors

    def labels(self) -> dict[str, Any]:
        """What a training loop gets of them, by the names of the teacher's outputs, rows first.

        Raises:
            CodecError: this version of edldist has no such codec.
        """
        from edldist.labels.codec import make_codec

        return make_codec(self._codec).decode(self.tensors())
