"""Which teachers' labels a loop has learnt from, as its checkpoints keep it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from edldist.errors import CheckpointError
from edldist.labels.fingerprint import Fingerprint

__all__ = ["KnownTeachers"]

logger = logging.getLogger(__name__)

_KEY = "teachers"


class KnownTeachers:
    """The fingerprint of each teacher group whose labels the loop has had, through saving and restoring.

    A run that goes on from a checkpoint with a teacher that was changed meanwhile would pass for one of a
    single teacher. So the state says which it was, and the student takes no other.

    All ranks that have taken as many steps know the same, and it is kept once for all of them; unless each
    teacher has inputs of its own, as a rank may have met no sample for some teacher yet, or versions follow
    each other, as a rank may have met a newer one than the others have. Then a rank keeps what it knows for
    itself. Owned by the thread of the training loop.

    Args:
        teachers: names of the groups whose labels are wanted.
        by_rank: whether ranks may know of different ones.
        extend: whether a state is gone on from though its teachers were others.
        rolling: those whose versions follow each other: the newest that was used is known.
    """

    def __init__(
        self, teachers: Sequence[str], by_rank: bool, extend: bool, rolling: Collection[str] = ()
    ) -> None:
        self._rolling = frozenset(rolling)
        self._teachers = frozenset(teachers)
        self._by_rank = by_rank
        self._extend = extend
        self._known: dict[str, Fingerprint] = {}
        self._unseen = set(self._teachers)  # since the last restore

    @property
    def complete(self) -> bool:
        """Whether nothing is to be learnt from the next batch."""
        return not (self._unseen or self._rolling)

    def consumed(self, used: Mapping[str, Fingerprint]) -> None:
        """The loop has a batch.

        Args:
            used: what the labels that were used came from, by group.
        """
        for teacher in (self._unseen | self._rolling) & used.keys():
            before, now = self._known.get(teacher), used[teacher]
            rolls = teacher in self._rolling
            if before is not None and (differences := now.differences(before, any_version=rolls)):
                logger.warning(
                    "teacher %r is not the one that labelled for the checkpoint: %s; going on with it, as "
                    "--extend says",
                    *(teacher, "; ".join(differences)),
                )
            self._known[teacher] = now
            self._unseen.discard(teacher)

    def shared_state(self) -> dict[str, Any]:
        """What the state has of it that is the same on all ranks."""
        return {} if self._by_rank else self._state()

    def rank_state(self) -> dict[str, Any]:
        """What is this rank's alone."""
        return self._state() if self._by_rank else {}

    def _state(self) -> dict[str, Any]:
        known = {teacher: msgspec.to_builtins(each) for teacher, each in sorted(self._known.items())}
        return {_KEY: known} if known else {}

    def read(self, state: Mapping[str, Any]) -> dict[str, Fingerprint]:
        """The fingerprints in a saved state; none in one that was saved before there were labels.

        Raises:
            CheckpointError: what it says of a teacher cannot be read.
        """
        if not isinstance(state, Mapping):
            raise CheckpointError(
                f"a {type(state).__name__} is no saved state of a loader: pass what its state_dict() gave"
            )
        try:
            saved = msgspec.convert(dict(state).get(_KEY, {}), dict[str, Fingerprint])
        except msgspec.ValidationError as exc:
            raise CheckpointError(
                f"the saved state of the loader says of its teachers what this version cannot read: {exc}. "
                "Go on with the edldist version that saved it"
            ) from exc
        return {teacher: each for teacher, each in saved.items() if teacher in self._teachers}

    def restored(self, saved: Mapping[str, Fingerprint]) -> dict[str, Fingerprint]:
        """A state was gone to.

        Args:
            saved: what ``read`` found in it.

        Returns:
            The only ones whose labels may be taken from now on.
        """
        self._known.update(saved)
        self._unseen = set(self._teachers)
        return {} if self._extend else dict(saved)
