"""A student rank's process: the real service, delivery, queue, sampler and reading ahead; the loop is played.

The training loop of a ``DistillLoader`` waits in ``next()``, which a simulation cannot; so the rank's loop
here does what that one does between two waits, with the same objects in the same order. So it is with a loop
that makes its batches itself, and asks for their labels: what it makes is what the sampler lists.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edldist.agreement import AgreementBounds
from edldist.environment import DegradeEntry
from edldist.errors import EdlDistError, PoisonTaskError
from edldist.lifecycle.group_change import GroupChanged
from edldist.sampling.sampler import ElasticSampler
from edldist.student.batch.batch import OpenBatch
from edldist.student.loop.reading import ReadAhead
from edldist.student.loop.under_way import Request, UnderWay
from edldist.student.queue.flow import Flow
from edldist.student.queue.minds import Turn
from edldist.student.queue.outcomes import Returned
from edldist.student.service.kept.store_use import StoreUse
from edldist.student.service.options import ServiceOptions
from edldist.student.service.peers import ConnectedWorker
from edldist.student.service.service import StudentService
from edldist.student.teachers.fallback import Fallback
from edldist.wire.messages import Scalar, Shed
from tests.simulation.coordinator import coordinator_place
from tests.simulation.labels import label_faults, route_of
from tests.simulation.process import Actor, Process
from tests.simulation.sequences import INPUTS, padded
from tests.simulation.worker import WorkerProcess, labels_of

if TYPE_CHECKING:
    from tests.simulation.training import Training
    from tests.simulation.world import World

__all__ = ["RankProcess"]

_EPOCHS = 1_000_000
_SMALLER = DegradeEntry(codec="dense:fp32")
"""The same values as in the workers' own codec, under another name."""
_FAILURES_IN_A_ROW = 4
_FORGETS = 0.1
"""So often a loop that waits for a request forgets it, and asks once more."""


class _Samples:
    """A data loader over numbered samples, or sequences."""

    def __init__(self, sampler: ElasticSampler, sequences: bool) -> None:
        self.batch_sampler = sampler
        self._sequences = sequences

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for indices in self.batch_sampler:
            yield {"id": torch.tensor(indices)} | (padded(indices) if self._sequences else {})


class RankProcess(Process):
    """One rank of one generation of the group.

    Attributes:
        at_barrier: it has a batch, and waits for the step of all ranks.
        starved_s: for how long its loop has waited for labels.
    """

    def __init__(
        self, world: World, training: Training, name: str, rank: int, world_size: int, group: str
    ) -> None:
        super().__init__(world, name)
        setup = world.setup
        self.training = training
        self.rank = rank
        self.at_barrier = False
        self.group = group
        self.sampler = ElasticSampler(
            setup.samples, setup.global_batch, seed=world.seed, rank=rank, world_size=world_size
        )
        self.ahead = ReadAhead(
            _Samples(self.sampler, setup.sequences),
            INPUTS if setup.sequences else "id",
            _EPOCHS,
            teachers=setup.teachers,
            route=route_of(setup),
        )
        self._last_here: dict[str, float] = dict.fromkeys(setup.teachers, world.schedule.now)
        self._loop: Actor | None = None
        bounds = None
        if setup.compare_every_s is not None:
            bounds = AgreementBounds(every_s=setup.compare_every_s)
        self.service = StudentService(
            ServiceOptions(
                student=name,
                teachers=setup.teachers,
                coordinator=coordinator_place(world),
                bind=f"tcp://{name}:0",
                advertise=None,
                flow=Flow(
                    *((setup.low_watermark, setup.high_watermark) if setup.staleness is None else (0, 1)),
                    max_bytes=setup.max_bytes,
                    task_size=setup.task_size,
                    fixed=setup.fixed,
                    first_deadline_s=setup.first_deadline_s,
                    min_deadline_s=setup.min_deadline_s,
                ),
                heartbeat_ttl_s=setup.ttl_s,
                hedge_after_s=setup.hedge_after_s,
                connect_timeout_s=setup.connect_timeout_s,
                max_frame_bytes=setup.max_frame_bytes,
                group=group,
                versions={} if setup.versions is None else dict.fromkeys(setup.teachers, setup.versions),
                skip_after_s={} if setup.skip_after_s is None else {setup.teachers[-1]: setup.skip_after_s},
                agreement=bounds,
                skip_poison=setup.skip_poison,
                hand_on=setup.staleness is not None,
                job=setup.job or (f"job{rank}" if setup.several_jobs else ""),
                weight=1 + 7 * rank % 20 if setup.several_jobs else setup.weight,
                priority=rank % 2 if setup.several_jobs else setup.priority,
                fallback=Fallback(setup.teachers[0], [_SMALLER]) if setup.smaller else None,
                store=None if world.store is None else StoreUse(world.store),
                info={"rank": rank},
            ),
            self.transport,
            self.clock,
            process=name,
            host=name,
            pid=1,
            first_lease=self.chance.randrange(1, 1 << 48),
            on_group_change=self._changed,
        )
        self.starved_s = 0.0
        self._starves_since: float | None = None
        self._batches = self._samples = 0
        if setup.job:
            self.service.extra_stats = self._figures
        self.way: UnderWay | None = None
        if setup.staleness is not None:
            self.way = UnderWay(self.service.delivery, self.service.offer, setup.staleness, counted=False)
        # What the loop has asked for, oldest first, and where it stands in what it makes.
        self._asked: deque[tuple[Request, OpenBatch, Any]] = deque()
        self.reader = Actor(self, f"{name} io", self._io_turn, reads=True)
        self._loop = Actor(self, f"{name} loop", self._loop_turn)
        self._watch_quarantine()
        self._watch_missing()
        self._watch_outliers()
        if setup.shed_every_s is not None:
            self._shed(setup.shed_every_s)

    def _shed(self, every_s: float) -> None:
        """Be told that the fleet is overloaded, as a coordinator may say at any time; it lapses by itself."""
        if not self.alive or self.training.finished:
            return
        step = self.chance.randrange(5)
        degrade, waits = int(step >= 3), "others take all" if step == 4 else ""
        shed = Shed(step=step, retry_after_s=0.5 * every_s, degrade=degrade, waits=waits)
        self.service._job.shedding.take(shed, self.clock.monotonic())
        self.world.schedule.after(every_s, lambda: self._shed(every_s))

    def _watch_outliers(self) -> None:
        """A worker that answers rightly is put aside only where the measure of its group is wrong."""
        comparing = self.service._comparing
        put_aside = comparing._put_aside

        def on_put_aside(peer: ConnectedWorker, turn: Turn) -> None:
            worker = self.world.worker_of(peer.name, peer.process)
            (measure, *_) = comparing._minds[comparing._kind(peer)]._by_weight() or [None]
            fails = "fails on samples" in turn.reason
            excused = worker.was_sick or self.world.ever_poison if fails else worker.wrongs
            if not excused and (measure is None or self._is_right(worker, measure.answer)):
                self.world.violate(f"{self.name} puts {worker.name} aside, which is well: {turn.reason}")
            put_aside(peer, turn)

        comparing._put_aside = on_put_aside  # type: ignore[method-assign]

    def _is_right(self, worker: WorkerProcess, answer: Any) -> bool:
        """Whether what a worker is measured by is what a well one answers."""
        if self.world.setup.sequences:
            return False  # which rows are asked for is not looked up here
        question = self.service._comparing._current[worker.teacher]
        ids = torch.frombuffer(bytearray(question._frames[0][0]), dtype=torch.int64)
        return torch.equal(answer["logits as values"], labels_of(ids, worker.teacher, worker.version))

    def has_put_aside(self, worker: WorkerProcess) -> bool:
        """Whether this rank has put a worker aside that is here."""
        return any(
            peer.aside and (peer.name, peer.process) == (worker.worker_id, worker.name)
            for peer in self.service._peers
        )

    def _watch_quarantine(self) -> None:
        """A worker is put into quarantine only for failures in a row, by a count of this rank's own."""
        delivery, events = self.service.delivery, self.service._events
        failures: dict[str, int] = {}
        fail, place, quarantined = delivery.fail, delivery.place, events.quarantined

        def on_fail(worker: str, lease: int, error: str, **how: bool) -> Returned | None:
            outcome = fail(worker, lease, error, **how)
            if outcome is not None:
                failures[_member(worker)] = failures.get(_member(worker), 0) + 1
            return outcome

        def on_place(worker: str, *rest: Any) -> list[tuple[int, str]]:
            refused = place(worker, *rest)
            if not refused:
                failures.pop(_member(worker), None)
            return refused

        def on_quarantine(worker: str, for_s: float, error: str) -> None:
            if failures.get(worker, 0) < _FAILURES_IN_A_ROW:
                count = failures.get(worker, 0)
                self.world.violate(f"{self.name} gives {worker} no work after {count} failures in a row")
            quarantined(worker, for_s, error)

        delivery.fail, delivery.place, events.quarantined = on_fail, on_place, on_quarantine  # type: ignore

    def _watch_missing(self) -> None:
        """A group is missed only after so long without a worker, by a clock of this rank's own."""
        delivery, miss = self.service.delivery, self.service.delivery.miss

        def on_miss(teachers: frozenset[str]) -> None:
            for teacher in teachers:
                gone_s = self.world.schedule.now - self._last_here[teacher]
                if gone_s < (self.world.setup.skip_after_s or math.inf) - 1e-6:
                    self.world.violate(f"{self.name} misses {teacher}, which was here {gone_s:.3f} s ago")
            miss(teachers)

        delivery.miss = on_miss  # type: ignore[method-assign]

    @property
    def reporter(self) -> Process:
        """The process that the coordinator hears of its group from."""
        return self

    def begin(self) -> None:
        """Start, where the position is."""
        self._start_reading()
        self.ring()
        self.go_on()

    def _start_reading(self) -> None:
        if not self.ahead.begin():
            self.ahead.drop()
            self.ahead.start()

    # --- the I/O thread ---------------------------------------------------------------------------

    def _io_turn(self, now: float) -> float:
        here = self.service._peers.teachers()
        due = self.service.turn(now)
        for teacher in here | self.service._peers.teachers():
            self._last_here[teacher] = self.world.schedule.now
        if not self.at_barrier and self.alive:
            delivery = self.service.delivery
            reads = self.way is None and delivery._queue.wants_batch()
            if delivery._queue.ready() or delivery._failure() or reads:
                self.go_on()
        return due

    def _changed(self, change: GroupChanged) -> None:
        self.world.note(f"{self.name} leaves: {change.reason}")
        self.training.ended(self, "it was told to regroup")

    # --- the training loop ------------------------------------------------------------------------

    def go_on(self) -> None:
        assert self._loop is not None
        self._loop.ring()

    def _loop_turn(self, now: float) -> float:
        """What ``DistillLoader`` does in ``next()``, up to where it waits."""
        if self.at_barrier:
            return math.inf
        delivery, ahead = self.service.delivery, self.ahead
        while True:
            ahead.fill(self._wants_batch, self.service.offer if self.way is None else self._ask)
            if not ahead.ended:
                break
            ahead.end()
            self._start_reading()
        if self.way is None:
            batch = delivery.deliver() if delivery.wait(0.0, reading=ahead.more) else None
        else:
            batch = self._answer(self.way)
        if batch is None or not self.alive:
            self._starves_since = now if self._starves_since is None else self._starves_since
            return now + 1.0
        self.starved_s += 0.0 if self._starves_since is None else now - self._starves_since
        self._starves_since = None
        self._batches, self._samples = self._batches + 1, self._samples + batch.samples
        ahead.take()
        self.at_barrier = True
        self.training.arrived(self, self._consumed(batch))
        return math.inf

    def _figures(self) -> dict[str, Scalar]:
        """What a loop counts, by which the coordinator knows what its job could take."""
        return {"batches": self._batches, "samples": self._samples, "starved_s": self.starved_s}

    def _wants_batch(self) -> bool:
        if self.way is None:
            return self.service.delivery.wants_batch()
        assert self.world.setup.staleness is not None
        return len(self.way) <= self.world.setup.staleness

    # --- of a loop that asks for the labels of what it makes ----------------------------------------

    def _ask(self, batch: OpenBatch) -> None:
        assert self.way is not None
        mark = batch.mark
        self._asked.append((self._requested(self.way, batch), batch, mark))

    @staticmethod
    def _requested(way: UnderWay, batch: OpenBatch) -> Request:
        def marked(request: Request) -> OpenBatch:
            batch.mark = request
            return batch

        return way.ask(marked)

    def _answer(self, way: UnderWay) -> OpenBatch | None:
        """The batch of the oldest request, if it is there."""
        self.service.delivery.wait(0.0, reading=False)
        request, batch, mark = self._asked[0]
        if not way.arrived(request):
            if self.chance.random() < _FORGETS:
                self._forget_from(way, self.chance.randrange(len(self._asked)))
            return None
        self._asked.popleft()
        batch, _ = way.take(request)
        batch.mark = mark
        if batch.failure is not None and not self.world.setup.skip_poison:
            if isinstance(batch.failure, PoisonTaskError):
                self.world.check_poison(self, batch.failure, batch.batch["id"].tolist())
            self.training.ended(self, f"no labels: {batch.failure}")
            return None
        return batch

    def _forget_from(self, way: UnderWay, place: int) -> None:
        """Forget the requests from a place on, and make them once more."""
        forgotten = [self._asked.pop() for _ in range(len(self._asked) - place)][::-1]
        for request, _, _ in forgotten:
            way.forget(request)
        for _, batch, mark in forgotten:
            again = OpenBatch(batch.batch, batch._inputs.tensors, batch.samples, apart=batch._apart)
            self._asked.append((self._requested(way, again), again, mark))

    def _consumed(self, batch: OpenBatch) -> tuple[list[int], bool]:
        """Check and count a batch; the samples of it that count, and whether they have labels."""
        where = (self.sampler.epoch, self.sampler.samples)
        part = batch.mark.part
        if part.start != self.sampler.part(self.sampler.samples).start:
            self.world.violate(f"{self.name} got the batch at {part.start} when the one at {where} was due")
        ids: list[int] = batch.batch["id"].tolist()
        self.ahead.position.consume(batch.mark, batch.samples)
        self.world.found += sum(lookup.found for lookup in batch.lookups.values())
        if batch.failure is None:
            for what in label_faults(self, batch, ids):
                self.world.violate(what)
        else:
            self.world.check_poison(self, batch.failure, ids)
        return ids[: part.local_samples], batch.failure is None

    def leave_loop(self) -> None:
        """Leave the loop and begin it again at the same place, as a restored script does."""
        self._forget()
        self.ahead.position.load_state_dict(self.ahead.position.state_dict())
        self._start_reading()
        self.go_on()

    def _forget(self) -> None:
        self.ahead.drop()
        if self.way is None:
            self.service.delivery.clear()
        else:
            self.way.clear()
            self._asked.clear()

    # --- the end ----------------------------------------------------------------------------------

    def leave(self) -> None:
        """End in order."""
        self._forget()
        self.service.close()
        self.alive = False

    def failed(self, actor: str, error: Exception) -> None:
        if isinstance(error, PoisonTaskError):
            ids = self._ids_of(error)
            self.world.check_poison(self, error, ids)
            self.training.ended(self, f"poison: {error}")
            return
        if not isinstance(error, EdlDistError):
            self.world.violate(f"{actor} raised {error!r}", error)
        self.training.ended(self, f"{actor}: {error}")

    def _ids_of(self, error: PoisonTaskError) -> list[int]:
        batch: Any = self.service.delivery._open.get(error.batch)
        ids = [] if batch is None else batch.batch["id"].tolist()
        return ids


def _member(key: str) -> str:
    """The worker of a queue's key, in which its process stands, too."""
    return key.partition("~")[0]
