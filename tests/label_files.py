"""Files of labels as any tool reads them: safetensors beside a list in JSON, and nothing of edldist's own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from edldist.store.sample_key import keys_of_ids

__all__ = ["check_numbers", "listed_files", "rows_in"]


def listed_files(store: Path) -> list[Path]:
    """The files that the lists of all recipes name."""
    found = []
    for index in sorted((store / "recipes").glob("*/index*.json")):
        found += [index.parent / entry["file"] for entry in json.loads(index.read_text())["shards"]]
    return found


def rows_in(store: Path) -> list[tuple[bytes, NDArray[np.float64]]]:
    """Every row of every file: its key, and its labels."""
    rows = []
    for file in listed_files(store):
        tensors = load_file(file)
        pairs = zip(tensors["keys"], tensors["labels.logits"], strict=True)
        rows += [(key.tobytes(), row) for key, row in pairs]
    return rows


def check_numbers(store: Path, data: str, count: int) -> None:
    """Every number has the labels of ``tests.models:identify``, in one row of one file, and nothing else."""
    rows = rows_in(store)
    times = Counter(key for key, _ in rows)
    numbers = {key.tobytes(): number for number, key in enumerate(keys_of_ids(data, range(count)))}
    assert {key for key, often in times.items() if often > 1} == set(), "labelled twice"
    assert times.keys() == numbers.keys(), "missing, or foreign"
    wrong = [numbers[key] for key, row in rows if row.tolist() != [numbers[key], 2 * numbers[key] + 1]]
    assert not wrong, f"labels of another sample: {wrong[:5]}"
