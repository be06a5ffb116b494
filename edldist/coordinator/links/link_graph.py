"""Links between the workers and the students of one group, on the way to a good assignment. Pure.

Workers and students are numbers from 0. Everything is whole numbers, so that the same input gives the same
links on every machine.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["LEVEL_ONE", "LinkGraph"]

LEVEL_ONE = 1024
"""Level of a student of mean hunger that one worker of mean capacity serves."""


class LinkGraph:
    """The links of one group.

    Args:
        capacities: of each worker, above 0.
        hungers: of each student, above 0.
        degree: the most students of one worker.
        jobs: of each student; empty where jobs are not told apart.
        versions: of each worker's teacher.
        oldest: of each student, the oldest version that it takes; empty where all take any.
    """

    def __init__(
        self,
        capacities: Sequence[int],
        hungers: Sequence[int],
        degree: int,
        jobs: Sequence[str] = (),
        versions: Sequence[int] = (),
        oldest: Sequence[int] = (),
    ) -> None:
        self._capacities = capacities
        self._uniform = len(set(capacities)) == 1
        self._hungers = hungers
        self._degree = degree
        self._jobs = jobs if len(set(jobs)) > 1 else ()
        self._versions = versions
        self._oldest = oldest if any(oldest) else ()
        # Invariant: a student is in a worker's served if and only if the worker is in its servers; _supply is
        # the sum of its servers' capacities, and _level that over its hunger. Where jobs are told apart,
        # _seats counts the students of each job at each worker, and _presence the workers of each job.
        self.served: list[set[int]] = [set() for _ in capacities]
        self._servers: list[set[int]] = [set() for _ in hungers]
        self._supply = [0] * len(hungers)
        self._level = [0] * len(hungers)
        self._seats: list[Counter[str]] = [Counter() for _ in capacities]
        self._presence: Counter[str] = Counter()
        self._ranks: dict[str, list[int]] = {}
        for s, job in enumerate(self._jobs):
            self._ranks.setdefault(job, []).append(s)

    def takes(self, w: int, s: int) -> bool:
        """Whether a student takes a worker's labels, by their version."""
        return not self._oldest or self._versions[w] >= self._oldest[s]

    def link(self, w: int, s: int) -> None:
        self.served[w].add(s)
        self._servers[s].add(w)
        self._supplied(s, self._capacities[w])
        if self._jobs:
            self._seats[w][self._jobs[s]] += 1
            self._presence[self._jobs[s]] += self._seats[w][self._jobs[s]] == 1

    def _unlink(self, w: int, s: int) -> None:
        self.served[w].remove(s)
        self._servers[s].remove(w)
        self._supplied(s, -self._capacities[w])
        if self._jobs:
            self._seats[w][self._jobs[s]] -= 1
            self._presence[self._jobs[s]] -= self._seats[w][self._jobs[s]] == 0

    def _supplied(self, s: int, capacity: int) -> None:
        self._supply[s] += capacity
        self._level[s] = self._supply[s] * LEVEL_ONE // self._hungers[s]

    def validate(self) -> None:
        """Check what holds between any two steps, for tests."""
        for w, served in enumerate(self.served):
            assert all(w in self._servers[s] for s in served), f"worker {w} serves who does not know it"
        for s, servers in enumerate(self._servers):
            assert all(s in self.served[w] for w in servers), f"student {s} knows who does not serve it"
            supply = sum(self._capacities[w] for w in servers)
            assert self._supply[s] == supply, f"student {s}: {self._supply[s]} is not the sum {supply}"
            assert self._level[s] == supply * LEVEL_ONE // self._hungers[s]
        if self._jobs:
            seats = [Counter(self._jobs[s] for s in served) for served in self.served]
            assert [+each for each in self._seats] == seats, "seats are not what is served"
            assert +self._presence == Counter(job for each in seats for job in each)

    def solve(self, balance: bool) -> None:
        """Move links until bounds hold, everybody is served, and all of it is even.

        Args:
            balance: whether links may move only to serve students more evenly.
        """
        self._trim()
        self._seat()
        self._fill()
        self._cover()
        # Seats at more workers come before evenness, and what evens out takes none away: so this ends.
        while balance and self._mix() | self._balance():
            pass

    def _trim(self) -> None:
        """Take from overfull workers the students that are served best; of jobs with several first."""
        for w, served in enumerate(self.served):
            surplus = len(served) - self._degree
            if surplus <= 0:
                continue
            richest = sorted(sorted(served), key=self._level.__getitem__, reverse=True)
            if self._jobs:
                poorest = {self._jobs[s]: s for s in richest}
                richest.sort(key=lambda s: poorest[self._jobs[s]] == s)
            for s in richest[:surplus]:
                self._unlink(w, s)

    def _seat(self) -> None:
        """Give workers with room a student of each job that they serve none of."""
        for w in self._with_room() if self._jobs else ():
            for job in self._absent(w):
                if len(self.served[w]) < self._degree and (s := self._poorest(job, w)) is not None:
                    self.link(w, s)

    def _fill(self) -> None:
        """Give workers with room the students that are served worst.

        Ties are broken at random (with a fixed seed), so that the graph mixes: with runs of
        neighbours it would fall into islands that cannot help each other.
        """
        rng = random.Random(0)
        order = list(range(len(self._hungers)))
        for w in self._with_room():
            rng.shuffle(order)
            served = self.served[w]
            poorest = [s for s in order if s not in served and (not self._oldest or self.takes(w, s))]
            poorest.sort(key=self._level.__getitem__)
            for s in poorest[: self._degree - len(served)]:
                self.link(w, s)

    def _with_room(self) -> list[int]:
        room = (w for w, served in enumerate(self.served) if len(served) < self._degree)
        return sorted(room, key=lambda w: -self._capacities[w])

    def _cover(self) -> None:
        """Give every student without a worker one of a student that has several, or may have an older one.

        Workers that it takes are full here. If none of their students has several, some of these take older
        versions (the degree sees to that), and are served by other workers in their turn.
        """
        waiting = [s for s, servers in enumerate(self._servers) if not servers]
        if self._oldest:
            waiting.sort(key=self._oldest.__getitem__)
        while waiting:
            s = waiting.pop() if self._oldest else waiting.pop(0)
            donor = self._donor(s, (d for d, servers in enumerate(self._servers) if len(servers) > 1))
            if donor is None:
                less = (d for d, oldest in enumerate(self._oldest) if oldest < self._oldest[s])
                donor = self._donor(s, less)
            assert donor is not None, f"nobody can make room for student {s}"
            w = min(w for w in self._servers[donor] if self.takes(w, s))
            self._unlink(w, donor)
            self.link(w, s)
            if not self._servers[donor]:
                waiting.append(donor)
                waiting.sort(key=self._oldest.__getitem__)

    def _donor(self, s: int, among: Iterable[int]) -> int | None:
        """Who gives a worker to a student: of its own job if possible, and the one that is served best."""
        if self._oldest:
            among = [d for d in among if any(self.takes(w, s) for w in self._servers[d])]
        if self._jobs:
            job = self._jobs[s]
            return max(among, key=lambda d: (self._jobs[d] == job, self._level[d]), default=None)
        return max(among, key=self._level.__getitem__, default=None)

    # --- jobs -----------------------------------------------------------------------------------------

    def _absent(self, w: int) -> list[str]:
        """Jobs of which a worker serves nobody, those with fewest workers first."""
        seats = self._seats[w]
        absent = (job for job in self._ranks if not seats[job])
        return sorted(absent, key=lambda job: (self._presence[job], job))

    def _poorest(self, job: str, w: int) -> int | None:
        """The rank that is served worst, of a job of which a worker serves none."""
        ranks = (s for s in self._ranks[job] if self.takes(w, s))
        return min(ranks, key=self._level.__getitem__, default=None)

    def _mix(self) -> bool:
        """Let workers serve more jobs, and jobs have as many workers; False if no link moved.

        A worker parts what it gives by the weights of the jobs that it serves. So jobs get their shares of
        all workers if each serves every job, whatever ranks they have.
        """
        moved = False
        for w in range(len(self.served)) if self._jobs else ():
            for job in self._absent(w):
                s, spare = self._poorest(job, w), self._spare(w, job)
                if s is not None and spare is not None:
                    self._unlink(w, spare)
                    self.link(w, s)
                    moved = True
        return moved

    def _spare(self, w: int, job: str) -> int | None:
        """Who leaves a worker for a rank of a job that it does not serve; nobody who has no other."""
        others = [s for s in sorted(self.served[w]) if len(self._servers[s]) > 1]
        several = [s for s in others if self._seats[w][self._jobs[s]] > 1]
        most = self._presence[job] + 1
        spare = several or [s for s in others if self._presence[self._jobs[s]] > most]
        return max(spare, key=self._level.__getitem__, default=None)

    # --- evenness -------------------------------------------------------------------------------------

    def _balance(self) -> bool:
        """Move links from the best to the worst served while it clearly helps; False if none moved.

        A move must leave the receiver at least one level below the giver's old one. That margin
        is the hysteresis that keeps links still; and as every move lowers the higher of two
        levels, moving ends.
        """
        moved, stuck = False, set[int]()
        while True:
            its, poor = self._even_out(stuck)
            moved |= its
            if poor is None or not (self._jobs or self._oldest):
                return moved
            stuck.add(poor)  # nobody may give to it, but perhaps to others

    def _even_out(self, stuck: set[int]) -> tuple[bool, int | None]:
        """As ``_balance``, for all but some; and the worst served, if who has most could not give to it.

        Others may be clearly worse off than those, too.
        """
        level = self._level
        low = [(level[s], s) for s in range(len(level)) if s not in stuck]
        high = [(-level[s], s) for s in range(len(level))]
        heapq.heapify(low)
        heapq.heapify(high)
        moved = refused = False
        while high and low:
            if -high[0][0] != level[high[0][1]]:
                heapq.heappop(high)
                continue
            if low[0][0] != level[low[0][1]]:
                heapq.heappop(low)
                continue
            rich, poor = high[0][1], low[0][1]
            if level[rich] - level[poor] <= LEVEL_ONE:
                break
            w = self._movable(rich, poor)
            if w is None:
                heapq.heappop(high)
                refused = True
                continue
            self._unlink(w, rich)
            self.link(w, poor)
            moved = True
            for s in (rich, poor):
                if s not in stuck:
                    heapq.heappush(low, (level[s], s))
                heapq.heappush(high, (-level[s], s))
        return moved, low[0][1] if low and refused else None

    def _movable(self, rich: int, poor: int) -> int | None:
        """The strongest worker of ``rich`` whose move to ``poor`` helps, and takes no job's last seat."""
        if len(self._servers[rich]) < 2:
            return None
        candidates = self._servers[rich] - self._servers[poor]
        if self._oldest:
            candidates = {w for w in candidates if self.takes(w, poor)}
        if self._jobs and (job := self._jobs[rich]) != self._jobs[poor]:
            candidates = {w for w in candidates if self._seats[w][job] > 1}
        if self._uniform:
            candidates = {min(candidates)} if candidates else candidates  # all are as good: be quick
        best = None
        for w in sorted(candidates):
            gained = (self._supply[poor] + self._capacities[w]) * LEVEL_ONE // self._hungers[poor]
            helps = gained + LEVEL_ONE < self._level[rich]
            if helps and (best is None or self._capacities[w] > self._capacities[best]):
                best = w
        return best
