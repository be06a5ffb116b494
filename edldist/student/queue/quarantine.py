"""Workers that keep failing are left out for a while. Pure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Quarantine"]


@dataclass(slots=True)
class _Record:
    failures: int = 0  # in a row
    error: str = ""
    until: float | None = None
    next_s: float = 0.0


class Quarantine:
    """Judges workers by failures in a row.

    A worker whose model raised ``after`` times in a row, on whatever tasks, gets no work for
    ``first_s`` seconds, then twice as long, up to ``most_s``; one success clears it. Its own fault
    (a sick device, a wrong file) would else use up the attempts of good tasks.

    Args:
        after: failures in a row that put a worker into quarantine.
        first_s, most_s: how long.
    """

    def __init__(self, after: int = 4, first_s: float = 30.0, most_s: float = 600.0) -> None:
        self.after = after
        self.first_s = first_s
        self.most_s = most_s
        self._records: dict[str, _Record] = {}

    def failed(self, worker: str, error: str, now: float) -> float | None:
        """Count a failure; the seconds for which this one puts the worker into quarantine, if it does."""
        record = self._records.setdefault(worker, _Record(next_s=self.first_s))
        record.failures += 1
        record.error = error
        if record.failures < self.after or (record.until is not None and now < record.until):
            return None
        for_s = record.next_s
        record.until = now + for_s
        record.next_s = min(self.most_s, 2 * for_s)
        return for_s

    def acquit(self, worker: str) -> None:
        """One of its failures was no fault of its own."""
        if (record := self._records.get(worker)) is None:
            return
        record.failures -= 1
        if record.failures < self.after:
            record.until = None
        if not record.failures:
            del self._records[worker]

    def succeeded(self, worker: str) -> None:
        self._records.pop(worker, None)

    def forget(self, worker: str) -> None:
        """The worker is gone."""
        self._records.pop(worker, None)

    def reason(self, worker: str, now: float) -> str | None:
        """Why a worker gets no work now, or None."""
        record = self._records.get(worker)
        if record is None or record.until is None or now >= record.until:
            return None
        return f"{record.failures} failures in a row, the last one: {record.error}"
