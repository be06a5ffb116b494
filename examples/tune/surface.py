"""A made response surface: what a job's metrics would be at any settings, in any window, with noise.

It stands for what a tuning meets and nobody can look up in a real one: where the best settings are. Of each
``seed`` it is another surface, in five keys: the weights of two teachers, the temperature, the share of the
labels in the loss, and the learning rate.

Three metrics. ``quality`` is to grow, ``cost`` may grow by 3 % over the control, ``recall`` may lose 1 %::

    x   = the settings, each from 0 to 1 (temperature and learning rate on a log scale)
    q   = 1 + 0.25 * (peak(x) - peak(control)),
          peak(x) = exp(-|D (x - best)|^2) + 0.3 * exp(-|D (x - decoy)|^2)
    c   = 1 + 0.15 * (a . (x - control)) + 0.05 * (x_0 x_1 - same at the control)
    r   = 1 - 0.20 * (|E (x - safe)|^2 - same at the control)
    metric of a trial = level * drift(window) * true ratio * (1 + noise)

``best`` lies where cost or recall are about to break, so that the constraints decide. The *drift* is what a
window does to all of its trials alike: a cycle of 7 windows and a random walk, together up to a fifth of the
metric, several times what the best settings gain. Noise is 1 % of a metric, a trial.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edldist_launch.tune.cube import Cube
from edldist_launch.tune.space import Space

__all__ = ["BASE", "SPACE", "Surface"]

SPACE = Space.model_validate(
    {
        "keys": {
            "--weight-a": {"low": 0.0, "high": 1.0},
            "--weight-b": {"low": 0.0, "high": 1.0},
            "--temperature": {"low": 1.0, "high": 16.0, "log": True},
            "--alpha": {"low": 0.0, "high": 1.0},
            "--lr": {"low": 0.0001, "high": 0.01, "log": True},
        },
        "objective": {"metric": "quality", "goal": "max"},
        "constraints": [{"metric": "cost", "at_most": 1.03}, {"metric": "recall", "at_least": 0.99}],
        "at_a_time": 240,
        "window": 100,
        "controls": 20,
    }
)
BASE = {"--weight-a": 0.5, "--weight-b": 0.5, "--temperature": 4.0, "--alpha": 0.5, "--lr": 0.001}
"""The settings of the control."""
LEVELS = {"quality": 0.72, "cost": 35.0, "recall": 0.4}
NOISE = 0.01
Floats = NDArray[np.float64]


class Surface:
    """One response surface; everything about it follows from its seed."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([2501, 18126, seed])
        self._cube = Cube(SPACE)
        self._base_K = self._cube.point(BASE)
        keys = len(self._base_K)
        direction = rng.normal(size=keys)
        # The best settings lie some way off the control, and the decoy on its other side.
        away = 0.45 * direction / np.linalg.norm(direction)
        self._best_K = np.clip(self._base_K + away, 0.1, 0.9)
        self._decoy_K = np.clip(self._base_K - away, 0.1, 0.9)
        self._steep_K = rng.uniform(1.2, 2.4, size=keys)
        slope = direction / np.linalg.norm(direction) + 0.5 * rng.normal(size=keys)
        self._slope_K = slope / np.linalg.norm(slope)
        self._safe_K = self._base_K + 0.4 * away + 0.15 * rng.normal(size=keys)
        self._brittle_K = rng.uniform(0.4, 0.9, size=keys)
        phase, walk = rng.uniform(0, 2 * math.pi, size=3), rng.normal(size=(64, 3)) * 0.05
        self._drift_WM = np.exp(
            0.12 * np.sin(2 * math.pi * np.arange(64)[:, None] / 7 + phase) + np.cumsum(walk, axis=0)
        )

    def ratios(self, points_NK: Floats) -> dict[str, Floats]:
        """The true ratios at some points, to the control."""
        base = self._base_K[None]
        quality = 1 + 0.25 * (self._peak(points_NK) - self._peak(base))
        pair, base_pair = points_NK[:, 0] * points_NK[:, 1], base[:, 0] * base[:, 1]
        cost = 1 + 0.15 * (points_NK - base) @ self._slope_K + 0.05 * (pair - base_pair)
        recall = 1 - 0.2 * (self._brittleness(points_NK) - self._brittleness(base))
        return {"quality": quality, "cost": cost, "recall": recall}

    def of(self, values: Mapping[str, Any]) -> dict[str, float]:
        """The true ratios of some settings."""
        return {name: float(found[0]) for name, found in self.ratios(self._cube.point(values)[None]).items()}

    def measure(self, values: Mapping[str, Any], window: int, trial: int, seed: int) -> dict[str, float]:
        """What a trial reports: the same for the same arguments."""
        noise = np.random.default_rng([seed, window, trial]).normal(size=len(LEVELS)) * NOISE
        return {
            name: LEVELS[name] * float(self._drift_WM[window, place]) * ratio * (1 + float(noise[place]))
            for place, (name, ratio) in enumerate(self.of(values).items())
        }

    @cached_property
    def best_gain(self) -> float:
        """What the best settings gain among those that hold the constraints.

        Looked for in 200,000 points, and ever closer around the best of them.
        """
        rng = np.random.default_rng(1)
        points = rng.random((200_000, len(self._base_K)))
        best_K, best = self._base_K, 0.0
        for width in (0.2, 0.1, 0.05, 0.02, 0.01, 0.005):
            ratios = self.ratios(points)
            holding = (ratios["cost"] <= 1.03) & (ratios["recall"] >= 0.99)
            place = int(np.argmax(np.where(holding, ratios["quality"], -1)))
            if holding[place] and ratios["quality"][place] - 1 > best:
                best_K, best = points[place], float(ratios["quality"][place] - 1)
            points = np.clip(best_K + width * rng.normal(size=(20_000, len(self._base_K))), 0, 1)
        return best

    def _peak(self, points_NK: Floats) -> Floats:
        high = np.exp(-(((points_NK - self._best_K) * self._steep_K) ** 2).sum(axis=1))
        low = np.exp(-(((points_NK - self._decoy_K) * self._steep_K) ** 2).sum(axis=1))
        return np.asarray(high + 0.3 * low)

    def _brittleness(self, points_NK: Floats) -> Floats:
        return np.asarray((((points_NK - self._safe_K) * self._brittle_K) ** 2).sum(axis=1))
