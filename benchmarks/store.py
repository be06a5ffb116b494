"""How fast a store finds labels and takes them in, beside a copy of their bytes, and whether its bounds hold.

A hit is all that the store does of it: the keys of a batch's inputs, where its labels lie, every key compared
as a whole, and the rows copied.
"""

from __future__ import annotations

import functools
import itertools
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

import edldist
from edldist.labels.fingerprint import Fingerprint
from edldist.labels.grammar import parse_spec
from edldist.store.recipe import Recipe
from edldist.store.sample_key import keys_of_inputs
from edldist.store.shelf import Shelf
from edldist.wire.messages import TensorSpec
from edldist_benchmarks.figures import Budget, Figure, Result, Settings, interleave, rate
from edldist_benchmarks.label_path import SMALL, TOKENS, Case

__all__ = ["measure_store"]

SAMPLES = {TOKENS.name: 512, SMALL.name: 65_536}
"""So many that they lie in several segments, and in several files."""
ROWS = {TOKENS.name: ("uint8", (1024, 196)), SMALL.name: ("float32", (10,))}
BOUND_BYTES = 64 << 20
RECIPE = Recipe(
    fingerprint=Fingerprint(model="benchmark:noop", weights="0" * 32, codec=parse_spec("topk:64"))
)


class _Kept:
    """Labels of some samples in a store, and what is asked of them."""

    def __init__(self, case: Case, shelf: Shelf) -> None:
        self._case = case
        self._shelf = shelf
        self._samples = SAMPLES[case.name]
        dtype, shape = ROWS[case.name]
        row = math.prod(shape) * np.dtype(dtype).itemsize
        rng = np.random.default_rng(0)
        width = case.input_bytes // case.batch
        self._inputs = rng.integers(0, 256, (self._samples, width), np.uint8)
        self._labels = rng.integers(0, 256, (case.batch, row), np.uint8)
        self._layout = [("tokens", str(case.input_dtype).removeprefix("torch."), case.sample_shape)]
        self._specs = [TensorSpec(name="labels", dtype=dtype, shape=[case.batch, *shape])]
        self._ends = range(case.batch + 1)
        self._order = itertools.cycle(rng.permutation(self._samples).reshape(-1, case.batch))
        for first in range(0, self._samples, case.batch):
            self._put(np.arange(first, first + case.batch))

    def hit(self) -> None:
        """A batch in an order that has nothing to do with the one in which it was kept."""
        found = self._shelf.find(self._keys(next(self._order)))
        assert found is not None and found.hits == self._case.batch
        found.frames()

    def put_new(self) -> None:
        """A batch that is not there yet."""
        samples = next(self._order)
        self._inputs[samples, :8] = np.random.default_rng().integers(0, 256, (len(samples), 8), np.uint8)
        self._put(samples)

    def copy(self) -> None:
        """The labels of a batch, copied into memory of their own."""
        self._labels.copy()

    def _put(self, samples: np.ndarray) -> None:
        frames = [self._labels.reshape(-1).data]
        self._shelf.put(self._keys(samples), self._specs, frames, wait=True)

    def _keys(self, samples: np.ndarray) -> np.ndarray:
        frame = self._inputs[samples].reshape(-1).data
        return keys_of_inputs(self._layout, [frame], self._ends)


def measure_store(settings: Settings) -> Result:
    """Hits in memory and in files, and what is put, beside a copy of the labels; then the bounds."""
    result = Result()
    for case in (TOKENS, SMALL):
        result.figures += _rates(case, settings)
    result.figures += _bounds()
    result.notes.append(
        "files are in the page cache, and were compared with their digests when they were first used"
    )
    return result


def _rates(case: Case, settings: Settings) -> list[Figure]:
    def samples_a_second(step: Callable[[], object]) -> float:
        return case.batch * rate(step, settings.seconds)

    with (
        tempfile.TemporaryDirectory(prefix="edldist-bench-") as folder,
        edldist.LabelStore(None, memory_bytes=1 << 30) as memory,
        edldist.LabelStore(None, memory_bytes=BOUND_BYTES) as filling,
        edldist.LabelStore(folder, memory_bytes=1 << 20) as files,
    ):
        in_memory = _Kept(case, memory.shelf(RECIPE))
        in_files = _Kept(case, files.shelf(RECIPE))
        filled = _Kept(case, filling.shelf(RECIPE))
        assert files.shelf(RECIPE).flush()
        runs = interleave(
            settings.repeats,
            memory=functools.partial(samples_a_second, in_memory.hit),
            files=functools.partial(samples_a_second, in_files.hit),
            put=functools.partial(samples_a_second, filled.put_new),
            copy=functools.partial(samples_a_second, filled.copy),
        )
    return [
        Figure.median_of(f"{case.name}: {what}", "samples/s", runs[name], runs["copy"], "copy of the labels")
        for name, what in (("memory", "hits in memory"), ("files", "hits in files"), ("put", "put"))
    ]


def _bounds() -> list[Figure]:
    """Memory and disk while four times as much is put as either may take."""
    labels = np.random.default_rng(0).integers(0, 256, (64, 64 << 10), np.uint8)
    specs = [TensorSpec(name="labels", dtype="uint8", shape=list(labels.shape))]
    process = psutil.Process()
    most = {"memory": 0, "disk": 0, "rss": 0}
    with tempfile.TemporaryDirectory(prefix="edldist-bench-") as folder:
        before = process.memory_info().rss
        with edldist.LabelStore(folder, memory_bytes=BOUND_BYTES, disk_bytes=BOUND_BYTES) as store:
            shelf = store.shelf(RECIPE)
            rng = np.random.default_rng(1)
            for _ in range(4 * BOUND_BYTES // labels.nbytes):
                keys = rng.integers(0, 256, (len(labels), 32), np.uint8)
                shelf.put(keys, specs, [labels.reshape(-1).data], wait=True)
                most["memory"] = max(most["memory"], shelf.figures()["memory_bytes"])
                most["rss"] = max(most["rss"], process.memory_info().rss - before)
                most["disk"] = max(most["disk"], _size(Path(folder)))
            shelf.flush()
            most["disk"] = max(most["disk"], _size(Path(folder)))
    bounded = Budget(at_most=1.0)
    return [
        Figure("bytes in memory, at most", most["memory"], "bytes", BOUND_BYTES, "memory_bytes", bounded),
        Figure("resident memory that came, at most", most["rss"], "bytes", BOUND_BYTES, "memory_bytes"),
        Figure("bytes in files, at most", most["disk"], "bytes", BOUND_BYTES, "disk_bytes", bounded),
    ]


def _size(folder: Path) -> int:
    sizes = []
    for path in folder.rglob("*.safetensors"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:  # evicted just now
            continue
    return sum(sizes)
