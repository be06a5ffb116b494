"""Labels as they are put into a store, for its tests."""

from __future__ import annotations

import numpy as np

from edldist.labels.fingerprint import Fingerprint
from edldist.labels.grammar import parse_spec
from edldist.store.recipe import Recipe
from edldist.store.sample_key import keys_of_ids
from edldist.wire.messages import TensorSpec

__all__ = ["Labels", "recipe"]


def recipe(*, weights: str = "c0ffee", version: str = "", codec: str = "topk:4", **said: str) -> Recipe:
    """What labels of a small teacher are made by."""
    made_by = Fingerprint(model="models:teacher", weights=weights, version=version, codec=parse_spec(codec))
    return Recipe(fingerprint=made_by, **said)


class Labels:
    """Labels of samples ``first`` to ``last``, different for each; those of one sample always the same.

    Args:
        lengths: whether a sample has several rows, 1 to 5 of them.
        names: of the tensors, with the bytes of a row.
    """

    def __init__(self, first: int, last: int, lengths: bool = False, **names: int) -> None:
        self.ids = list(range(first, last))
        self.keys = keys_of_ids("", self.ids)
        self.lengths = [1 + at % 5 for at in self.ids] if lengths else None
        names = names or {"ids": 8, "values": 16}
        sizes = self.lengths or [1] * len(self.ids)
        rows = [(at, row) for at, size in zip(self.ids, sizes, strict=True) for row in range(size)]
        self.specs = [
            TensorSpec(name=name, dtype="uint8", shape=[len(rows), width]) for name, width in names.items()
        ]
        self.tables = {
            name: np.array(
                [np.random.default_rng([at, row, width]).bytes(width) for at, row in rows], f"S{width}"
            )
            .view(np.uint8)
            .reshape(len(rows), width)
            for name, width in names.items()
        }

    @property
    def frames(self) -> list[bytes]:
        return [self.tables[spec.name].tobytes() for spec in self.specs]

    def put(self, shelf, **options) -> int:
        return shelf.put(self.keys, self.specs, self.frames, lengths=self.lengths, **options)

    def are_found(self, shelf) -> bool:
        """Whether the shelf has all of them, to the last byte."""
        found = shelf.find(self.keys)
        if found is None or not found.hit.all():
            return False
        if self.lengths is not None:
            assert found.lengths.tolist() == self.lengths
        assert {spec.name: spec.shape for spec in found.specs} == {
            spec.name: spec.shape for spec in self.specs
        }
        for name, table in self.tables.items():
            assert np.array_equal(found.rows(name), table)
        return True
