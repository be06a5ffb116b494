"""What the workers of one teacher group have to be alike in, and who laid that down. Pure.

::

    open --a worker is admitted--> laid down --its labels are used--> fixed, for life
      ^                                |
      +--- the last worker has gone ---+

Until labels were used nothing depends on the choice: a worker that was started by mistake, and has gone
again, does not keep the right ones out. A student that goes on from a checkpoint has used labels before:
what they came from is laid down then, whoever comes and goes (``expect``).

Who is at fault where a worker does not fit? What a group *is*, its workers decide, the first one for all: one
that differs from those is none of the group, and ends. What a student *wants* (a codec, a vocabulary, the
teacher of its checkpoint) is its own affair: other students may want just these workers, which stay and leave
it alone. If it finds no other ones, it is the student that cannot go on (``student.service.unsuited``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from edldist.labels.fingerprint import Fingerprint, VocabularyMark
from edldist.labels.grammar import CodecSpec
from edldist.labels.versions import Versions, is_newer

__all__ = ["GO_ON_CHANGED", "Misfit", "Standard"]

GO_ON_CHANGED = "--extend to 'edldist run' or 'edldist student', or EDLDIST_EXTEND=1 to a script"


class Misfit(NamedTuple):
    """Why a worker is not taken.

    Attributes:
        reason: with both sides named.
        incompatible: whether the worker is none of the group that it names; else it is this student that
            wants another one, or cannot read its labels.
    """

    reason: str
    incompatible: bool


class Standard:
    """The fingerprint of one teacher group, as one student knows it.

    Args:
        teacher: name of the group.
        codec: the only one that is taken, or None for that of the first worker.
        objection: why a worker with some vocabulary cannot teach this student, or None.
        versions: of how many versions at a time labels are taken, the newest ones; None: of one, for life.
    """

    def __init__(
        self,
        teacher: str,
        codec: CodecSpec | None = None,
        objection: Callable[[VocabularyMark | None], str | None] = lambda mark: None,
        versions: int | None = None,
    ) -> None:
        self.teacher = teacher
        self._versions = None if versions is None else Versions(versions)
        self._codec = codec
        self._objection_to = objection
        self._by = ""
        self._used: list[str] | None = None  # outputs of the first labels, as they came
        self._expected: Fingerprint | None = None
        self.fingerprint: Fingerprint | None = None

    def expect(self, former: Fingerprint) -> None:
        """Take none but workers like those that labelled for the checkpoint that is gone on from."""
        self.fingerprint = self._expected = former
        self._by, self._used = "", None
        if self._versions is not None and self._versions.objection(former) is None:
            self._versions.see(former)

    def admit(self, worker: str, its: Fingerprint) -> Misfit | None:
        """Take a worker that greets, the first one as the measure of all others; or say why not."""
        if self.fingerprint is not None and (differences := self._differences(its, self.fingerprint)):
            return self._misfit(worker, differences)
        if self._versions is not None and (misfit := self._of_no_version(worker, its, self._versions)):
            return misfit
        if self._codec is not None and its.codec != self._codec:
            return Misfit(
                f"worker {worker} sends codec {its.codec}; this student takes labels of teacher "
                f"{self.teacher!r} as {self._codec} only (codec= of its "
                "DistillLoader or LabelRequests)",
                incompatible=False,
            )
        if (reason := self._objection_to(its.vocabulary)) is not None:
            return Misfit(f"worker {worker} of teacher {self.teacher!r}: {reason}", incompatible=False)
        if self._versions is not None:
            self._versions.see(its)
        if self.fingerprint is None:
            self.fingerprint, self._by = its, worker
            return None
        self._by = self._by or worker
        self._learn(its.outputs)
        return None

    @property
    def oldest_version(self) -> int:
        """The oldest version of which labels are taken; 0 where they do not follow each other."""
        return 0 if self._versions is None else self._versions.oldest

    def is_stale(self, version: str) -> bool:
        """Whether labels of a version are not taken any more, because there are newer ones."""
        return self._versions is not None and self._versions.is_stale(version)

    def _differences(self, its: Fingerprint, known: Fingerprint) -> list[str]:
        return its.differences(known, any_version=self._versions is not None)

    def _of_no_version(self, worker: str, its: Fingerprint, versions: Versions) -> Misfit | None:
        """Why a worker that is like the others has a version that is not taken."""
        if (reason := versions.objection(its)) is not None:
            words = (
                f"worker {worker} of teacher {self.teacher!r} has {reason} (versions= of the student's "
                "DistillLoader or LabelRequests)"
            )
            return Misfit(words, incompatible=False)
        if not versions.is_stale(its.version):
            return None
        return Misfit(
            f"worker {worker} of teacher {self.teacher!r} has version {its.version}, and labels are taken of "
            f"the {versions.most} newest only, {versions.named()} (versions={versions.most} of the student's "
            "DistillLoader or LabelRequests)",
            incompatible=False,
        )

    def objection(
        self, worker: str, version: str, outputs: Sequence[str] | None, greeted: str | None = None
    ) -> Misfit | None:
        """Why labels that came are none of this group, or None.

        Args:
            version: that they say they are of.
            outputs: names of their tensors, in any order; None where they came in another codec than the
                group's.
            greeted: the version that the worker has greeted with, where these follow each other.
        """
        known = self.fingerprint
        if known is None:
            raise ValueError(
                f"labels of worker {worker} of teacher {self.teacher!r}, of which none was admitted"
            )
        if self._versions is not None and greeted is not None:
            known = msgspec.structs.replace(known, version=greeted)
        if version == known.version and outputs in (self._used, None):
            return None
        its = msgspec.structs.replace(known, version=version, outputs=outputs and sorted(outputs))
        differences = its.differences(known)
        return self._misfit(worker, differences) if differences else None

    @property
    def fixed(self) -> bool:
        """Whether labels were used."""
        return self._used is not None

    def fix(self, outputs: Sequence[str]) -> None:
        """Labels were used, with such tensors."""
        self._used = list(outputs)
        self._learn(sorted(outputs))

    def used_kept(self, its: Fingerprint, outputs: Sequence[str]) -> None:
        """Labels were used that a store has kept, with such tensors."""
        if self.fingerprint is None:
            self.fingerprint = its
        if not self.fixed:
            self.fix(outputs)
        self.used_of(its)

    def used_of(self, its: Fingerprint) -> None:
        """Labels of a version were used: a run that goes on from here takes none that is older."""
        known = self.fingerprint
        assert known is not None
        if self._versions is not None and is_newer(its, known):
            self.fingerprint = msgspec.structs.replace(known, version=its.version, weights=its.weights)

    def deserted(self) -> None:
        """No worker of the group is left."""
        if not self.fixed:
            self.fingerprint, self._by = self._expected, ""
            if self._versions is not None:
                self._versions = Versions(self._versions.most)
                if self._expected is not None:
                    self.expect(self._expected)

    def _learn(self, outputs: list[str] | None) -> None:
        if self.fingerprint is not None and self.fingerprint.outputs is None:
            self.fingerprint = msgspec.structs.replace(self.fingerprint, outputs=outputs)

    def _misfit(self, worker: str, differences: list[str]) -> Misfit:
        words = "; ".join(differences)
        if self._by not in ("", worker):
            return Misfit(
                f"worker {worker} is not like worker {self._by}, by which this student knows teacher "
                f"{self.teacher!r}: {words}. Start it with the same model, weights, version and codec, or "
                "under another --name. To go over to another model, end the old workers, and restart the "
                f"student, giving {GO_ON_CHANGED}",
                incompatible=True,
            )
        if self._expected is None:
            return Misfit(
                f"worker {worker} of teacher {self.teacher!r} is not what it was when it came: {words}. End "
                "it, and start it anew under another id",
                incompatible=True,
            )
        return Misfit(
            f"worker {worker} is not like those of teacher {self.teacher!r} that labelled for the "
            f"checkpoint from which this student goes on: {words}. Start it with the model, weights, version "
            f"and codec of then. To go on with another teacher on purpose, give {GO_ON_CHANGED}",
            incompatible=False,
        )
