"""A running job for fault after fault: one endless student, and workers that are replaced.

Starting processes takes longer than most faults, so the cases of a file share a job. Each case
looks only at its own time, and checks that what arrived until then is exact.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import edldist
from edldist.wire.messages import MemberStatus, Scalar
from tests.fault.harness import FaultJob, Role, assert_exact, wait_for


class Crew:
    """A job whose student trains whole epochs until ``finish``; ``workers`` serve it.

    Args:
        job: with its coordinator running.
        samples, batch_size: of the student.
        name: of the student, and of its folder.
        options: of the student, as flags of ``train.py``.
    """

    def __init__(
        self, job: FaultJob, *, samples: int, batch_size: int, name: str = "student", **options: object
    ) -> None:
        self.job = job
        self.samples = samples
        self.batch_size = batch_size
        self.output = job.folder / name
        self.end = job.folder / f"{name}.end"
        self.hold = job.folder / f"{name}.hold"
        self._started = 0
        self.student = job.script(
            name,
            output=self.output,
            samples=samples,
            batch_size=batch_size,
            until=self.end,
            hold=self.hold,
            **options,
        )

    # --- the workers ------------------------------------------------------------------------------

    def workers(self) -> list[Role]:
        return [role for role in self.job.roles if role.name.startswith("t-") and role.alive]

    def hire(self, count: int = 1, **options: object) -> list[Role]:
        """Start workers; they serve some seconds later."""
        hired = []
        for _ in range(count):
            self._started += 1
            env = {"EDLDIST_TEST_GIL_S": "3"}
            hired.append(self.job.teacher(f"t-{self._started}", env=env, **options))  # type: ignore[arg-type]
        return hired

    def staff(self, count: int, students: int = 1) -> list[Role]:
        """Have this many workers, all of them serving the student, or several."""
        self.hire(count - len(self.workers()))
        workers = self.workers()
        wait_for(f"{count} serving workers", lambda: self._serving(workers, students), 60)
        return workers

    def _serving(self, workers: list[Role], students: int = 1) -> bool:
        assert self.student.alive, self.student.tail()
        tired = [w.name for w in workers if not w.alive]
        assert not tired, f"{tired} ended"
        stats = {m.id: m.stats for m in self.job.status().members}
        return all(int(stats.get(w.name, {}).get("students") or 0) >= students for w in workers)

    def member(self, name: str) -> MemberStatus | None:
        return next((m for m in self.job.status().members if m.id == name), None)

    def labelled_by(self, worker: Role) -> int:
        """Samples that a worker has labelled, by its own count."""
        member = self.member(worker.name)
        return 0 if member is None else int(member.stats.get("samples") or 0)

    # --- the student --------------------------------------------------------------------------------

    def steps(self) -> list[dict]:
        return self.job.steps(self.output)

    def stats(self) -> dict[str, Scalar]:
        """The loader's figures, from a heartbeat that is younger than this call."""
        here = len(self.steps()) + (0 if self.hold.exists() else 1)
        return wait_for("fresh figures of the student", lambda: self._stats(here))

    def _stats(self, batches: int) -> dict[str, Scalar] | None:
        assert self.student.alive, self.student.tail()
        for member in self.job.status().members:
            if member.pid == self.student.pid and int(member.stats.get("batches") or 0) >= batches:
                return member.stats
        return None

    def await_steps(self, more: int, timeout_s: float = 30.0) -> None:
        target = len(self.steps()) + more

        def reached() -> bool:
            assert self.student.alive, self.student.tail()
            return len(self.steps()) >= target

        wait_for(f"{more} more steps", reached, timeout_s)

    def await_log(self, *words: str, since: int = 0, timeout_s: float = 20.0) -> float:
        """Wait until one line of the student's log, after byte ``since``, has all words; its time."""

        def said() -> bool:
            text = self.student.log.read_text(errors="replace")[since:]
            return any(all(word in line for word in words) for line in text.splitlines())

        wait_for(f"the student to log {words}", said, timeout_s)
        return time.time()

    def logged(self) -> int:
        """Length of the student's log now."""
        return len(self.student.log.read_text(errors="replace"))

    def gap_s(self, since: float) -> float:
        """Longest time without a step since a moment (and a little before it), until now."""
        times = [record["t"] for record in self.steps()]
        before = [t for t in times if t <= since][-1:]
        times = before + [t for t in times if t > since] + [time.time()]
        return max(b - a for a, b in zip(times, times[1:], strict=False))

    def rate(self, since: float, until: float) -> float:
        """Samples per second between two moments."""
        taken = sum(len(record["ids"]) for record in self.steps() if since < record["t"] <= until)
        return taken / (until - since)

    def await_rate(self, least: float, since: float, timeout_s: float = 30.0) -> float:
        """Wait until two seconds together, after a moment, saw ``least`` samples per second.

        Returns their rate. How soon is for the benchmarks to say: a neighbour that takes a core slows down
        any fixed window.
        """
        deadline = time.monotonic() + timeout_s
        while (best := self.best_rate(since, time.time())) < least:
            assert self.student.alive, self.student.tail()
            assert time.monotonic() < deadline, f"{best:.0f} samples per second, not {least:.0f}"
            time.sleep(0.2)
        return best

    def best_rate(self, since: float, until: float, window_s: float = 2.0) -> float:
        """Samples per second in the best window between two moments."""
        taken = [(record["t"], len(record["ids"])) for record in self.steps() if since < record["t"] <= until]
        best = total = first = 0
        for t, samples in taken:
            total += samples
            while taken[first][0] <= t - window_s:
                total -= taken[first][1]
                first += 1
            best = max(best, total)
        return best / window_s

    def assert_exact_so_far(self) -> None:
        """Every sample came once an epoch, in the order of the sampler."""
        steps = self.steps()
        assert [record["step"] for record in steps] == list(range(1, len(steps) + 1))
        sampler = edldist.ElasticSampler(self.samples, self.batch_size, rank=0, world_size=1)
        for epoch in range(steps[-1]["epoch"] + 1):
            sampler.set_epoch(epoch)
            seen = [record["ids"] for record in steps if record["epoch"] == epoch]
            whole = list(sampler)
            assert seen == (whole if epoch < steps[-1]["epoch"] else whole[: len(seen)]), f"epoch {epoch}"

    def finish(self) -> dict:
        """Let the student end its epoch and leave; its books are exact."""
        self.end.touch()
        done = self.job.finish(self.student, output=self.output)
        self.assert_exact_so_far()
        assert_exact(done, self.samples, self.batch_size, epochs=done["epochs"])
        return done


@contextlib.contextmanager
def crew(folder: Path, workers: int, student: dict, **job: object) -> Iterator[Crew]:
    """A job with a coordinator, some workers and an endless student that has taken a step."""
    made = FaultJob(folder, checkpoint_every=1_000_000, **job)  # type: ignore[arg-type]
    try:
        made.coordinator()
        party = Crew(made, **student)
        party.hire(workers)
        party.staff(workers)
        party.await_steps(1, 60)
        yield party
    finally:
        made.close()
