"""Equal samples that are under way: one of them is labelled, and the others get its labels. Pure.

Samples with the same key are the same to their teacher. Of those that wait at one time the first is the
*leader*: workers get it as ever. The others are its *followers*: nobody gets them, and their batches wait::

    offered --no equal one is under way--> leader ---labelled---> gone, and its followers are labelled, too
       |                                     ^  |
       +--one is--> follower --promoted------+  +--given up, withdrawn, passed over--> gone: a follower
                       |                                            is promoted, and leads the others
                       +--its own batch is given up or passed over--> gone

A leader that fails, or whose worker dies, stays one: its task waits again, and its followers wait on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edldist.student.queue.wanted import Wanted

__all__ = ["Coalescing", "Follower", "Keys", "Place"]

Keys = Mapping[str, Sequence[bytes]]
"""By teacher, of each sample of a batch: those with one key are the same to it."""


class Place(NamedTuple):
    """A sample of an open batch, as its teacher sees that."""

    batch: int
    sample: int


class Follower(NamedTuple):
    """A sample whose labels are those of another one."""

    place: Place
    leader: Place


@dataclass(slots=True)
class _Group:
    """Equal samples under way. Invariant: no place is in two groups of a teacher, nor twice in one."""

    leader: Place
    followers: list[Place] = field(default_factory=list)


class Coalescing:
    """Who leads and who follows, of all teachers.

    In a deterministic job a key holds all samples of its cut and the place in it, so that a cut leads or
    follows as a whole.

    Args:
        waits: called with a batch's number and +1 or -1 for each teacher of which the batch begins or ends to
            have followers: it is not read ahead of what it waits for without bounds.
    """

    def __init__(self, waits: Callable[[int, int], None]) -> None:
        self._waits = waits
        self._groups: dict[tuple[str, bytes], _Group] = {}
        # Invariant: by teacher and batch the samples that lead, or follow, with their keys; none is empty.
        self._leaders: dict[tuple[str, int], dict[int, bytes]] = {}
        self._followers: dict[tuple[str, int], dict[int, bytes]] = {}
        # Invariant: of each teacher and batch that stands in either; what its samples cost.
        self._wanted: dict[tuple[str, int], Wanted] = {}
        self.coalesced = 0
        """Samples that got the labels of another one."""

    def __bool__(self) -> bool:
        """Whether any sample with a key is under way."""
        return bool(self._groups)

    def offer(self, teacher: str, batch: int, wanted: Wanted, keys: Sequence[bytes]) -> Wanted:
        """Samples of a batch begin to wait; what workers are to get: all of them but those that follow.

        Args:
            wanted: what has no labels yet.
            keys: of all samples of the batch.
        """
        leaders: dict[int, bytes] = {}
        followers: dict[int, bytes] = {}
        for start, stop in wanted.runs:
            for sample in range(start, stop):
                key, place = keys[sample], Place(batch, sample)
                group = self._groups.get((teacher, key))
                if group is None:
                    self._groups[teacher, key] = _Group(place)
                    leaders[sample] = key
                else:
                    group.followers.append(place)
                    followers[sample] = key
        self._wanted[teacher, batch] = wanted
        if leaders:
            self._leaders[teacher, batch] = leaders
        if not followers:
            return wanted
        self._followers[teacher, batch] = followers
        self._waits(batch, 1)
        return wanted.only(leaders)

    def followers(self, teacher: str, batch: int, start: int, stop: int) -> list[Follower]:
        """Those that follow some samples of a batch."""
        leaders = self._leaders.get((teacher, batch))
        if leaders is None:
            return []
        return [
            Follower(place, Place(batch, sample))
            for sample in range(start, stop)
            if (key := leaders.get(sample)) is not None
            for place in self._groups[teacher, key].followers
        ]

    def labelled(self, teacher: str, batch: int, start: int, stop: int) -> list[tuple[int, Wanted]]:
        """Samples of a batch have labels, and so have those that follow them: these, by batch."""
        found = [follower.place for follower in self.followers(teacher, batch, start, stop)]
        for key in self._take(self._leaders, (teacher, batch), range(start, stop)):
            del self._groups[teacher, key]
        self.coalesced += len(found)
        return self._parted(teacher, found)

    def excuse(self, teacher: str, place: Place) -> tuple[int, Wanted]:
        """A follower cannot use its leader's labels: it is to be labelled itself, and nobody follows it."""
        key = self._followers[teacher, place.batch][place.sample]
        self._groups[teacher, key].followers.remove(place)
        return self._parted(teacher, [place])[0]

    def release(self, teacher: str, batch: int, samples: Iterable[int]) -> list[tuple[int, Wanted]]:
        """Samples of a batch get no labels; the followers that wait for a worker instead, by batch."""
        promoted = []
        for key in self._take(self._leaders, (teacher, batch), samples):
            group = self._groups[teacher, key]
            if not group.followers:
                del self._groups[teacher, key]
                continue
            place = group.leader = group.followers.pop(0)
            self._leaders.setdefault((teacher, place.batch), {})[place.sample] = key
            promoted.append(place)
        return self._parted(teacher, promoted)

    def unfollow(self, teacher: str, batch: int) -> int:
        """Nothing of a batch follows any more; how much of it did."""
        places = self.places(teacher, batch)
        for place in places:
            key = self._followers[teacher, batch][place.sample]
            self._groups[teacher, key].followers.remove(place)
        self._parted(teacher, places)
        return len(places)

    def drop(self, teacher: str, batch: int) -> list[tuple[int, Wanted]]:
        """Nobody labels anything of a batch any more; what is to be labelled of others instead."""
        self.unfollow(teacher, batch)
        self._wanted.pop((teacher, batch), None)
        return self.release(teacher, batch, list(self._leaders.get((teacher, batch), ())))

    def delivered(self, batch: int) -> None:
        """A batch is gone, of which nothing waits."""
        for which in [which for which in self._wanted if which[1] == batch]:
            del self._wanted[which]

    def places(self, teacher: str, batch: int) -> list[Place]:
        """The samples of a batch that follow others."""
        return [Place(batch, sample) for sample in self._followers.get((teacher, batch), ())]

    def waiting(self, teacher: str, batch: int) -> int:
        """How many samples of a batch follow others."""
        return len(self._followers.get((teacher, batch), ()))

    def clear(self) -> None:
        """Forget all of them, without calling ``waits``."""
        self._groups.clear()
        self._leaders.clear()
        self._followers.clear()
        self._wanted.clear()

    def pieces(self) -> Counter[int]:
        """For how many teachers each batch has followers."""
        return Counter(batch for _, batch in self._followers)

    def covered(self) -> Counter[int]:
        """How many samples of each batch follow others, over all teachers."""
        samples: Counter[int] = Counter()
        for (_, batch), followers in self._followers.items():
            samples[batch] += len(followers)
        return samples

    def leaders(self) -> Iterable[tuple[str, Place]]:
        """The teacher and place of each sample that leads."""
        return ((teacher, group.leader) for (teacher, _), group in self._groups.items())

    def validate(self) -> None:
        """Check the invariants."""
        assert all(self._leaders.values()) and all(self._followers.values())
        assert self._leaders.keys() | self._followers.keys() <= self._wanted.keys()
        leaders = {
            (teacher, Place(batch, sample)): key
            for (teacher, batch), keys in self._leaders.items()
            for sample, key in keys.items()
        }
        followers = {
            (teacher, Place(batch, sample)): key
            for (teacher, batch), keys in self._followers.items()
            for sample, key in keys.items()
        }
        assert leaders.keys().isdisjoint(followers.keys())
        assert leaders == {(teacher, group.leader): key for (teacher, key), group in self._groups.items()}
        listed = [
            ((teacher, place), key)
            for (teacher, key), group in self._groups.items()
            for place in group.followers
        ]
        assert len(listed) == len(followers) and dict(listed) == followers

    def _parted(self, teacher: str, places: Sequence[Place]) -> list[tuple[int, Wanted]]:
        """Samples that followed do so no more; what they are of each batch."""
        by_batch: dict[int, list[int]] = {}
        for place in places:
            by_batch.setdefault(place.batch, []).append(place.sample)
        parted = []
        for batch, samples in by_batch.items():
            self._take(self._followers, (teacher, batch), samples)
            if (teacher, batch) not in self._followers:
                self._waits(batch, -1)
            parted.append((batch, self._wanted[teacher, batch].only(samples)))
        return parted

    @staticmethod
    def _take(
        of: dict[tuple[str, int], dict[int, bytes]], which: tuple[str, int], samples: Iterable[int]
    ) -> list[bytes]:
        """Take samples out, and their entry when it is empty; the keys of those that were there."""
        known = of.get(which)
        if known is None:
            return []
        keys = [key for sample in samples if (key := known.pop(sample, None)) is not None]
        if not known:
            del of[which]
        return keys
