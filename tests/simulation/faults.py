"""What goes wrong, and when: a plan drawn from a seed, each entry of which can be left out by itself."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edldist.labels.fingerprint import Fingerprint
from edldist.labels.grammar import CodecSpec
from edldist.wire.messages import MAGIC, PROTOCOL, PROTOCOL_VERSION, Hello, Pull, encode
from tests.simulation.process import Process
from tests.simulation.rank import RankProcess
from tests.simulation.worker import WorkerProcess

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["KINDS", "Fault", "plan"]

_FOREIGN = Fingerprint(model="another:model", codec=CodecSpec("dense"))
_MOST_WORKERS = 6
_MOST_NODES = 3


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        number: its place in the plan of its seed, by which it is named.
        kind: a name of ``KINDS``.
        a, b: choose whom it hits, among those who are there when it is due.
        x: 0 <= x < 1, how hard or how long.
    """

    number: int
    at: float
    kind: str
    a: int
    b: int
    x: float

    def strike(self, world: World) -> str | None:
        """Let it happen; what it did, or None if there was nobody to hit."""
        return KINDS[self.kind](world, self)

    def __str__(self) -> str:
        return f"#{self.number} at {self.at:.3f} s: {self.kind}"


def plan(chance: random.Random, count: int, every_s: float) -> list[Fault]:
    """The faults of a seed. Each seed knows some kinds only, so that they meet more of the same."""
    kinds = [kind for kind in KINDS if chance.random() < 0.5] or ["kill_worker"]
    faults = []
    at = 0.5
    for number in range(count):
        at += chance.expovariate(1 / every_s)
        kind = chance.choice(kinds)
        faults.append(
            Fault(number, at, kind, chance.randrange(1 << 16), chance.randrange(1 << 16), chance.random())
        )
    return faults


# --- whom ---------------------------------------------------------------------------------------------


def _worker(world: World, a: int) -> WorkerProcess | None:
    workers = list(world.workers.values())
    return workers[a % len(workers)] if workers else None


def _rank(world: World, a: int) -> RankProcess | None:
    ranks = world.ranks
    return ranks[a % len(ranks)] if ranks else None


def _pair(world: World, fault: Fault) -> tuple[Process, Process] | None:
    """Two processes that talk to each other."""
    worker, rank, coordinator = _worker(world, fault.a), _rank(world, fault.b), world.coordinator
    reporter = None if rank is None else rank.reporter
    pairs = [(worker, rank), (worker, rank), (worker, coordinator), (reporter, coordinator)]
    one, other = pairs[(fault.a >> 4) % len(pairs)]
    return None if one is None or other is None else (one, other)


def _short_s(world: World, fault: Fault) -> float:
    """Mostly shorter than a time to live, sometimes longer."""
    return world.setup.ttl_s * 2.0 * fault.x**2 + 0.01


# --- workers ------------------------------------------------------------------------------------------


def _kill_worker(world: World, fault: Fault) -> str | None:
    worker = _worker(world, fault.a)
    if worker is None:
        return None
    worker.kill()
    world.worker_left(worker)
    same = fault.b % 3 == 0
    world.start_worker_later(worker.teacher, 0.05 + 2 * fault.x, worker if same else None)
    return f"{worker.name} is killed, and started anew under {'its' if same else 'another'} name"


def _vanish_worker(world: World, fault: Fault) -> str | None:
    """Its host is gone: nobody says that its connections have ended."""
    worker = _worker(world, fault.a)
    if worker is None:
        return None
    for process in world.processes():
        if process is not worker:
            world.network.block(worker.name, process.name)
            world.network.block(process.name, worker.name)
    worker.alive = False
    worker.hurt = True
    world.worker_left(worker)
    world.schedule.after(20.0, worker.kill)
    world.start_worker_later(worker.teacher, 0.05 + 2 * fault.x)
    return f"the host of {worker.name} vanishes"


def _lose_group(world: World, fault: Fault) -> str | None:
    """All workers of a teacher are killed at once, and for a while none of it can be had."""
    teacher = world.setup.teachers[-1]
    workers = [worker for worker in world.workers.values() if worker.teacher == teacher]
    if not workers:
        return None
    for worker in workers:
        worker.kill()
        world.worker_left(worker)
    seconds = 0.05 + 6 * fault.x**2
    world.barred[teacher] = world.schedule.now + seconds
    for _ in range(1 + fault.b % 3):
        world.start_worker_later(teacher, seconds)
    return f"all workers of {teacher} are killed, and none is to be had for {seconds:.3f} s"


def _new_version(world: World, fault: Fault) -> str | None:
    """A teacher is replaced: its next workers are of a newer version, and one of the old ones ends."""
    if world.setup.versions is None:
        return None
    teacher = world.setup.teachers[fault.b % len(world.setup.teachers)]
    world.versions[teacher] += 1
    old = [worker for worker in world.workers.values() if worker.teacher == teacher and not worker.draining]
    if old:
        worker = old[fault.a % len(old)]
        if fault.x < 0.5:
            worker.drain()
        else:
            worker.kill()
            world.worker_left(worker)
    world.start_worker_later(teacher, 0.05)
    return f"there is version {world.versions[teacher]} of {teacher}"


def _publish(world: World, fault: Fault) -> str | None:
    """Newer weights are published, which the workers of a teacher go over to, one after the other."""
    if world.setup.versions is None:
        return None
    teacher = world.setup.teachers[fault.b % len(world.setup.teachers)]
    world.versions[teacher] += 1
    world.published[teacher] = world.versions[teacher]
    for worker in world.workers.values():
        if worker.teacher == teacher:
            world.schedule.after(fault.x, worker.look)
    return f"version {world.versions[teacher]} of {teacher} is published"


def _freeze(world: World, process: Process | None, fault: Fault) -> str | None:
    if process is None or process.frozen:
        return None
    seconds = _short_s(world, fault)
    process.freeze()
    world.schedule.after(seconds, process.thaw)
    return f"{process.name} stands still for {seconds:.3f} s"


def _freeze_worker(world: World, fault: Fault) -> str | None:
    return _freeze(world, _worker(world, fault.a), fault)


def _slow_worker(world: World, fault: Fault) -> str | None:
    worker = _worker(world, fault.a)
    if worker is None:
        return None
    worker.slowness = 1 + 30 * fault.x
    worker.slowed = True
    seconds = 3 * fault.x

    def over() -> None:
        worker.slowness = 1.0

    world.schedule.after(seconds, over)
    return f"passes of {worker.name} take {worker.slowness:.1f} times as long, for {seconds:.3f} s"


def _hang_worker(world: World, fault: Fault) -> str | None:
    worker = _worker(world, fault.a)
    if worker is None or worker.hung:
        return None
    worker.hung = True
    worker.slowed = True
    seconds = 30 * fault.x**2
    world.schedule.after(seconds, worker.unhang)
    return f"the device of {worker.name} hangs for {seconds:.3f} s"


def _sicken_worker(world: World, fault: Fault) -> str | None:
    worker = _worker(world, fault.a)
    if worker is None or worker.sick:
        return None
    worker.sick = True
    worker.was_sick = True
    seconds = 0.1 + 4 * fault.x

    def well() -> None:
        worker.sick = False

    world.schedule.after(seconds, well)
    return f"the model of {worker.name} raises, for {seconds:.3f} s"


_WRONG = [sign * 1024.0 * 2**power for power in range(13) for sign in (1, -1)]
"""How much labels may be too large: added up exactly, and no two alike."""


def _wrong_by(world: World) -> float:
    world.outliers += 1
    return _WRONG[world.outliers - 1]


def _no_outliers(world: World) -> bool:
    return world.setup.compare_every_s is None or world.outliers >= len(_WRONG)


def _add_other_weights(world: World, fault: Fault) -> str | None:
    if _no_outliers(world) or len(world.workers) >= _MOST_WORKERS:
        return None
    teachers = world.setup.teachers
    worker = world.start_worker(teachers[fault.a % len(teachers)])
    worker.err(_wrong_by(world))
    return f"{worker.name} joins with other weights: its labels are {worker.wrong:g} too large"


def _drift_worker(world: World, fault: Fault) -> str | None:
    worker = _worker(world, fault.a)
    if _no_outliers(world) or worker is None or worker.wrong:
        return None
    worker.err(_wrong_by(world))
    return f"the weights of {worker.name} change: its labels are {worker.wrong:g} too large from now on"


def _nan_worker(world: World, fault: Fault) -> str | None:
    worker = _worker(world, fault.a)
    if _no_outliers(world) or worker is None or worker.wrong:
        return None
    worker.err(math.inf)
    return f"all that {worker.name} computes is NaN from now on"


def _add_worker(world: World, fault: Fault) -> str | None:
    if len(world.workers) >= _MOST_WORKERS:
        return None
    teachers = world.setup.teachers
    teacher = teachers[fault.a % len(teachers)]
    if world.barred.get(teacher, 0.0) > world.schedule.now:
        return None
    return f"{world.start_worker(teacher).name} joins"


def _drain_worker(world: World, fault: Fault) -> str | None:
    worker = _worker(world, fault.a)
    if worker is None or worker.draining:
        return None
    worker.drain()
    world.start_worker_later(worker.teacher, 0.05 + 3 * fault.x)
    return f"{worker.name} is asked to leave"


def _lag(world: World, fault: Fault) -> str | None:
    """A machine is busy: its threads are called late, and find much at once."""
    processes = world.processes()
    if not processes:
        return None
    process = processes[fault.a % len(processes)]
    process.lag_most_s = 0.5 * fault.x**2

    def over() -> None:
        process.lag_most_s = 0.003

    world.schedule.after(1.0, over)
    return f"{process.name} is called up to {process.lag_most_s:.3f} s late, for 1 s"


# --- the network --------------------------------------------------------------------------------------


def _partition(world: World, fault: Fault) -> str | None:
    pair = _pair(world, fault)
    if pair is None:
        return None
    one, other = pair
    ways = [[(one, other)], [(other, one)], [(one, other), (other, one)]][fault.b % 3]
    seconds = 2 * _short_s(world, fault)
    for source, sink in ways:
        world.network.block(source.name, sink.name)
        source.hurt = sink.hurt = True

    def over() -> None:
        for source, sink in ways:
            world.network.unblock(source.name, sink.name)

    world.schedule.after(seconds, over)
    told = " and ".join(f"{source.name} -> {sink.name}" for source, sink in ways)
    return f"nothing gets through {told} for {seconds:.3f} s"


def _break(world: World, fault: Fault) -> str | None:
    pair = _pair(world, fault)
    if pair is None:
        return None
    one, other = pair
    one.hurt = other.hurt = True
    if fault.b % 4:
        source, sink = (one, other) if fault.b % 4 == 1 else (other, one)
        world.network.break_at_next_message(source.name, sink.name)
        return f"the next message of {source.name} to {sink.name} is lost with its connection"
    lost = world.network.lost_messages
    if not world.network.break_connections(one.name, other.name):
        return None
    lost = world.network.lost_messages - lost
    return f"the connection of {one.name} and {other.name} breaks, and {lost} messages are lost"


def _slow_network(world: World, fault: Fault) -> str | None:
    network = world.network
    network.slow_share, network.slow_s = 0.3, 0.02 + world.setup.ttl_s * 0.4 * fault.x
    seconds = 2 * fault.x

    def over() -> None:
        network.slow_share, network.slow_s = 0.02, 0.05

    world.schedule.after(seconds, over)
    return f"a third of all messages takes up to {network.slow_s:.3f} s, for {seconds:.3f} s"


def _garbage(world: World, fault: Fault) -> str | None:
    """Somebody who speaks otherwise, or pretends to be a worker."""
    rank = _rank(world, fault.a)
    address = world.coordinator_address if rank is None or fault.b % 3 == 0 else rank.service.address
    link = world.stranger(address)
    raws: list[bytes] = [
        b"",
        b"GET / HTTP/1.1",
        PROTOCOL.preface + b"\xc1\xc1",
        MAGIC + bytes([PROTOCOL_VERSION + 1]) + b"later",
        encode(Pull(seq=fault.a, room=1 + fault.b)),
        encode(Hello(worker="stranger", teacher="nobody", fingerprint=_FOREIGN, process="stranger")),
    ]
    raw = raws[fault.b % len(raws)]
    link.send_raw([raw])
    return f"a stranger sends {raw[:20]!r} to {address}"


# --- the coordinator ----------------------------------------------------------------------------------


def _kill_coordinator(world: World, fault: Fault) -> str | None:
    if world.coordinator is None:
        return None
    world.kill_coordinator()
    seconds = 0.05 + 3 * world.setup.ttl_s * fault.x**2
    world.schedule.after(seconds, world.start_coordinator)
    return f"the coordinator is killed, and started anew in {seconds:.3f} s"


def _freeze_coordinator(world: World, fault: Fault) -> str | None:
    return _freeze(world, world.coordinator, fault)


# --- ranks --------------------------------------------------------------------------------------------


def _kill_rank(world: World, fault: Fault) -> str | None:
    rank = _rank(world, fault.a)
    if rank is None:
        return None
    rank.kill()
    rank.training.ended(rank, "killed")
    return f"{rank.name} is killed"


def _freeze_rank(world: World, fault: Fault) -> str | None:
    return _freeze(world, _rank(world, fault.a), fault)


def _lose_node(world: World, fault: Fault) -> str | None:
    rank = _rank(world, fault.a)
    if rank is None or (training := rank.training).nodes < 2:
        return None
    training.nodes -= 1
    rank.kill()
    training.ended(rank, "its node is lost")
    return f"the node of {rank.name} is lost"


def _join_node(world: World, fault: Fault) -> str | None:
    training = world.trainings[fault.b % len(world.trainings)]
    if training.nodes >= _MOST_NODES:
        return None
    training.nodes += 1
    training.ask_to_regroup()
    return "a node joins"


def _leave_loop(world: World, fault: Fault) -> str | None:
    rank = _rank(world, fault.a)
    if rank is None or rank.at_barrier or rank.frozen:
        return None
    rank.leave_loop()
    world.forget_deaths()
    return f"the loop of {rank.name} is left, and begun again"


# --- data and checkpoints -----------------------------------------------------------------------------


def _poison(world: World, fault: Fault) -> str | None:
    sample = fault.a % world.setup.samples
    if sample in world.poison or len(world.poison) > 3:
        return None
    world.poison.add(sample)
    world.ever_poison.add(sample)
    world.schedule.after(1 + 5 * fault.x, lambda: world.poison.discard(sample))
    return f"sample {sample} is poison"


def _deadly(world: World, fault: Fault) -> str | None:
    sample = fault.a % world.setup.samples
    if world.deadly:
        return None
    world.deadly[sample] = 0
    world.ever_poison.add(sample)
    return f"sample {sample} kills whoever labels it"


def _store_error(world: World, fault: Fault) -> str | None:
    planned = world.checkpoints_of(fault.b).fail_next(fault.a, crash=False)
    return "the next save meets an error of its disk" if planned else None


def _store_crash(world: World, fault: Fault) -> str | None:
    planned = world.checkpoints_of(fault.b).fail_next(fault.a, crash=True)
    return "the next save is cut off by the death of its rank" if planned else None


KINDS: dict[str, Callable[[World, Fault], str | None]] = {
    strike.__name__.removeprefix("_"): strike
    for strike in (
        *(_kill_worker, _vanish_worker, _freeze_worker, _slow_worker, _hang_worker, _sicken_worker),
        *(_add_worker, _drain_worker, _lag, _partition, _break, _slow_network, _garbage),
        *(_lose_group, _new_version, _publish, _add_other_weights, _drift_worker, _nan_worker),
        *(_kill_coordinator, _freeze_coordinator, _kill_rank, _freeze_rank, _lose_node, _join_node),
        *(_leave_loop, _poison, _deadly, _store_error, _store_crash),
    )
}
"""Every kind of fault by its name."""
