"""A Gaussian process of one metric's ratio to the control, over the space. Pure, but for its library.

The process is scikit-learn's ``GaussianProcessRegressor``, imported when a model is fitted.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from edldist.errors import ConfigError
from edldist_launch.tune.cube import Floats

__all__ = ["RatioModel", "require_library"]

MOST_FITTED = 150
"""Observations that decide the kernel; the posterior is of all of them."""
FEW = 50
"""With so few a fit costs nothing, and may end at a kernel that is not the likeliest: it is begun thrice."""
LEAST_NOISE = 0.01
"""With so few, the least part of a metric's variance that counts as noise: no training repeats itself, and a
few points can always be explained without noise."""
EXACT = 1e-6
"""Variance of the one thing that is known for certain: the ratio of the control's own settings."""
LEAST_SCALE = 1e-6
BLIND = 1e6
"""A length beyond which a kernel sees no difference."""
OF_BASE, OF_NONE = -10.0, -20.0
"""Windows that no trial is of."""


def require_library() -> None:
    """Say at once if the library is missing.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import sklearn.gaussian_process  # noqa: F401
    except ImportError as exc:
        raise ConfigError(
            f"edldist tune needs scikit-learn, which cannot be imported ({exc}): pip install 'edldist[tune]' "
            "(in a clone: '.[tune]')"
        ) from exc


class RatioModel:
    """What is believed of a metric's ratio everywhere, after some trials.

    The prior is that every ratio is 1, as the control's own is by its definition. How far ratios stray, over
    which distances in each key, and how much of it is noise, is fitted to the trials (the most likely
    kernel): Matern 5/2 with a length for each key; an offset that all trials of a window share, since the
    noise of their control is in all of their ratios; and white noise.

    Args:
        features_NF: of the trials.
        ratios_N: theirs.
        windows_N: to which window each belongs.
        base_F: the features of the control.
        seed: of the search for the kernel.
    """

    def __init__(
        self, features_NF: Floats, ratios_N: Floats, windows_N: Floats, base_F: Floats, seed: int
    ) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern, WhiteKernel

        strays_N = ratios_N - 1
        self._scale = max(float(np.sqrt(np.mean(strays_N**2))), LEAST_SCALE)
        scaled_N = strays_N / self._scale
        keys = features_NF.shape[1]
        few = len(scaled_N) <= FEW
        # The window is one more feature: one kernel does not see it, the other sees nothing else.
        ratio = ConstantKernel(1.0, (0.05, 20.0)) * Matern(
            [*[0.5] * keys, BLIND], [*[(0.1, 20.0)] * keys, (BLIND, 1.01 * BLIND)], nu=2.5
        )
        shared = ConstantKernel(0.01, (1e-5, 1.0)) * RBF([*[BLIND] * keys, 0.1], "fixed")
        kernel = ratio + shared + WhiteKernel(0.1, (LEAST_NOISE if few else 1e-4, 2.0))
        points_NG = np.column_stack([features_NF, windows_N])
        chosen = np.arange(len(scaled_N))
        if len(chosen) > MOST_FITTED:
            chosen = np.random.default_rng(seed).choice(chosen, MOST_FITTED, replace=False)
        again = 2 if few else 0
        fitted = GaussianProcessRegressor(kernel, alpha=EXACT, n_restarts_optimizer=again, random_state=seed)
        with warnings.catch_warnings():
            # Of a length at its bound: the metric does not depend on that key.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted.fit(points_NG[chosen], scaled_N[chosen])
        signal, white = fitted.kernel_.k1, fitted.kernel_.k2.noise_level
        self._offset_variance = float(signal.k2.k1.constant_value)
        self.noise = float(np.sqrt(white + self._offset_variance)) * self._scale
        """Standard deviation of the ratio of a setting that is measured again, in another window."""
        noise_N1 = np.append(np.full(len(scaled_N), white), EXACT)
        self._process: Any = GaussianProcessRegressor(signal, alpha=noise_N1, optimizer=None)
        self._process.fit(np.vstack([points_NG, [*base_F, OF_BASE]]), np.append(scaled_N, 0.0))

    def estimate(self, features_MF: Floats) -> tuple[Floats, Floats]:
        """The ratio at some points, without noise: mean and standard deviation."""
        mean_M, deviation_M = self._process.predict(self._elsewhere(features_MF), return_std=True)
        variance_M = np.maximum(deviation_M**2 - self._offset_variance, 0)
        return 1 + mean_M * self._scale, np.sqrt(variance_M) * self._scale

    def draw(self, features_MF: Floats, count: int, rng: np.random.Generator) -> Floats:
        """So many functions out of the posterior, at some points: ``[count, M]``."""
        mean_M, covariance_MM = self._process.predict(self._elsewhere(features_MF), return_cov=True)
        # Of a covariance that is singular but for rounding, as of points that lie close together.
        spread_M, axes_MM = np.linalg.eigh(covariance_MM - self._offset_variance)
        root_MM = axes_MM * np.sqrt(np.maximum(spread_M, 0))
        drawn_CM = mean_M + rng.standard_normal((count, len(mean_M))) @ root_MM.T
        result: Floats = 1 + drawn_CM * self._scale
        return result

    def _elsewhere(self, features_MF: Floats) -> Floats:
        """Points in a window of which nothing was seen: its offset is known to be in the variance alone."""
        return np.column_stack([features_MF, np.full(len(features_MF), OF_NONE)])
