"""What keys cost: the label path over TCP with CURVE, beside the same without it, in turns."""

from __future__ import annotations

import contextlib
import functools

from edldist_benchmarks.figures import Figure, Result, Settings, interleave, rate
from edldist_benchmarks.label_path import LARGE, SMALL, open_path

__all__ = ["measure_sealing"]


def measure_sealing(settings: Settings) -> Result:
    """128x3x224x224 uint8 in and 128x1000 fp16 out, then 128 samples of 64 bytes, with keys and without."""
    result = Result()
    for case in (LARGE, SMALL):
        with contextlib.ExitStack() as stack:
            loaders = {
                name: stack.enter_context(open_path(case, sealed))
                for name, sealed in (("sealed", True), ("open", False))
            }
            takers = {
                name: functools.partial(rate, functools.partial(next, iter(loader)), settings.seconds)
                for name, loader in loaders.items()
            }
            runs = interleave(settings.repeats, **takers)
        samples = {name: [case.batch * each for each in values] for name, values in runs.items()}
        what = f"{case.name}, sealed"
        result.figures.append(
            Figure.median_of(what, "samples/s", samples["sealed"], samples["open"], "without keys")
        )
    return result
