"""The laws by which Kubernetes sets a replica count: KEDA between none and one, the HPA from one on. Pure.

The HPA looks every 15 s at an external metric with an average target, which is what KEDA makes of a trigger::

    ratio    = value / (target * replicas)
    raw      = replicas if ratio is within the tolerance of 1, else ceil(value / target)
    stable   = going up the least, going down the largest of what was raw in the stabilisation window
    limited  = going up by 4 or by as many again in 15 s, whichever is more; going down to none in 15 s
    result   = within the least and the most; none is left alone

KEDA looks every polling interval, and acts between none and one only: any value above the activation brings
one, and none above it for the cool-down takes the last away.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

__all__ = ["Hpa", "Keda", "KubernetesLaw"]

TOLERANCE = 0.1
SYNC_S = 15.0
PERIOD_S = 15.0
PODS_A_PERIOD = 4


@dataclass
class Hpa:
    """A horizontal pod autoscaler on one external metric.

    Attributes:
        least, most: bounds of the replicas; the least is one at least.
        target: value of the metric that one replica stands for.
        down_window_s: stabilisation window going down.
    """

    least: int
    most: int
    target: float = 1.0
    down_window_s: float = 300.0
    _said: deque[tuple[float, int]] = field(default_factory=deque)
    _grown: deque[tuple[float, int]] = field(default_factory=deque)

    def sync(self, now: float, value: float, replicas: int) -> int:
        """The replicas that there should be."""
        if replicas == 0:
            return 0
        if not self.least <= replicas <= self.most:
            return min(max(replicas, self.least), self.most)
        ratio = value / (self.target * replicas)
        calm = 1 - TOLERANCE <= ratio <= 1 + TOLERANCE
        raw = replicas if calm else math.ceil(value / self.target)
        self._said.append((now, raw))
        while self._said[0][0] <= now - self.down_window_s and len(self._said) > 1:
            self._said.popleft()
        if raw < replicas:
            raw = min(replicas, max(said for _, said in self._said))
        if raw > replicas:
            raw = min(raw, self._limit(now, replicas))
            self._grown.append((now, raw - replicas))
        return min(max(raw, self.least), self.most)

    def _limit(self, now: float, replicas: int) -> int:
        while self._grown and self._grown[0][0] <= now - PERIOD_S:
            self._grown.popleft()
        before = replicas - sum(count for _, count in self._grown)
        return max(before + PODS_A_PERIOD, 2 * before, replicas)


@dataclass
class Keda:
    """The part of KEDA that acts itself: a scaler between none and one.

    Attributes:
        least: replicas when nothing is asked; with more than none it never acts.
        polling_s: how often it looks.
        cooldown_s: after so long without a value above none it takes the last replica away.
    """

    least: int
    polling_s: float = 30.0
    cooldown_s: float = 300.0
    _active_at: float = -math.inf

    def poll(self, now: float, value: float, replicas: int) -> int:
        """The replicas that there should be."""
        if value > 0:
            self._active_at = now
            return max(1, self.least) if replicas == 0 else replicas
        idle_s = now - self._active_at
        return 0 if self.least == 0 and replicas and idle_s > self.cooldown_s else replicas


@dataclass
class KubernetesLaw:
    """Both together, as a ScaledObject has them."""

    hpa: Hpa
    keda: Keda
    _synced_at: float = -math.inf
    _polled_at: float = -math.inf

    def replicas(self, now: float, value: float, replicas: int) -> int:
        """The replicas that there should be, by the value of the metric now."""
        if now - self._polled_at >= self.keda.polling_s:
            self._polled_at = now
            replicas = self.keda.poll(now, value, replicas)
        if now - self._synced_at >= SYNC_S:
            self._synced_at = now
            replicas = self.hpa.sync(now, value, replicas)
        return replicas
