"""The small table that the agents of one generation share, as a store of torch's.

torchrun's agents use it to count their ranks, when nodes have different numbers of them, and to wait for each
other at the end. Each agent owns what it writes and tells it with its reports; the coordinator adds it up and
keeps nothing, so a coordinator that is started anew misses nothing. Values are bytes, which nobody unpickles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from torch.distributed import DistStoreError, Store

from edldist.meeting.attendance import Attendance
from edldist.wire.messages import Generation, RunView

__all__ = ["GenerationTable"]


class GenerationTable(Store):
    """What an agent needs of a store: set, get, add and wait. For the agent's main thread.

    Does not guarantee that a value survives its writer: what a node wrote is gone once it is.

    Args:
        attendance: reports what is written, and hears what others wrote.
        generation: whose table it is.
    """

    def __init__(self, attendance: Attendance, generation: Generation) -> None:
        super().__init__()
        self._timeout = timedelta(seconds=300)
        self._attendance = attendance
        self._generation = generation

    @property
    def timeout(self) -> timedelta:
        return self._timeout

    def set_timeout(self, timeout: timedelta) -> None:
        self._timeout = timeout

    def set(self, key: str, value: str | bytes) -> None:
        self.multi_set([key], [value])

    def multi_set(self, keys: Sequence[str], values: Sequence[str | bytes]) -> None:
        raw = [value.encode() if isinstance(value, str) else bytes(value) for value in values]
        self._attendance.tell(values=self._attendance.report.values | dict(zip(keys, raw, strict=True)))

    def get(self, key: str) -> bytes:
        return self.multi_get([key])[0]

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        view = self._await(keys, self.timeout)
        return [view.values[key] for key in keys]

    def add(self, key: str, amount: int) -> int:
        counts = self._attendance.report.counts
        self._attendance.tell(counts=counts | {key: counts.get(key, 0) + amount})
        # A coordinator that was started anew has to hear everybody's part first.
        view = self._wait(lambda view: view.whole, self.timeout, f"the sum of {key!r}")
        return view.counts.get(key, 0)

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        self._await(keys, timeout or self.timeout)

    def check(self, keys: Sequence[str]) -> bool:
        view = self._wait(lambda view: True, self.timeout, "an answer")
        return all(key in view.values for key in keys)

    def has_extended_api(self) -> bool:
        return True

    def _await(self, keys: Sequence[str], timeout: timedelta) -> RunView:
        def there(view: RunView) -> bool:
            missing = [key for key in keys if key not in view.values]
            if missing and view.gone:
                raise DistStoreError(
                    f"nodes {', '.join(name[:8] for name in view.gone)} left generation "
                    f"{self._generation.number} of run {view.run}: nobody may write {', '.join(missing)}"
                )
            return not missing

        return self._wait(there, timeout, f"the values of {', '.join(keys)}")

    def _wait(self, check: Callable[[RunView], bool], timeout: timedelta, what: str) -> RunView:
        def passes(view: RunView) -> bool:
            newest = view.generation
            if newest is not None and not newest.same(self._generation):
                raise DistStoreError(
                    f"generation {self._generation.number} of run {view.run} is over: "
                    f"{newest.number} followed it"
                )
            return newest is not None and check(view)

        view = self._attendance.wait(passes, timeout.total_seconds())
        if view is None:
            raise DistStoreError(
                f"waited {timeout.total_seconds():g} s in vain for {what} in generation "
                f"{self._generation.number} of run {self._attendance.report.run}"
            )
        return view
