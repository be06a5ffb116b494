"""Files of kept labels for tests: written, found and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edldist import LabelStore
from edldist.store.kept_rows import KeptRows
from edldist.store.layout import layout_of
from tests.unit.kept_labels import Labels, recipe


def written_files(root: Path, *labels: Labels) -> list[Path]:
    """Files of labels in a store, one for each, in their order."""
    paths: list[Path] = []
    with LabelStore(root) as store:
        for each in labels:
            each.put(store.shelf(recipe()))
            assert store.shelf(recipe()).flush(60)
            paths += set(shards_of(root)) - set(paths)
    return paths


def recipe_folder(root: Path) -> Path:
    return root / "recipes" / recipe().digest


def shards_of(root: Path) -> list[Path]:
    return sorted(recipe_folder(root).glob("*.safetensors"))


def kept_rows(labels: Labels, witness: bool = False) -> KeptRows:
    ends = None if labels.lengths is None else np.concatenate(([0], np.cumsum(labels.lengths)))
    layout = layout_of(labels.specs)
    tables = [labels.tables[column.name] for column in layout]
    return KeptRows(layout, labels.keys, labels.keys[::-1] if witness else None, ends, tables)
