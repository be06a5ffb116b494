"""A teacher worker's process: the real worker, service and pipeline; model and device are played."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edldist.errors import (
    CoordinatorUnreachableError,
    EdlDistError,
    IncompatibleError,
    ModelError,
    UnlabelableError,
)
from edldist.teacher.passes.forward import Computed
from edldist.teacher.passes.lane import Compute, Parts
from edldist.teacher.worker import TeacherWorker, WorkerOptions
from edldist.weights.followed import Version
from tests.simulation.coordinator import coordinator_place
from tests.simulation.process import Actor, Process
from tests.simulation.sequences import sample_of

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["WorkerProcess", "labels_of"]

_MOST_DEATHS = 30
"""Of one sample in one group: three prove it, but those that shared its passes are suspected too."""


def labels_of(ids: Tensor, teacher: str, version: Tensor | int = 0) -> Tensor:
    """The labels of samples, or tokens, float32 [n, 2]: of them, the teacher and its version alone."""
    salt = sum(teacher.encode()) + 1000 * version
    value = ids.to(torch.float32)
    return torch.stack([value, value * 3 + salt], dim=1)


class _Model:
    """What a worker serves: right labels, unless a fault says otherwise."""

    device = torch.device("cpu")
    tokenizer = ""
    tokens = None
    identity = path = "simulated:model"
    model = context = None

    def __init__(self, process: WorkerProcess, teacher: str) -> None:
        self._process = process
        self._teacher = teacher

    @property
    def digest(self) -> str:
        return f"weights {self._process.version} of {self._teacher}"

    def replace(self, weights: Mapping[str, Tensor]) -> None:
        """Go over to what was published."""
        if self._process.flying:
            self._process.world.violate(f"{self._process.name} takes newer weights in mid-pass")
        self._process.version = self._process.published

    def refuse_ids(self, inputs: Mapping[str, Tensor], where: object) -> None:
        """It has no vocabulary."""

    def explain(self, error: ModelError, inputs: Mapping[str, Tensor], where: object) -> None:
        """What it raises is said in its own words."""

    def __call__(self, inputs: Mapping[str, Tensor], *, fixed: bool = False) -> dict[str, Tensor]:
        process = self._process
        if process.world.setup.sequences:
            return self._of_tokens(inputs["tokens"])
        ids = inputs["id"]
        self._suffer(ids.tolist())
        return {"logits": self._err(labels_of(ids, self._teacher, process.version))}

    def _of_tokens(self, tokens: Tensor) -> dict[str, Tensor]:
        """Labels [B, S, 2] of tokens [B, S]."""
        self._suffer(sample_of(tokens))
        labels = labels_of(tokens.flatten(), self._teacher, self._process.version)
        return {"logits": self._err(labels).reshape(*tokens.shape, 2)}

    def takes(self, name: str) -> bool:
        return False

    def _suffer(self, ids: list[int]) -> None:
        process = self._process
        if process.sick:
            raise ModelError(f"{process.name} is sick")
        if process.world.deadly.keys() & set(ids):
            process.dies_of(ids)
        bad = process.world.poison.intersection(ids)
        if bad:
            kind = ModelError if min(bad) % 2 else UnlabelableError  # half of them say that nobody could
            raise kind(f"samples {sorted(bad)} are poison")

    def _err(self, labels: Tensor) -> Tensor:
        wrong = self._process.wrong
        return labels * math.nan if wrong == math.inf else labels + wrong


class _Published:
    """The newest version of a worker's teacher that was published, each once."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process

    def take(self) -> Version | None:
        process = self._process
        newest = process.world.published[process.teacher]
        if newest <= max(process.version, process.published):
            return None
        process.published = newest
        return Version(newest, {})

    def close(self) -> None:
        pass


class _Flight:
    """A pass that lands when its time has come."""

    def __init__(self, lane: _Lane, computed: Computed, lands_at: float, seconds: float) -> None:
        self._lane = lane
        self.computed = computed
        self._seconds = seconds
        self.lands_at = lands_at

    def done(self) -> bool:
        return self._lane.process.world.schedule.now >= self.lands_at

    def wait(self) -> None:
        raise AssertionError("a turn must not wait")

    def labels(self) -> tuple[dict[str, Tensor], bool, float]:
        suspect = self.computed.finite is not None and not bool(self.computed.finite)
        return self.computed.packed, suspect, self._seconds


class _Lane:
    """A device whose passes take simulated time."""

    poll_s = 0.001

    def __init__(self, process: WorkerProcess, depth: int) -> None:
        self.process = process
        self.depth = depth
        self._free_at = 0.0
        self.flights: list[_Flight] = []

    def launch(self, parts: Parts, compute: Compute) -> _Flight:
        process = self.process
        inputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        computed = compute(inputs)
        now = process.world.schedule.now
        seconds = process.pass_s * process.slowness * process.chance.uniform(0.8, 1.2)
        self._free_at = max(now, self._free_at) + seconds
        flight = _Flight(self, computed, math.inf if process.hung else self._free_at, seconds)
        self.flights = [other for other in self.flights if not other.done()]
        self.flights.append(flight)
        process.lands(flight.lands_at)
        return flight

    def recover(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def go_on(self) -> None:
        """What hung lands now."""
        now = self.process.world.schedule.now
        self._free_at = now
        for flight in self.flights:
            if flight.lands_at == math.inf:
                self._free_at = flight.lands_at = self._free_at + self.process.pass_s
                self.process.lands(flight.lands_at)


class WorkerProcess(Process):
    """A worker of one teacher.

    Attributes:
        sick, was_sick: its model raises, whatever it gets; or ever did.
        wrong: added to all of its labels, no two workers' alike; infinite: they are NaN.
        wrongs: all that this ever was.
        hung: passes that it launches do not land.
        slowness: how many times as long its passes take.
        slowed: it was slow or hung, ever.
    """

    def __init__(self, world: World, name: str, teacher: str, life: int = 1) -> None:
        super().__init__(world, f"{name}.{life}")
        setup = world.setup
        self.worker_id = name
        self.life = life
        self.teacher = teacher
        self.version = 0 if setup.versions is None else world.versions[teacher]
        self.published = 0  # the version that it found last
        self.sick = self.was_sick = False
        self.wrong = 0.0
        self.wrongs: set[float] = set()
        self.hung = self.slowed = False
        self.slowness = 1.0
        self.pass_s = self.chance.uniform(*setup.pass_s)
        self.draining = False
        self._lane = _Lane(self, self.chance.choice((1, 1, 2)))
        self._compute: Actor | None = None
        self._model = _Model(self, teacher)
        self.worker = TeacherWorker(
            WorkerOptions(
                coordinator=coordinator_place(world),
                model="simulated:model",
                name=teacher,
                batch_size=setup.worker_batch,
                drain_s=5.0,
                connect_timeout_s=setup.connect_timeout_s,
                worker_id=name,
                version="" if setup.versions is None else str(self.version),
            ),
            self._model,  # type: ignore[arg-type]
            self.transport,
            self.clock,
            lane=self._lane,
            process=self.name,
            host=self.name,
            pid=1,
        )
        if setup.versions is not None:
            self.worker._following = (_Published(self), self._model)  # type: ignore[assignment]
        self.reader = Actor(self, f"{name} io", self._io_turn, reads=True)
        self._compute = Actor(self, f"{name} compute", self._compute_turn)
        self.ring()
        self._compute.ring()

    @property
    def flying(self) -> bool:
        """Whether a pass is under way."""
        return bool(self.worker._pipeline._passes)

    def look(self) -> None:
        """Weights were published: find them in some time."""
        if self._compute is not None:
            self._compute.ring()

    def _io_turn(self, now: float) -> float:
        service = self.worker.service
        waiting = service._ledger.waiting
        due = service.turn(now)
        if service._ledger.waiting != waiting:
            assert self._compute is not None
            self._compute.ring()
        return due

    def _compute_turn(self, now: float) -> float:
        if self.worker.finished:
            self.leave("it was asked to leave")
            return math.inf
        due = self.worker.turn(now)
        # A pass that is under way rings when it lands; production's short polls would only cost time here.
        return max(due, now + 0.25)

    def lands(self, when: float) -> None:
        """Look at a pass when it lands."""
        if when < math.inf and self._compute is not None:
            compute = self._compute
            self.world.schedule.at(when, lambda: compute.want(self.world.schedule.now + self.lag_s()))

    def dies_of(self, ids: list[int]) -> None:
        """Some of these samples kill whoever labels them, at once."""
        world = self.world
        self.hung = True  # what it was about to launch never lands
        for sample in world.deadly.keys() & set(ids):
            world.deadly[sample] += 1
            if world.deadly[sample] > _MOST_DEATHS:
                world.violate(f"sample {sample} has killed {world.deadly[sample]} workers, and goes on")

        def die() -> None:
            if self.alive:
                world.note(f"{self.name} dies of its samples {ids}")
                self.kill()
                world.worker_left(self)
                world.start_worker_later(self.teacher, 0.2)

        world.schedule.after(0.0, die)

    def err(self, wrong: float) -> None:
        """From now on its labels are wrong by so much."""
        self.wrong = wrong
        self.wrongs.add(wrong)
        self.was_sick |= wrong == math.inf

    def unhang(self) -> None:
        self.hung = False
        self._lane.go_on()

    def drain(self) -> None:
        self.draining = True
        self.worker.drain()
        assert self._compute is not None
        self._compute.ring()

    def leave(self, reason: str) -> None:
        """End in order."""
        self.worker.close(reason)
        self.alive = False
        self.world.worker_left(self)

    def failed(self, actor: str, error: Exception) -> None:
        self.alive = False
        self.world.network.kill(self.name)
        if isinstance(error, CoordinatorUnreachableError):
            self.world.note(f"{self.name} gave up: {error}")
        elif isinstance(error, IncompatibleError) and self.world.setup.versions is not None:
            # No student is known that takes several versions: it is started again, as launchers do.
            self.world.note(f"{self.name} was refused: {error}")
            self.world.start_worker_later(self.teacher, 0.5)
        elif not isinstance(error, EdlDistError):
            self.world.violate(f"worker {self.name} raised {error!r}", error)
        else:
            self.world.violate(f"worker {self.name} was ended by {error}", error)
        self.world.worker_left(self)
