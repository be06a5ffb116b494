"""The autoscaler in a simulated clock, under the laws of real engines, beside an oracle and fixed fleets.

What decides is the coordinator's own scaling, fed by the members' own meters (``Hunger``, ``Capacity``).
Around them
is a model: students take what they can get, workers take a while to start, and an engine places them.

* *efficiency* is what the students took, of what they would have taken with labels always there.
* *worker hours* count from the moment a worker is placed: whoever starts is paid for.
* The *oracle* knows the load of every moment, and orders exactly what it takes from the same engine. The
  *prescient*
  one orders as long ahead as a worker takes to start.

``python -m edldist_benchmarks.autoscale`` prints every load under every engine, and draws some.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from edldist.coordinator.scaling.load import GroupLoad, StudentNeed, WorkerGift
from edldist.coordinator.scaling.scaling import Bounds, Rules, Scaling
from edldist.student.service.job.needs import Hunger
from edldist.teacher.capacity import Capacity
from edldist_benchmarks.engines import ENGINES, Engine, EngineLaw
from edldist_benchmarks.figures import Budget, Figure, Result, Settings
from edldist_benchmarks.loads import LENGTH_S, LOADS, Load

__all__ = ["Run", "draw", "main", "measure_autoscale", "simulate"]

LEAST, MOST = 1, 16
WORKER_RATE, RANK_RATE, BATCH = 100.0, 46.0, 10
"""Samples a second of a worker, and of a rank that never waits; and samples of a batch."""
NOISE = 0.05
"""By which each second of each of them differs from the mean."""
GROUP = "teacher"


@dataclass
class Run:
    """What came of a load.

    Attributes:
        asked, taken: samples that students would have taken, and did.
        worker_s: seconds of all workers.
        wanted, here, needed: by the second: what was wanted, what labelled, and what it would have taken.
        changes: of the wanted number.
    """

    asked: float = 0.0
    taken: float = 0.0
    worker_s: float = 0.0
    wanted: list[int] = field(default_factory=list)
    here: list[int] = field(default_factory=list)
    needed: list[float] = field(default_factory=list)

    @property
    def efficiency(self) -> float:
        return self.taken / self.asked if self.asked else 1.0

    @property
    def changes(self) -> int:
        return sum(a != b for a, b in zip(self.wanted, self.wanted[1:], strict=False))


class _Worker:
    def __init__(self, number: int, ready_at: float) -> None:
        self.id = f"w{number}"
        self.ready_at = ready_at
        self.capacity = Capacity()
        self.samples = self.idle_s = 0.0
        self.told: float | None = None

    def work(self, now: float, share: float, rng: random.Random) -> None:
        """A second in which it labels such a share of what it can."""
        pace = WORKER_RATE * (1 + NOISE * rng.uniform(-1, 1))
        self.samples += share * pace
        self.idle_s += 1 - share
        if share:
            self.capacity.passed(round(pace), 1.0, 1.0)
        self.told = self.capacity.seen(now, round(self.samples), self.idle_s)


class _Rank:
    def __init__(self) -> None:
        self.hunger = Hunger()
        self.samples = self.starved_s = 0.0

    def train(self, now: float, share: float, rng: random.Random) -> None:
        """A second in which it gets such a share of what it would take."""
        self.samples += share * RANK_RATE * (1 + NOISE * rng.uniform(-1, 1))
        self.starved_s += 1 - share
        batches = int(self.samples / BATCH)
        self.hunger.see(now, batches, batches * BATCH, self.starved_s)


Decide = Callable[[float, "_World"], int]


class _World:
    """A teacher group, its students and its engine, second by second."""

    def __init__(self, load: Load, law: EngineLaw, decide: Decide, first: int, seed: int) -> None:
        self._load, self._law, self._decide = load, law, decide
        self._rng = random.Random(seed)
        self._numbers = iter(range(1_000_000))
        self.workers = [self._place(0.0) for _ in range(first)]
        self.ranks: list[_Rank] = []
        self.share = 0.0  # of what students would take, that they took in the last second
        self.run = Run()

    def live(self) -> Run:
        for second in range(LENGTH_S):
            self._second(second)
        return self.run

    def ready(self, now: float) -> list[_Worker]:
        return [worker for worker in self.workers if worker.ready_at <= now]

    def _place(self, now: float) -> _Worker:
        return _Worker(next(self._numbers), now + self._law.start_s())

    def _second(self, second: int) -> None:
        now, run = float(second), self.run
        count = self._load.ranks(second)
        del self.ranks[count:]
        self.ranks += [_Rank() for _ in range(count - len(self.ranks))]
        if second in self._load.losses:
            self._lose(now)
        wanted = self._decide(now, self)
        self._resize(now, self._law.replicas(now, wanted, len(self.workers)))
        ready = self.ready(now)
        asked, supply = count * RANK_RATE, len(ready) * WORKER_RATE
        taken = min(asked, supply)
        self.share = taken / asked if asked else 0.0
        for worker in ready:
            worker.work(now, taken / supply, self._rng)
        for rank in self.ranks:
            rank.train(now, self.share, self._rng)
        run.asked += asked
        run.taken += taken
        run.worker_s += len(self.workers)
        run.wanted.append(wanted)
        run.here.append(len(ready))
        run.needed.append(asked / WORKER_RATE)

    def _lose(self, now: float) -> None:
        """Some workers are taken away; the engine starts others for them at once."""
        ready = self.ready(now)
        for worker in self._rng.sample(ready, math.ceil(self._load.lost * len(ready))):
            self.workers[self.workers.index(worker)] = self._place(now)

    def _resize(self, now: float, replicas: int) -> None:
        self.workers += [self._place(now) for _ in range(replicas - len(self.workers))]
        surplus = len(self.workers) - replicas
        for worker in sorted(self.workers, key=lambda each: -each.ready_at)[: max(0, surplus)]:
            self.workers.remove(worker)


def _needed(load: Load, second: int) -> int:
    return min(max(math.ceil(load.ranks(second) * RANK_RATE / WORKER_RATE), LEAST), MOST)


def _coordinator(policy: str) -> Decide:
    scaling = Scaling({GROUP: Bounds(LEAST, MOST, LEAST, automatic=True)}, Rules(policy=policy))
    taken_before: dict[str, float] = {}

    def decide(now: float, world: _World) -> int:
        if now >= scaling.due_at:
            ready = world.ready(now)
            gifts = [
                WorkerGift(w.id, "cpu", w.told, _recent(w.samples, taken_before, w.id), w.ready_at)
                for w in ready
            ]
            students = [
                StudentNeed(
                    hunger=rank.hunger.value,
                    starved=rank.hunger.starved or 0.0,
                    taken=world.share * RANK_RATE,
                    lacking=1,
                    buffered=0 if world.share < 1 else 8,
                    low=2,
                    high=8,
                )
                for rank in world.ranks
            ]
            scaling.decide({GROUP: GroupLoad(gifts, 0, students)}, now)
        standing = scaling[GROUP]
        assert standing is not None and standing.wanted is not None
        return standing.wanted

    return decide


def _recent(samples: float, before: dict[str, float], name: str) -> float:
    """Samples a second since the last decision."""
    given = (samples - before.get(name, samples)) / Rules().decide_every_s
    before[name] = samples
    return given


def simulate(load: Load, engine: Engine, who: str, seed: int = 1) -> Run:
    """Let two hours pass.

    Args:
        who: decides: ``demand`` or ``watermark`` (the coordinator's policies), ``oracle``, ``prescient`` (an
            oracle that orders as long ahead as a start takes), ``least`` or ``most`` (a fixed fleet).
    """
    law = engine.law(LEAST, MOST, seed)
    ahead = int(engine.start_s)
    fixed: dict[str, Decide] = {
        "least": lambda now, world: LEAST,
        "most": lambda now, world: MOST,
        "oracle": lambda now, world: _needed(load, int(now)),
        "prescient": lambda now, world: max(
            _needed(load, min(int(now) + each, LENGTH_S - 1)) for each in {0, ahead // 2, ahead}
        ),
    }
    decide = fixed.get(who) or _coordinator(who)
    first = MOST if who == "most" else LEAST
    return _World(load, law, decide, first, seed).live()


def measure_autoscale(settings: Settings) -> Result:
    """All loads under all engines; nothing of it depends on this machine."""
    figures = []
    for engine in ENGINES:
        runs = {
            who: [simulate(load, engine, who) for load in LOADS]
            for who in ("demand", "oracle", "most", "least")
        }
        ours = [run.efficiency for run in runs["demand"]]
        oracle = [run.efficiency for run in runs["oracle"]]
        hours = [run.worker_s / 3600 for run in runs["demand"]]
        figures += [
            Figure(
                f"{engine.name}: efficiency of the students, mean of {len(LOADS)} loads",
                fmean(ours),
                "",
                fmean(oracle),
                "the oracle",
                Budget(at_least=0.9),
                {"value": ours, "limit": oracle},
            ),
            Figure(
                f"{engine.name}: worker hours",
                sum(hours),
                "h",
                sum(run.worker_s / 3600 for run in runs["oracle"]),
                "the oracle",
                Budget(at_most=1.15),
                {"value": hours, "limit": [run.worker_s / 3600 for run in runs["oracle"]]},
            ),
        ]
    return Result(figures)


def main(folder: Path) -> None:
    """Print the table of all loads, and draw a picture into a folder."""
    who = ("demand", "watermark", "oracle", "prescient", "most", "least")
    print(f"| engine | load | {' | '.join(who)} | changes of demand's number |")
    print("|---" * (len(who) + 3) + "|")
    for engine in ENGINES:
        for load in LOADS:
            runs = {each: simulate(load, engine, each) for each in who}
            cells = [f"{run.efficiency:.2f}, {run.worker_s / 3600:.1f} h" for run in runs.values()]
            print(
                f"| {engine.name} | {load.name} | {' | '.join(cells)} | {runs['demand'].changes} |",
                flush=True,
            )
    folder.mkdir(parents=True, exist_ok=True)
    draw(folder / "autoscale.png")


def draw(picture: Path) -> None:
    """What was needed, wanted and here, minute by minute."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [load for load in LOADS if load.name in ("steps", "waves", "bursts", "spot losses")]
    engines = (ENGINES[0], ENGINES[2], ENGINES[3])
    figure, axes = pyplot.subplots(
        len(shown), len(engines), figsize=(13, 9), layout="constrained", sharex=True, sharey="row"
    )
    minutes = [second / 60 for second in range(LENGTH_S)]
    for row, load in zip(axes, shown, strict=True):
        for axis, engine in zip(row, engines, strict=True):
            run = simulate(load, engine, "demand")
            axis.plot(minutes, run.needed, color="tab:gray", label="needed")
            axis.plot(minutes, run.wanted, color="tab:blue", linewidth=1.2, label="wanted")
            axis.fill_between(minutes, run.here, color="tab:green", alpha=0.3, linewidth=0, label="labelling")
            axis.set_title(f"{load.name}: {engine.name} ({run.efficiency:.0%})", fontsize=9)
            axis.grid(alpha=0.3)
        row[0].set_ylabel("workers")
        row[0].set_ylim(bottom=0)
    for axis in axes[-1]:
        axis.set_xlabel("minutes")
    axes[0][0].legend(loc="upper left", fontsize=8)
    figure.savefig(picture, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/bench"))
