"""What to try next, and what to recommend: Thompson sampling under constraints, one model a metric. Pure.

After HyperZero (Wang et al., arXiv 2501.18126), which tunes a recommender by ratios to a control, with many
candidates at a time and feedback that comes late. The choice within a draw is that of SCBO (Eriksson and
Poloczek, arXiv 2002.08526).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edldist_launch.tune.cube import Cube, Floats
from edldist_launch.tune.model import RatioModel
from edldist_launch.tune.space import Space

__all__ = ["Search", "Seen"]

POOL_EVERYWHERE, POOL_NEARBY = 256, 512
LOOKED_AT = 2_000
"""Points of which only the mean is asked, to find those near which more are worth a draw."""
BEST_NEARBY = 16
NEAR_CONTROL = 0.25
"""The share of the first candidates that lie near the control."""
LEAST_MODELLED = 4
"""Fewer trials than this tell a model nothing: the space is filled."""
SURE = 0.95
"""A recommendation holds every constraint with at least this probability, where any trial does."""
BY_CHANCE = 3.0
"""A trial whose own figures break a constraint by more than so many standard deviations of the noise is not
recommended, whatever the model says."""
WORST_RATIO = 2.0
"""Beyond so many times the control, or its bound, bad is bad: a loss that exploded must not decide how a
model sees all others."""


@dataclass(frozen=True)
class Seen:
    """A trial that has ended.

    Attributes:
        values: its settings.
        ratios: to its control; without all metrics that decide, it counts as bad as the worst of each.
        window: to which it belongs.
        candidate: whether it ran to its end, so that it may be recommended.
    """

    values: Mapping[str, object]
    ratios: Mapping[str, float]
    candidate: bool = True
    window: int = 0


class Search:
    """Proposes and recommends settings of one space.

    Args:
        space: what may be tried.
        base: the control's settings.
        seed: of all that is random here.
    """

    def __init__(self, space: Space, base: Mapping[str, object], seed: int = 0) -> None:
        self._space = space
        self._cube = Cube(space)
        self._base_K = self._cube.point(base)
        self._base_F = self._cube.features(self._base_K[None])[0]
        self._seed = seed
        # The models of the trials that were asked about last: a fit takes seconds where there are hundreds.
        self._fitted: tuple[list[Seen], dict[str, RatioModel]] | None = None

    def propose(self, seen: Sequence[Seen], count: int, turn: int) -> list[dict[str, object]]:
        """Settings to try next: the same for the same trials and turn.

        Each is the best of one draw of all metrics' models: the best objective among those points at which
        the draw holds every constraint, or else the point at which it breaks them least.

        Args:
            seen: the trials that have ended; others may be under way still.
            count: how many.
            turn: which proposal this is, counted from 0.
        """
        rng = np.random.default_rng([self._seed, turn])
        if sum(self._known(each) for each in seen) < LEAST_MODELLED:
            return [self._cube.values(row) for row in self._first(count, rng)]
        models = self._models(seen)
        pool_MK = self._pool(seen, models, rng)
        features_MF = self._cube.features(pool_MK)
        drawn = {name: model.draw(features_MF, count, rng) for name, model in models.items()}
        merit_CM = self._space.sign * drawn[self._space.objective.metric]
        excess_CM = np.zeros_like(merit_CM)
        for constraint in self._space.constraints:
            excess_CM += np.maximum(constraint.excess(drawn[constraint.metric]), 0) / constraint.bound
        free_M = np.ones(len(pool_MK), dtype=bool)
        chosen = []
        for merit_M, excess_M in zip(merit_CM, excess_CM, strict=True):
            allowed_M = free_M if free_M.any() else np.ones_like(free_M)
            holding_M = allowed_M & (excess_M <= 0)
            if holding_M.any():
                best = int(np.argmax(np.where(holding_M, merit_M, -math.inf)))
            else:
                best = int(np.argmin(np.where(allowed_M, excess_M, math.inf)))
            free_M[best] = False
            chosen.append(self._cube.values(pool_MK[best]))
        return chosen

    def recommend(self, seen: Sequence[Seen]) -> int | None:
        """Which trial has the best settings, by its place; None if none holds the constraints.

        By what the models make of all trials, not by its own figures alone, of which the best ones are those
        that noise was kindest to. Among those that hold the constraints surely, or as measured if none does.
        """
        tried = [place for place, each in enumerate(seen) if each.candidate and self._known(each)]
        holding = [place for place in tried if self._space.holds(seen[place].ratios)]
        objective = self._space.objective.metric
        if len(tried) < LEAST_MODELLED:
            return max(
                holding, key=lambda place: self._space.gain(seen[place].ratios[objective]), default=None
            )
        models = self._models(seen)
        features_NF = self._features([seen[place] for place in tried])
        mean_N, _ = models[objective].estimate(features_NF)
        merit_N = self._space.sign * mean_N
        sure_N = self._holds_surely(models, features_NF)
        held_N = np.array([place in holding for place in tried])
        near_N = held_N | np.array([self._breaks_by_chance(models, seen[place]) for place in tried])
        for among_N in ((sure_N >= SURE) & near_N, (sure_N >= 0.5) & held_N, held_N):
            if among_N.any():
                return tried[int(np.argmax(np.where(among_N, merit_N, -math.inf)))]
        return None

    def estimates(
        self, seen: Sequence[Seen], values: Sequence[Mapping[str, object]]
    ) -> dict[str, tuple[Floats, Floats]] | None:
        """What the models make of some settings, by metric: means and standard deviations of the ratios.

        None while there are too few trials for a model.
        """
        if sum(self._known(each) for each in seen) < LEAST_MODELLED:
            return None
        points_MK = np.array([self._cube.point(each) for each in values])
        features_MF = self._cube.features(points_MK)
        return {name: model.estimate(features_MF) for name, model in self._models(seen).items()}

    # --- what those are made of ----------------------------------------------------------------

    def _known(self, seen: Seen) -> bool:
        return all(name in seen.ratios for name in self._space.metrics)

    def _features(self, seen: Sequence[Seen]) -> Floats:
        return self._cube.features(np.array([self._cube.point(each.values) for each in seen]))

    def _models(self, seen: Sequence[Seen]) -> dict[str, RatioModel]:
        if self._fitted is None or self._fitted[0] != list(seen):
            features_NF = self._features(seen)
            windows_N = np.array([float(each.window) for each in seen])
            models = {
                name: RatioModel(features_NF, self._ratios(name, seen), windows_N, self._base_F, self._seed)
                for name in self._space.metrics
            }
            self._fitted = list(seen), models
        return self._fitted[1]

    def _ratios(self, name: str, seen: Sequence[Seen]) -> Floats:
        """One metric of all trials: of those that failed the worst of any other, and no explosions."""
        low, high = self._bounds(name)
        known = [each.ratios[name] for each in seen if name in each.ratios]
        bounded = [min(max(ratio, low), high) for ratio in known]
        worst = min(bounded) if low > -math.inf else max(bounded)
        return np.array(
            [min(max(each.ratios[name], low), high) if self._known(each) else worst for each in seen]
        )

    def _bounds(self, name: str) -> tuple[float, float]:
        """Where bad ends for a metric: below, if more of it is better, else above."""
        for constraint in self._space.constraints:
            if constraint.metric == name and name != self._space.objective.metric:
                if constraint.at_least is not None:
                    return min(1, constraint.bound) / WORST_RATIO, math.inf
                return -math.inf, max(1, constraint.bound) * WORST_RATIO
        return (1 / WORST_RATIO, math.inf) if self._space.sign > 0 else (-math.inf, WORST_RATIO)

    def _first(self, count: int, rng: np.random.Generator) -> Floats:
        """Points to begin with: most fill the space, some lie near the control, which is known to work."""
        near = round(NEAR_CONTROL * count)
        points = [self._cube.spread(count - near, rng)]
        if near:
            points.append(self._cube.around(self._base_K[None], near, rng))
        chosen: Floats = np.vstack(points)
        return chosen

    def _pool(
        self, seen: Sequence[Seen], models: Mapping[str, RatioModel], rng: np.random.Generator
    ) -> Floats:
        """Points to choose among: everywhere, and near those that look best, tried or not."""
        tried = np.array([self._cube.point(each.values) for each in seen])
        known = np.vstack([tried, self._base_K[None], self._cube.spread(LOOKED_AT, rng)])
        features_NF = self._cube.features(known)
        mean_N, _ = models[self._space.objective.metric].estimate(features_NF)
        rank_N = self._space.sign * mean_N - 1e3 * (self._holds_surely(models, features_NF) < 0.5)
        centres = known[np.argsort(-rank_N)[:BEST_NEARBY]]
        pool = np.vstack(
            [self._cube.spread(POOL_EVERYWHERE, rng), self._cube.around(centres, POOL_NEARBY, rng)]
        )
        distinct: Floats = np.unique(pool, axis=0)
        return distinct

    def _breaks_by_chance(self, models: Mapping[str, RatioModel], seen: Seen) -> bool:
        """Whether noise may be all that took a trial beyond its bounds."""
        return all(
            each.excess(seen.ratios[each.metric]) <= BY_CHANCE * models[each.metric].noise
            for each in self._space.constraints
        )

    def _holds_surely(self, models: Mapping[str, RatioModel], features_NF: Floats) -> Floats:
        """With which probability every constraint holds at some points, as far as the models tell."""
        sure_N = np.ones(len(features_NF))
        for constraint in self._space.constraints:
            mean_N, deviation_N = models[constraint.metric].estimate(features_NF)
            z_N = -constraint.excess(mean_N) / np.maximum(deviation_N, 1e-12)
            sure_N = np.minimum(sure_N, [0.5 * math.erfc(-z / math.sqrt(2)) for z in z_N])
        return sure_N
