"""One simulated job: its processes, its network, what goes wrong, and what must hold all the same."""

from __future__ import annotations

import random
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edldist.errors import PoisonTaskError
from edldist.store.label_store import LabelStore
from edldist.wire.simulated.endpoints import SimulatedLink
from edldist.wire.simulated.network import Network
from tests.simulation.checkpoints import Checkpoints
from tests.simulation.checks import rank_faults, rest_faults, stuck_pulls, worker_faults
from tests.simulation.coordinator import CoordinatorProcess
from tests.simulation.faults import Fault, plan
from tests.simulation.live import LiveTraining
from tests.simulation.process import Process
from tests.simulation.rank import RankProcess
from tests.simulation.schedule import Schedule
from tests.simulation.setup import Setup
from tests.simulation.telling import told
from tests.simulation.training import Training
from tests.simulation.worker import WorkerProcess

__all__ = ["Outcome", "World"]

_STEPS_AFTER = 4
_MOST_VIOLATIONS = 3
_LEAST_PEACE_S = 8.0
_PULL_S = 4.0
_PEACEFUL_STEP_S = 0.5  # steps in peace show little, and took half of all the time


class _Stop(Exception):
    """Enough is known."""


@dataclass
class Outcome:
    """What became of a seed.

    Attributes:
        fired: faults that hit somebody.
        digest: of everything that happened, in its order.
    """

    seed: int
    fired: int = 0
    violations: list[str] = field(default_factory=list)
    digest: int = 0
    simulated_s: float = 0.0
    turns: int = 0
    training_steps: int = 0


class World:
    """Runs one seed.

    Args:
        seed: chooses the job, its faults, and every delay and order.
        only: numbers of the faults that happen; None: all of the seed's plan.
        tell: called with every line of the story, or None.
        setup, faults: instead of those that the seed draws.
    """

    def __init__(
        self,
        seed: int,
        only: Sequence[int] | None = None,
        tell: Callable[[str], None] | None = None,
        setup: Setup | None = None,
        faults: Sequence[Fault] | None = None,
    ) -> None:
        self.seed = seed
        self._tell = tell
        self.outcome = Outcome(seed)
        drawing = random.Random(f"{seed}/setup")
        self.setup = setup or Setup.draw(drawing)
        planned = plan(drawing, self.setup.faults, self.setup.fault_every_s) if faults is None else faults
        self.step_s = self.setup.step_s
        self.faults = [fault for fault in planned if only is None or fault.number in only]
        self.struck: list[Fault] = []
        self.schedule = Schedule(random.Random(f"{seed}/schedule"))
        self.network = Network(self.schedule, f"{seed}/network")
        self.network.max_frame_bytes = self.setup.max_frame_bytes
        if tell is not None:
            self.network.watch = lambda host, peer, message: self.note(f"{host} <- {peer}: {told(message)}")
        self.workers: dict[str, WorkerProcess] = {}
        self.poison: set[int] = set()
        self.ever_poison: set[int] = set()
        self.deadly: dict[int, int] = {}
        """Samples that kill workers, and how many each has killed since a loop began."""
        self.coordinator: CoordinatorProcess | None = None
        self.coordinator_address = ""
        self.checkpoints = Checkpoints(self)
        kind = LiveTraining if self.setup.live else Training
        self.training: Training = kind(self, self.setup.nodes)
        self.outliers = 0
        self._lives = 0
        self._names = 0
        self._all: list[WorkerProcess] = []
        self._groups: list[RankProcess] = []
        self.versions = dict.fromkeys(self.setup.teachers, 1)  # the newest of each teacher
        self.published = dict.fromkeys(self.setup.teachers, 0)  # the newest whose weights were published
        self.barred: dict[str, float] = {}  # until when no worker of a teacher starts
        self._strangers = 0
        self.store = LabelStore(None) if self.setup.store else None
        self.found = 0  # samples of which labels were in the store, or equal ones under way
        self.missed = 0  # batches that went on without the labels of a teacher

    # --- telling ----------------------------------------------------------------------------------

    def note(self, line: str) -> None:
        """A line of the story, for those who read it."""
        if self._tell is not None:
            self._tell(f"{self.schedule.now:9.4f}  {line}")

    def acts(self, process: Process, actor: str) -> None:
        """Somebody has a turn."""
        outcome = self.outcome
        outcome.turns += 1
        outcome.digest = zlib.crc32(f"{self.schedule.now!r}{actor}".encode(), outcome.digest)

    def acted(self, process: Process) -> None:
        """Somebody had a turn: what must hold always is looked at."""
        wrong: list[str] = []
        if self.network.refused_frames:
            self.network.refused_frames = 0
            self.violate(f"{process.name} sent a frame of more than {self.setup.max_frame_bytes} bytes")
        if isinstance(process, RankProcess):
            wrong = list(rank_faults(process))
        elif isinstance(process, WorkerProcess):
            wrong = list(worker_faults(process))
        elif isinstance(process, CoordinatorProcess):
            process.server._members.validate()
            process.server._scaling.validate()
        for what in wrong:
            self.violate(what)

    def violate(self, what: str, error: BaseException | None = None) -> None:
        """Something that must never be."""
        if error is not None:
            what += "\n" + "".join(traceback.format_exception(error))
        self.note(f"VIOLATION: {what}")
        self.outcome.violations.append(f"at {self.schedule.now:.4f} s: {what}")
        if len(self.outcome.violations) >= _MOST_VIOLATIONS:
            raise _Stop

    # --- processes --------------------------------------------------------------------------------

    @property
    def trainings(self) -> Sequence[Training]:
        """Of all jobs that share the workers: of one."""
        return (self.training,)

    @property
    def ranks(self) -> list[RankProcess]:
        """All that are there."""
        return [rank for training in self.trainings for rank in training.ranks if rank.alive]

    @property
    def finished(self) -> bool:
        """Whether all jobs are done."""
        return all(training.finished for training in self.trainings)

    def checkpoints_of(self, number: int) -> Checkpoints:
        """Those of a job, by any number."""
        return self.trainings[number % len(self.trainings)].world.checkpoints

    def processes(self) -> list[Process]:
        """Everybody who is there."""
        here: list[Process] = [*self.workers.values(), *self.ranks]
        return [*here, self.coordinator] if self.coordinator is not None else here

    def start_worker(self, teacher: str, former: WorkerProcess | None = None) -> WorkerProcess:
        """Start a worker, under the name of a former one or a fresh name."""
        if former is not None and former.worker_id not in self.workers:
            worker = WorkerProcess(self, former.worker_id, teacher, former.life + 1)
        else:
            self._names += 1
            worker = WorkerProcess(self, f"{teacher}{self._names}", teacher)
        self.workers[worker.worker_id] = worker
        self._all.append(worker)
        return worker

    def start_worker_later(self, teacher: str, seconds: float, former: WorkerProcess | None = None) -> None:
        self.schedule.after(seconds, lambda: None if self.finished else self._start(teacher, former))

    def _start(self, teacher: str, former: WorkerProcess | None) -> None:
        if self.barred.get(teacher, 0.0) > self.schedule.now:
            self.start_worker_later(teacher, self.barred[teacher] - self.schedule.now, former)
            return
        self.note(f"{self.start_worker(teacher, former).name} starts")

    def worker_of(self, name: str, process: str) -> WorkerProcess:
        """A worker that is, or was, here."""
        return next(w for w in self._all if (w.worker_id, w.name) == (name, process))

    def outlier(self, wrong: float) -> WorkerProcess | None:
        """The worker whose labels are, or were, wrong by so much."""
        return next((worker for worker in self._all if wrong in worker.wrongs), None)

    def worker_left(self, worker: WorkerProcess) -> None:
        if self.workers.get(worker.worker_id) is worker:
            del self.workers[worker.worker_id]

    def start_coordinator(self) -> None:
        if self.coordinator is None:
            self._lives += 1
            self.coordinator = CoordinatorProcess(self, self._lives)
            self.note(f"coordinator, life {self._lives}, starts")

    def kill_coordinator(self) -> None:
        if self.coordinator is not None:
            self.coordinator.kill()
            self.coordinator = None

    def stranger(self, address: str) -> SimulatedLink:
        """A connection of somebody who has no business here."""
        self._strangers += 1
        poller = self.network.transport("stranger", lambda: None).poller()
        link = poller.connect(address, f"stranger{self._strangers}")
        self.schedule.after(1.0, poller.close)
        return link

    # --- what the loop gets -----------------------------------------------------------------------

    def check_poison(self, rank: RankProcess, error: PoisonTaskError, ids: list[int]) -> None:
        """A task is given up only for what was really wrong with it, or with those who held it."""
        samples = [ids[place] for place in error.samples] if ids else []
        for attempt in error.attempts:
            if "are poison" in attempt:
                if not self.ever_poison.intersection(samples or self.ever_poison):
                    self.violate(f"{rank.name} gave {samples} up as poison, which they never were: {error}")
            elif "is sick" in attempt or "finite" in attempt or "nan" in attempt:
                if not any(worker.was_sick for worker in self._all):
                    self.violate(f"{rank.name} gave {samples} up, but nobody was ever sick: {error}")
            elif "was lost while it held" in attempt:
                if not any(w.hurt or w.slowed for w in self._all) and not rank.hurt:
                    self.violate(f"{rank.name} gave {samples} up, but nobody was ever lost: {error}")
            else:  # such as a worker that lives and takes long
                self.violate(f"{rank.name} gave {samples} up for no reason that counts: {error}")
        self.poison.difference_update(samples or self.poison)  # somebody mends the data
        for sample in samples or list(self.deadly):
            self.deadly.pop(sample, None)

    # --- a run ------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """The whole story: faults, then peace, then the end, then silence."""
        outcome = self.outcome
        try:
            self.begin()
            last = self.faults[-1].at if self.faults else 1.0
            self.until(last + 0.001, lambda: False)
            self._heal()
            self._finish()
            self._rest()
        except _Stop:
            pass
        except Exception as error:
            outcome.violations.append(f"at {self.schedule.now:.4f} s: {traceback.format_exc()}")
            self.note(f"VIOLATION: {error!r}")
        finally:
            for number in range(len(self.trainings)):
                self.checkpoints_of(number).close()
        outcome.simulated_s = self.schedule.now
        outcome.training_steps = sum(training.steps_computed for training in self.trainings)
        return outcome

    def begin(self) -> None:
        self.start_coordinator()
        for teacher in self.setup.teachers:
            for _ in range(self.setup.workers):
                self.start_worker(teacher)
        for training in self.trainings:
            training.form()
        for fault in self.faults:
            self.schedule.at(fault.at, lambda fault=fault: self._strike(fault))

    def _strike(self, fault: Fault) -> None:
        what = fault.strike(self)
        if what is not None:
            self.outcome.fired += 1
            self.struck.append(fault)
            self.note(f"FAULT {fault.number}: {what}")

    def until(self, when: float, done: Callable[[], bool]) -> bool:
        """Let things happen up to a time; whether what is waited for came true before."""
        schedule = self.schedule
        while schedule.now < when:
            if done():
                return True
            if not schedule.step():
                break
        return done()

    def forget_deaths(self) -> None:
        """A queue that had counted whom a sample killed is gone: a new one finds out by itself."""
        self.deadly = dict.fromkeys(self.deadly, 0)

    def _heal(self) -> None:
        """From now on nothing goes wrong any more."""
        self.note("peace: everything is mended")
        self.network.heal()
        self.network.slow_share, self.network.slow_s = 0.02, 0.05
        self.poison.clear()
        self.barred.clear()
        self.deadly.clear()
        self.step_s = max(self.step_s, _PEACEFUL_STEP_S)
        for number in range(len(self.trainings)):
            self.checkpoints_of(number).heal()
        for process in self.processes():
            process.lag_most_s = 0.003
            process.thaw()
        for worker in self.workers.values():
            worker.sick = False
            worker.wrong = 0.0
            worker.slowness = 1.0
            if worker.hung:
                worker.unhang()
        self.start_coordinator()
        for teacher in self.setup.teachers:
            newest = [w for w in self.workers.values() if w.teacher == teacher and not w.draining]
            newest = [worker for worker in newest if worker.version == self.versions[teacher]]
            # Two that agree show that whoever came before was wrong.
            wanted = 1 if self.setup.compare_every_s is None else 2
            for _ in range(wanted - len(newest)):
                self.start_worker(teacher)

    def _finish(self) -> None:
        """All jobs end within a bound of simulated time after the last fault."""
        setup = self.setup
        steps = _STEPS_AFTER + setup.checkpoint_every  # a group that breaks now begins at its checkpoint
        samples = sum(training.world.setup.global_batch for training in self.trainings)
        labelling_s = setup.pass_s[1] * 2 * samples * len(setup.teachers)
        bound_s = (
            60.0 + setup.first_deadline_s + 10 * setup.ttl_s + 2 * steps * (self.step_s * 2 + labelling_s)
        )
        began = self.schedule.now
        for training in self.trainings:
            training.target = training.progress.steps + _STEPS_AFTER
            training.not_before = began + _LEAST_PEACE_S
        self.schedule.after(_LEAST_PEACE_S - _PULL_S - 0.5, lambda: self._look_at_pulls(None))
        if not self.until(began + bound_s, lambda: self.finished):
            for training in self.trainings:
                where = [
                    (rank.name, rank.at_barrier, rank.service.delivery.stats(), rank.service.teachers())
                    for rank in training.ranks
                ]
                self.violate(
                    f"the job {training.world.setup.job} has not ended {bound_s:.0f} s after the last fault: "
                    f"{training.progress}, aims at step {training.target}, {where}"
                )

    def _look_at_pulls(self, before: set[tuple[str, str, int]] | None) -> None:
        """In peace every pull is answered soon, and who sleeps is known to sleep."""
        now = set(stuck_pulls(self.ranks, list(self.workers.values())))
        if before is None:
            self.schedule.after(_PULL_S, lambda: self._look_at_pulls(now))
            return
        for worker, rank, pull in sorted(before & now):
            what = f"pull {pull} of {worker}" if pull else f"{worker}, asleep,"
            self.violate(f"{what} has waited {_PULL_S:g} s for {rank}, which thinks otherwise")

    def _rest(self) -> None:
        """When the ranks have left nothing of them is left, and the workers leave in order."""
        if not self.finished:
            return
        # Links are repeated every five times to live, and a student that never answered is given 3 s.
        self.until(self.schedule.now + 6 * self.setup.ttl_s + 5.0, lambda: False)
        for what in rest_faults([], list(self.workers.values())):
            self.violate(what)
        for worker in list(self.workers.values()):
            worker.drain()
        if not self.until(self.schedule.now + 10.0, lambda: not self.workers):
            self.violate(f"{list(self.workers)} have not left 10 s after they were asked to")
        self.until(self.schedule.now + 3 * self.setup.ttl_s, lambda: False)
        if self.coordinator is not None and self.coordinator.server._members.members:
            self.violate(f"the coordinator still lists {list(self.coordinator.server._members.members)}")
