"""The batches between the data loader and the loop: their order, what they lack, and their memory. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edldist.student.queue.flow import Flow

__all__ = ["Batches"]


@dataclass(slots=True)
class _Batch:
    size: int  # what its labels' memory grows with
    nbytes: int
    unlabelled: int  # samples that have no labels yet, over all teachers
    due_bytes: int  # of labels that are still to come
    waiting: int = 0  # pieces of it that nobody has leased
    label_bytes: int = 0  # of nbytes


class Batches:
    """Numbers batches, counts what they lack, and says when the next one should be read.

    A batch is *labelled* when it lacks nothing. The *level*, which the watermarks bound, counts those that
    are labelled, and those of which something waits for a worker: what is leased as a whole makes room.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._batches: dict[int, _Batch] = {}
        # Invariant: the numbers in _batches follow each other; _next is the one after the last.
        self._next = 0
        # Invariant: _first_unlabelled is the first number in _batches that lacks labels, else _next.
        self._first_unlabelled = 0
        # Invariant: the sums of what stands in the batches.
        self._nbytes = 0
        self._due_bytes = 0
        # Invariant: how many of them are labelled, and how many are labelled or wait.
        self._labelled = 0
        self._level = 0
        self._filling = True
        # Bytes of labels and size of the batch that was labelled last; None until one was.
        self._known_labels: tuple[int, int] | None = None
        self._next_bytes = 0  # what the next batch is expected to hold, with its labels: as much as the last

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def head(self) -> int | None:
        """Number of the batch that is delivered next, if there is one."""
        return next(iter(self._batches), None)

    @property
    def labelled(self) -> int:
        """How many lack nothing."""
        return self._labelled

    @property
    def deliverable(self) -> int:
        """Labelled batches from the head on: what the loop gets before it meets one that lacks labels."""
        return self._first_unlabelled - (self._next - len(self._batches))

    @property
    def nbytes(self) -> int:
        """Memory that is in use, without that of labels to come."""
        return self._nbytes

    def wanted(self) -> bool:
        """Whether the data loader should be read now (see ``Flow``)."""
        easing, high = self._flow.easing, self._flow.high_watermark
        if easing.waits:
            return False
        if not self._batches:
            return True
        if easing.credits is not None:
            high = min(high, easing.credits)
        if self._nbytes + self._due_bytes + self._next_bytes > self._flow.max_bytes:
            return False
        # Leased ones count too while nobody knows how much memory their labels will take.
        every = self._flow.fixed or self._known_labels is None
        level = len(self._batches) if every else self._level
        if level >= high:
            self._filling = False
        elif level <= self._flow.low_watermark:
            self._filling = True
        return self._filling

    def full(self) -> bool:
        """Whether there are some, all are labelled, and no more should be read."""
        return self._labelled == len(self._batches) > 0 and not self.wanted()

    def offer(self, size: int, unlabelled: int, nbytes: int) -> int:
        """Append a batch and return its number. One that lacks nothing is labelled at once.

        Args:
            size: what the memory of its labels grows with.
            unlabelled: samples without labels, over all teachers.
            nbytes: the memory that it holds now.

        Room for its labels is kept at once, as much as those of the batch that was labelled last took.
        """
        number = self._next
        self._next += 1
        due_bytes = self._labels_of(size)
        self._batches[number] = batch = _Batch(size, nbytes, unlabelled, due_bytes)
        self._nbytes += nbytes
        self._due_bytes += due_bytes
        self._next_bytes = nbytes + due_bytes
        if not unlabelled:
            self._now_labelled(batch)
        return number

    def grow(self, number: int, nbytes: int) -> None:
        """Account for the label memory of a batch."""
        batch = self._batches[number]
        batch.nbytes += nbytes
        batch.label_bytes += nbytes
        self._nbytes += nbytes
        self._release(batch, nbytes)

    def waits(self, number: int, change: int) -> None:
        """A piece of a batch begins (+1) or ends (-1) to wait for a worker."""
        batch = self._batches[number]
        before = batch.waiting > 0
        batch.waiting += change
        if batch.unlabelled:
            self._level += (batch.waiting > 0) - before

    def unlabelled(self, number: int) -> int:
        """How many samples of a batch have no labels yet, over all teachers."""
        return self._batches[number].unlabelled

    def settle(self, number: int, samples: int) -> bool:
        """So many samples that had none have labels now; True if nothing is missing, or waits, any more."""
        batch = self._batches[number]
        batch.unlabelled -= samples
        if batch.unlabelled:
            return False
        assert not batch.waiting
        if batch.label_bytes:
            self._learn(batch)
        self._now_labelled(batch)
        return True

    def unsettle(self, number: int, samples: int, nbytes: int) -> None:
        """So many samples that had labels have none any more, and the memory of these is free."""
        batch = self._batches[number]
        if not batch.unlabelled and samples:
            self._labelled -= 1
            self._level -= 1  # nothing of it waits
            self._first_unlabelled = min(self._first_unlabelled, number)
        batch.unlabelled += samples
        batch.nbytes -= nbytes
        batch.label_bytes -= nbytes
        self._nbytes -= nbytes
        if self._known_labels is not None:  # else it is set when they are learnt
            batch.due_bytes += nbytes
            self._due_bytes += nbytes

    def abandon(self, number: int) -> None:
        """Labels of a batch, of which nothing waits, will not come: it counts as labelled."""
        batch = self._batches[number]
        assert not batch.waiting
        if batch.unlabelled:
            batch.unlabelled = 0
            self._now_labelled(batch)

    def deliver(self) -> int:
        """Take the head out and return its number; only when it is labelled."""
        number = next(iter(self._batches))
        batch = self._batches.pop(number)
        assert batch.unlabelled == 0
        self._labelled -= 1
        self._level -= 1
        self._nbytes -= batch.nbytes
        return number

    def clear(self) -> None:
        """Forget all of them."""
        self._batches.clear()
        self._first_unlabelled = self._next
        self._nbytes = self._due_bytes = self._labelled = self._level = 0
        self._filling = True

    def _now_labelled(self, batch: _Batch) -> None:
        if batch.due_bytes:
            self._release(batch, batch.due_bytes)
        self._labelled += 1
        self._level += 1
        while self._first_unlabelled < self._next and not self._batches[self._first_unlabelled].unlabelled:
            self._first_unlabelled += 1

    def __iter__(self) -> Iterator[int]:
        """Their numbers, in order."""
        return iter(self._batches)

    def lacking(self) -> dict[int, int]:
        """How many labels each batch lacks."""
        return {number: batch.unlabelled for number, batch in self._batches.items()}

    def validate(self, waiting: Mapping[int, int]) -> None:
        """Check the invariants, given how many pieces of each batch wait."""
        batches = self._batches
        assert list(batches) == list(range(self._next - len(batches), self._next))
        unlabelled = [number for number, batch in batches.items() if batch.unlabelled]
        assert self._first_unlabelled == (unlabelled[0] if unlabelled else self._next)
        assert self._nbytes == sum(batch.nbytes for batch in batches.values())
        assert self._due_bytes == sum(batch.due_bytes for batch in batches.values())
        assert self._labelled == len(batches) - len(unlabelled)
        assert set(waiting) <= set(batches)
        for number, batch in batches.items():
            assert batch.waiting == waiting.get(number, 0)
            assert 0 <= batch.label_bytes <= batch.nbytes and batch.due_bytes >= 0
            assert batch.unlabelled or not (batch.waiting or batch.due_bytes)
        assert self._level == sum(not b.unlabelled or b.waiting > 0 for b in batches.values())

    def _labels_of(self, size: int) -> int:
        """Bytes of labels that a batch of such a size is expected to get."""
        if self._known_labels is None:
            return 0
        label_bytes, of_size = self._known_labels
        return size * label_bytes // of_size

    def _learn(self, batch: _Batch) -> None:
        """All labels of a batch are there: so large are those of others."""
        first = self._known_labels is None
        self._known_labels = (batch.label_bytes, batch.size)
        if not first:
            return
        for other in self._batches.values():
            if other.unlabelled:
                other.due_bytes = max(0, self._labels_of(other.size) - other.label_bytes)
                self._due_bytes += other.due_bytes
        last = self._batches[self._next - 1]
        self._next_bytes = last.nbytes - last.label_bytes + self._labels_of(last.size)

    def _release(self, batch: _Batch, nbytes: int) -> None:
        """Room that was kept for labels is theirs now, or not needed."""
        released = min(nbytes, batch.due_bytes)
        batch.due_bytes -= released
        self._due_bytes -= released
