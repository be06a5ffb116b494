"""How many samples a forward pass gets: found by measuring, and cut down when memory runs out. Pure.

With ``auto`` the size doubles while that raises the measured rate, and settles at the best one::

    growing --rate rose by the margin--> growing (twice the size)
       |
       +-- it did not, or memory ran out, or the largest size is reached --> settled

Running out of memory shrinks the size in either state, for good: what did not fit once is not
tried again.
"""

from __future__ import annotations

__all__ = ["AUTO", "BatchSizeSearch"]

AUTO = "auto"

_START = 8
_LARGEST = 1 << 16
_MARGIN = 1.1
_WARM_UP = 1  # passes of a new size that are not measured: kernels are chosen, memory is mapped
_MEASURED = 4


class BatchSizeSearch:
    """The batch size of one worker. Owned by its compute thread.

    Args:
        batch_size: samples of a full pass, or ``auto`` to find them out.
        largest: where ``auto`` stops growing in any case.

    Attributes:
        size: samples of a full pass from now on, 1 or more.
        settled: whether ``size`` only shrinks from now on.
    """

    def __init__(self, batch_size: int | str, largest: int = _LARGEST) -> None:
        self.settled = batch_size != AUTO
        self.size = int(batch_size) if self.settled else min(_START, largest)
        self._largest = largest
        self._best = (self.size, 0.0)  # size, samples/s
        self._seen = 0
        self._fastest_s = float("inf")

    def passed(self, samples: int, seconds: float) -> bool:
        """A pass over so many samples, in pieces of ``size``, took that long; only full ones are measured.

        The fastest of a few passes counts: whatever else the machine did made the others slower.

        Returns:
            Whether ``size`` changed.
        """
        if self.settled or not samples or samples % self.size:
            return False
        self._seen += 1
        if self._seen <= _WARM_UP:
            return False
        self._fastest_s = min(self._fastest_s, seconds * self.size / samples)
        if self._seen < _WARM_UP + _MEASURED:
            return False
        before, rate = self.size, self.size / max(self._fastest_s, 1e-9)
        if rate > self._best[1] * _MARGIN:
            self._best = (before, rate)
            if before * 2 <= self._largest:
                self._grow_to(before * 2)
            else:
                self.settled = True
        else:
            self.size, self.settled = self._best[0], True
        return self.size != before

    def out_of_memory(self, samples: int) -> bool:
        """So many samples at once did not fit: go back to what did, or to half.

        Args:
            samples: 2 or more: nothing is smaller than one.

        Returns:
            Whether ``size`` changed. It does not if it is smaller already.
        """
        if samples < 2:
            raise ValueError(f"{samples} samples cannot be cut")
        if samples > self.size:
            return False
        half, best = samples // 2, self._best[0]
        self.size = best if half <= best < samples else half
        self.settled = True
        return True

    def _grow_to(self, size: int) -> None:
        self.size, self._seen, self._fastest_s = size, 0, float("inf")
