"""One scenario: commands to a simulated job, and what they make it do, in the manner of etcd's raft.

A file is a list of blocks: a command, ``----``, and the trace that it leaves, up to an empty line. Lines that
begin with ``#`` tell the story and stay. The commands are the methods of ``Scenario`` without underscore.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

from edldist.labels.fingerprint import Fingerprint
from edldist.labels.grammar import CodecSpec
from edldist.wire.messages import (
    Event,
    Failure,
    Goodbye,
    Hello,
    Labels,
    Message,
    Pull,
    Refused,
    Registered,
    Regroup,
    Return,
    Tasks,
    Unknown,
    Welcome,
)
from tests.simulation.process import Process
from tests.simulation.setup import Setup
from tests.simulation.worker import WorkerProcess
from tests.simulation.world import World

__all__ = ["Scenario", "played"]

_SETUP = dataclasses.replace(
    Setup.draw(random.Random(0)),
    **{"teachers": ("big",), "workers": 1, "nodes": 1, "samples": 12, "global_batch": 4, "worker_batch": 2},
    **{"low_watermark": 0, "high_watermark": 1, "max_bytes": 1 << 30, "max_frame_bytes": 1 << 30},
    **{"task_size": None, "fixed": False, "skip_poison": False, "hedge_after_s": 5.0, "ttl_s": 3.0},
    **{"first_deadline_s": 20.0, "min_deadline_s": 5.0, "max_students_per_worker": 16},
    **{"step_s": 0.2, "pass_s": (0.1, 0.1), "checkpoint_every": 2, "faults": 0, "fault_every_s": 1.0},
    coordinator_moves=False,
)


class Scenario:
    """A job under a story's hand."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._world: World | None = None
        self._leases: dict[int, str] = {}

    def play(self, command: str) -> str:
        """What a command leaves as its trace."""
        name, *words = command.split()
        self._lines = []
        getattr(self, name.replace("-", "_"))(*words)
        return "".join(f"{line}\n" for line in self._lines)

    def close(self) -> None:
        if self._world is not None:
            self._world.checkpoints.close()

    # --- the job ----------------------------------------------------------------------------------

    def job(self, *words: str) -> None:
        """Start a job: fields of ``Setup`` as ``name=value``."""
        changes = dict(word.split("=") for word in words)
        kinds = {field.name: type(getattr(_SETUP, field.name)) for field in dataclasses.fields(_SETUP)}
        values = {
            name: tuple(text.split(",")) if kinds[name] is tuple else kinds[name](eval(text))
            for name, text in changes.items()
        }
        self._world = World(0, tell=self._tell, setup=dataclasses.replace(_SETUP, **values), faults=[])
        self._world.network.slow_share = 0.0
        self._world.network.watch = self._heard
        self._world.begin()

    def run(self, seconds: str) -> None:
        """Let so many seconds pass."""
        self._now.until(self._now.schedule.now + float(seconds), lambda: False)

    def until_step(self, step: str) -> None:
        """Let time pass until a step was trained."""
        target = int(step)
        if not self._now.until(
            self._now.schedule.now + 60.0, lambda: self._now.training.progress.steps >= target
        ):
            self._lines.append("it never came")

    def stats(self, rank: str) -> None:
        """What a rank counts."""
        shown = ("done", "failed", "requeued", "duplicates", "hedged")
        process = next(r for r in self._now.training.ranks if r.name == rank)
        stats = process.service.stats()
        self._lines.append(", ".join(f"{name} {stats[name]}" for name in (*shown, "teachers")))

    # --- what goes wrong --------------------------------------------------------------------------

    def start_worker(self, teacher: str) -> None:
        self._lines.append(f"{self._now.start_worker(teacher).name} starts")

    def kill(self, name: str) -> None:
        process = self._process(name)
        if process is self._now.coordinator:
            self._now.kill_coordinator()
            return
        process.kill()
        if isinstance(process, WorkerProcess):
            self._now.worker_left(process)
        else:
            rank = next(rank for rank in self._now.training.ranks if rank.name == name)
            self._now.training.ended(rank, "killed")

    def start_coordinator(self) -> None:
        self._now.start_coordinator()

    def freeze(self, name: str) -> None:
        self._process(name).freeze()

    def thaw(self, name: str) -> None:
        self._process(name).thaw()

    def hang(self, name: str) -> None:
        self._worker(name).hung = True

    def unhang(self, name: str) -> None:
        self._worker(name).unhang()

    def slow(self, name: str, times: str) -> None:
        self._worker(name).slowness = float(times)

    def sicken(self, name: str) -> None:
        self._worker(name).sick = self._worker(name).was_sick = True

    def cure(self, name: str) -> None:
        self._worker(name).sick = False

    def drain(self, name: str) -> None:
        self._worker(name).drain()

    def poison(self, sample: str) -> None:
        self._now.poison.add(int(sample))
        self._now.ever_poison.add(int(sample))

    def lose_next(self, source: str, sink: str) -> None:
        """The next message from one to the other is lost, and their connection with it."""
        self._now.network.break_at_next_message(source, sink)

    def block(self, source: str, sink: str) -> None:
        self._now.network.block(source, sink)

    def unblock(self, source: str, sink: str) -> None:
        self._now.network.unblock(source, sink)

    def greet(self, rank: str, teacher: str, codec: str) -> None:
        """A worker of another codec greets a rank."""
        process = next(r for r in self._now.training.ranks if r.name == rank)
        transport = self._now.network.transport("stranger", lambda: None)
        link = transport.poller().connect(process.service.address, "stranger")
        name, *parameters = codec.split(":")
        spec = CodecSpec(name, {"dtype": parameters[0]} if parameters else {})
        mine = Fingerprint(model="simulated:model", weights="weights 0 of big", codec=spec)
        link.send(Hello(worker="stranger", teacher=teacher, fingerprint=mine, process="stranger"))
        self.run("0.1")
        while (received := link.receive()) is not None:
            self._lines.append(f"stranger hears {type(received.message).__name__}")

    # --- telling ----------------------------------------------------------------------------------

    @property
    def _now(self) -> World:
        assert self._world is not None, "a scenario begins with a job"
        return self._world

    def _process(self, name: str) -> Process:
        return next(process for process in self._now.processes() if process.name == name)

    def _worker(self, name: str) -> WorkerProcess:
        process = self._process(name)
        assert isinstance(process, WorkerProcess)
        return process

    def _tell(self, line: str) -> None:
        time, _, what = line.strip().partition("  ")
        self._lines.append(f"{float(time):7.3f}  {what.splitlines()[0]}")

    def _heard(self, host: str, peer: str, message: Message) -> None:
        what = self._words(message)
        if what is not None:
            member = peer.partition("~")[0]  # without its process
            self._now.note(f"{host} <- {member}: {what}")

    def _words(self, message: Message) -> str | None:
        """A message in some words; None for those that pass all the time."""
        if isinstance(message, Pull):
            return f"pull {message.seq} for {message.room}"
        if isinstance(message, Tasks):
            leases = [lease for group in message.groups for lease in group.leases]
            told = ", ".join(
                f"{self._lease(lease.id)} of {lease.samples}{' in its own pass' if lease.own_pass else ''}"
                for lease in leases
            )
            return f"tasks {told}, for pull {message.seq}"
        if isinstance(message, Labels):
            told = ", ".join(self._lease(row.lease) for result in message.results for row in result.rows)
            return f"labels of {told}" + (f", and pull {message.pull.seq}" if message.pull else "")
        if isinstance(message, Failure | Return):
            told = ", ".join(map(self._lease, message.leases))
            return f"failure of {told}" if isinstance(message, Failure) else f"gives back {told}"
        if isinstance(message, Event):
            fields = {key: value for key, value in message.fields.items() if key in _SHOWN}
            return f"event {message.event}: " + ", ".join(f"{key} {value}" for key, value in fields.items())
        if isinstance(message, Refused | Goodbye | Regroup):
            return f"{type(message).__name__.lower()}: {message.reason}"
        if isinstance(message, Hello | Welcome | Unknown | Registered):
            return type(message).__name__.lower()
        return None

    def _lease(self, number: int) -> str:
        return self._leases.setdefault(number, f"lease {len(self._leases) + 1}")


_SHOWN = ("worker", "tasks", "reason", "batch", "samples", "for_s", "error")


def played(path: Path) -> str:
    """A scenario's file as it would be if what happens now were right."""
    scenario = Scenario()
    try:
        return "".join(_blocks(scenario, path.read_text()))
    finally:
        scenario.close()


def _blocks(scenario: Scenario, text: str) -> Iterator[str]:
    lines = iter(text.splitlines())
    for line in lines:
        if not line or line.startswith("#"):
            yield f"{line}\n"
            continue
        for expected in lines:
            if not expected:
                break
        yield f"{line}\n----\n{scenario.play(line)}\n"
