"""Teachers of one night after the other: trained by ``prepare.py``, published when their night comes.

In earnest a job of its own would train them while the days go by. Here they are there beforehand, each from
the log of the days that were over by then, and the student's script plays the hand that releases them.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

import edldist
from edldist.errors import ConfigError

__all__ = ["BUILD", "LAST_NIGHT", "Nights", "weights_of"]

BUILD = Path(__file__).resolve().parent / "build"
LAST_NIGHT = 2
"""Its teacher is the newest that there is, however long the stream goes on."""


def weights_of(night: int, build: Path = BUILD) -> Path:
    """Where ``prepare.py`` keeps the teacher of a night."""
    return build / f"teacher-{night}.safetensors"


class Nights:
    """Publishes the teacher of each night once, over restarts too: version 1 is that of night 0.

    Args:
        place: where workers follow.
        build: where the weights of the nights lie.
    """

    def __init__(self, place: Path, build: Path) -> None:
        self._place, self._build = place, build
        self._published = edldist.PublishedWeights(place)

    def begin(self, resumed: bool) -> None:
        """Make sure that what is there already was published by this run.

        Args:
            resumed: whether it goes on from a checkpoint of its own.

        Raises:
            ConfigError: another run has published there, whose last teacher would be the first one of this
                run.
        """
        if (newest := self._published.newest) and not resumed:
            raise ConfigError(
                f"{self._place} holds version {newest} of the teacher, and this run begins without a "
                "checkpoint: another run has published it, and versions would go back to the teacher of "
                "night 0. Choose another --output, or remove that folder"
            )

    def come(self, night: int) -> None:
        """Nights up to this one are over. What was published already is not published again.

        Raises:
            ConfigError: the weights of a night are missing, or are another night's.
        """
        newest = self._published.newest
        if newest is None:
            return
        for due in range(newest, min(night, LAST_NIGHT) + 1):
            self._published.publish(self._weights(due))

    def __enter__(self) -> Nights:
        return self

    def __exit__(self, *error: object) -> None:
        self._published.close()

    def _weights(self, night: int) -> dict[str, Tensor]:
        path = weights_of(night, self._build)
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as exc:
            raise ConfigError(
                f"there is no teacher of night {night}: {exc}. prepare.py makes {path}"
            ) from exc
        if int(weights["night"]) != night:
            raise ConfigError(
                f"{path} holds the teacher of night {int(weights['night'])}. Published as that of night "
                f"{night}, its version would say something else than what it has seen: let prepare.py train "
                "them anew"
            )
        return weights
