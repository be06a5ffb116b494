"""How a pass reaches an engine: in a thread that waits for its requests, while the next one is on its way."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from edldist.teacher.engines.engine import Engine
from edldist.teacher.passes.forward import Computed
from edldist.teacher.passes.lane import Compute, Parts
from edldist.teacher.passes.stopwatch import Stage, Stopwatch
from edldist.tracing.kinds import Kind

__all__ = ["EngineLane"]


@dataclass(frozen=True, slots=True)
class _Timed:
    computed: Computed
    begun: float
    ended: float


class _Asked:
    """A pass whose requests are under way."""

    def __init__(
        self, future: Future[_Timed], paced: Callable[[float, float], float], watch: Stopwatch
    ) -> None:
        self._future = future
        self._paced = paced
        self._watch = watch

    @property
    def computed(self) -> Computed:
        return self._future.result().computed

    def done(self) -> bool:
        if not self._future.done():
            return False
        self._future.result()
        return True

    def wait(self) -> None:
        concurrent.futures.wait([self._future])

    def labels(self) -> tuple[dict[str, Tensor], bool, float]:
        timed = self._future.result()
        if self._watch.timed:
            self._watch.note(Stage(Kind.FORWARD, timed.begun, timed.ended))
        return timed.computed.packed, False, self._paced(timed.begun, timed.ended)


class EngineLane:
    """Two passes at once: while the last requests of one come back, those of the next are under way.

    Owned by the compute thread, which launches and looks; each pass has a thread that waits for it.
    """

    depth = 2
    poll_s = 0.005

    def __init__(self, engine: Engine, watch: Stopwatch | None = None) -> None:
        self._engine = engine
        self._watch = watch or Stopwatch()
        self._threads = concurrent.futures.ThreadPoolExecutor(self.depth, "edldist-pass")
        self._last_ended = 0.0

    def launch(self, parts: Parts, compute: Compute) -> _Asked:
        inputs = (
            dict(parts[0])
            if len(parts) == 1
            else {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        )

        def run() -> _Timed:
            begun = time.monotonic()
            computed = compute(inputs)
            return _Timed(computed, begun, time.monotonic())

        return _Asked(self._threads.submit(run), self._paced, self._watch)

    def recover(self) -> bool:
        return not self._engine.lost

    def close(self) -> None:
        self._engine.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _paced(self, begun: float, ended: float) -> float:
        """Seconds that a pass took, those left out that the one before it took as well."""
        seconds = max(0.0, ended - max(begun, self._last_ended))
        self._last_ended = max(self._last_ended, ended)
        return seconds
