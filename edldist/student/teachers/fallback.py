"""What labels a batch where the fleet is overloaded: a cheaper teacher, or the same with a smaller codec."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edldist.environment import DegradeEntry
from edldist.errors import CodecError, ConfigError
from edldist.labels.grammar import SMALLER_CODECS, CodecSpec, parse_spec
from edldist.student.batch.batch import OpenBatch
from edldist.student.inputs.route import Owners, Route
from edldist.wire.messages import Degradation

__all__ = ["Fallback"]


class Fallback(Route):
    """Sends whole batches to the teacher that a loop asks, or further down a chain while the job is degraded.

    ::

        big  --degrade: [{codec: topk:16}, {teacher: small}]-->  big as topk:16  -->  small

    The thread that reads calls it and ``settle``; another one may call ``degrade``. A batch that was read
    keeps its teacher and its codec.

    Args:
        teacher: the one that the loop asks.
        entries: what it may be degraded to, the mildest first.

    Attributes:
        teachers: all of the chain, the one that is asked first, each once.
        chain: what comes behind that one.
        samples: how many got other labels than those that were asked for.

    Raises:
        ConfigError: there is nothing to fall back to, something is there twice, or a codec is none.
    """

    def __init__(self, teacher: str, entries: Sequence[DegradeEntry]) -> None:
        self.chain: list[Degradation] = []
        # By place in the chain, that of the asked teacher first: the teacher, and the codec if not its own.
        self._rungs: list[tuple[str, CodecSpec | None]] = [(teacher, None)]
        for entry in entries:
            to = entry.teacher or self._rungs[-1][0]
            rung = to, _smaller(entry.codec) if entry.codec else None
            if rung in self._rungs:
                raise ConfigError(
                    f"EDLDIST_DEGRADE: a loop that asks {teacher!r} cannot be degraded to "
                    f"{', '.join(map(str, entries))}: name other teachers, or smaller codecs, each once"
                )
            self._rungs.append(rung)
            self.chain.append(Degradation(teacher=to, codec=entry.codec))
        if not self.chain:
            raise ConfigError(f"EDLDIST_DEGRADE: there is nothing to which {teacher!r} can be degraded")
        self.teachers = tuple(dict.fromkeys(name for name, _ in self._rungs))
        self._at = 0
        self.samples = 0

    def degrade(self, steps: int) -> None:
        """From the next batch on, so many places of the chain are passed over; for any thread."""
        self._at = min(steps, len(self.chain))

    @property
    def labels_by(self) -> str:
        """What labels batches that are read now, in words; empty if it is what the loop asks."""
        place = self._at
        return str(self.chain[place - 1]) if place else ""

    def codecs_of(self, teacher: str) -> list[CodecSpec]:
        """The smaller codecs in which a teacher may be asked for labels."""
        return [codec for name, codec in self._rungs if name == teacher and codec is not None]

    def __call__(self, batch: Any, samples: int, pick: Callable[[Any, str | int], Any]) -> Owners:
        return np.full(samples, self.teachers.index(self._rungs[self._at][0]), np.intp)

    def settle(self, batch: OpenBatch) -> None:
        """Choose the codec of a batch that is about to be offered, and count it.

        One of which some labels were found in a store has the others in the same codec.
        """
        seen_by = [name for name in self.teachers if batch.inputs_of(name).samples]
        if not seen_by:
            return
        places = [place for place, (name, _) in enumerate(self._rungs) if name == seen_by[0]]
        # What is said to be done may have changed since the batch was sent to its teacher.
        place = min(places, key=lambda each: abs(each - self._at))
        codec = self._rungs[place][1]
        if codec is not None and any(lookup.found for lookup in batch.lookups.values()):
            place, codec = places[0], None
        if codec is not None:
            batch.codec = codec
            batch.lookups.clear()  # labels in a smaller codec are neither kept nor copied
        self.samples += batch.samples if place else 0


def _smaller(text: str) -> CodecSpec:
    try:
        codec = parse_spec(text)
    except CodecError as exc:
        raise ConfigError(f"EDLDIST_DEGRADE: codec={text}: {exc}") from exc
    if codec.name not in SMALLER_CODECS:
        raise ConfigError(
            f"EDLDIST_DEGRADE: codec={text}: its labels need more than any teacher's outputs; use one of "
            f"{', '.join(SMALLER_CODECS)}"
        )
    return codec
