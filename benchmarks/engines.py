"""Engines that start teacher workers, as a simulation needs them: how many they place, when, and how long it
takes.

An engine gets the wanted number once a second. What it does with it, and how long a worker then takes until
it labels, is its law.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edldist_benchmarks.hpa import Hpa, Keda, KubernetesLaw

__all__ = ["ENGINES", "Engine", "EngineLaw"]

PLACER_S = 5.0
"""How often the placer of a Slurm job looks at what is wanted."""


class EngineLaw(Protocol):
    """One engine, with what it remembers."""

    def replicas(self, now: float, wanted: int, replicas: int) -> int:
        """How many workers there should be from now on, started or about to start."""
        ...

    def start_s(self) -> float:
        """How long a worker that is placed now takes until it labels."""
        ...


@dataclass(frozen=True)
class Engine:
    """An engine by name.

    Attributes:
        name: in words.
        start_s: how long its workers take to start, about.
        law: makes one, for bounds of the workers and a seed.
    """

    name: str
    start_s: float
    law: Callable[[int, int, int], EngineLaw]


class _Local:
    """``edldist run``: acts at once; a worker has to import torch and load its model."""

    def __init__(self, start_s: float) -> None:
        self._start_s = start_s

    def replicas(self, now: float, wanted: int, replicas: int) -> int:
        return wanted

    def start_s(self) -> float:
        return self._start_s


class _Slurm:
    """A placer that submits and cancels array tasks; each waits in a queue, for some tasks long."""

    def __init__(self, start_s: float, queue_s: float, seed: int) -> None:
        self._start_s, self._queue_s = start_s, queue_s
        self._rng = random.Random(seed)
        self._looked_at = -PLACER_S

    def replicas(self, now: float, wanted: int, replicas: int) -> int:
        if now - self._looked_at < PLACER_S:
            return replicas
        self._looked_at = now
        return wanted

    def start_s(self) -> float:
        return self._start_s + self._rng.expovariate(1 / self._queue_s)


class _Kubernetes:
    """KEDA and the HPA on the metric; the window in which the HPA waits to go down is none: edldist waits."""

    def __init__(self, start_s: float, least: int, most: int) -> None:
        self._start_s = start_s
        hpa = Hpa(max(1, least), most, down_window_s=0.0)
        self._law = KubernetesLaw(hpa, Keda(least, cooldown_s=60.0))

    def replicas(self, now: float, wanted: int, replicas: int) -> int:
        return self._law.replicas(now, float(wanted), replicas)

    def start_s(self) -> float:
        return self._start_s


ENGINES = (
    Engine("this machine, 5 s", 5.0, lambda least, most, seed: _Local(5.0)),
    Engine("Slurm, 30 s and a queue of 60 s", 90.0, lambda least, most, seed: _Slurm(30.0, 60.0, seed)),
    Engine("Kubernetes, 60 s", 60.0, lambda least, most, seed: _Kubernetes(60.0, least, most)),
    Engine("Kubernetes, 5 min", 300.0, lambda least, most, seed: _Kubernetes(300.0, least, most)),
)
