"""What the loop gets of the tensors in which labels came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any

import torch
from torch import Tensor

from edldist.errors import LabelError
from edldist.labels.codec import make_codec
from edldist.labels.grammar import CodecSpec
from edldist.labels.packing import Codec
from edldist.student.batch.teacher_inputs import PLACES, VERSION
from edldist.student.decoding.joined import joined
from edldist.student.decoding.put_back import MASK, check_no_mask, put_back
from edldist.student.teachers.asked_teachers import AskedTeachers
from edldist.student.teachers.translation import Translation

__all__ = ["Decoding", "NoLabels", "Packed"]

Packed = dict[str, dict[str, Tensor]]
"""The tensors in which the labels of each teacher came."""

_VERSION = "version"


class Decoding:
    """Names labels as the loop knows them, and puts them to where they belong in the batch.

    Where samples are routed, the labels of all teachers are one set, in the order of the batch.

    Owned by the thread of the training loop.

    Args:
        teachers: those whose labels are wanted, and how.
        codec: that of a teacher of which there are labels.
        translations: by teacher, from its vocabulary to the loop's, where that is said.
    """

    def __init__(
        self,
        teachers: AskedTeachers,
        codec: Callable[[str], Codec],
        translations: Mapping[str, Translation],
    ) -> None:
        self._translations = translations
        self._asked = teachers
        self._names = frozenset(teachers.names)
        self._routed = teachers.route is not None
        self._codec = codec
        self._may_miss = teachers.skip_after_s.keys()
        self._no_rows: Packed = {}

    def learn(self, packed: Packed) -> None:
        """See what the labels of a teacher are like, in its own codec, for batches in which it has none."""
        for teacher, tensors in packed.items():
            if teacher not in self._no_rows and tensors.keys() - {PLACES}:
                self._no_rows[teacher] = {
                    name: torch.empty_like(tensor[:0], device="cpu")
                    for name, tensor in tensors.items()
                    if name != PLACES
                }

    def suffices(self, labelled: Set[str]) -> bool:
        """Whether labels of these teachers are all that a batch has to have."""
        return bool(labelled) if self._routed else self._names <= labelled

    def all_known(self, teachers: Set[str]) -> bool:
        """Whether labels of all of these teachers have been seen."""
        return teachers <= self._no_rows.keys()

    def lacking(self, labelled: Set[str]) -> Set[str]:
        """Teachers without whose labels nobody can tell the names, of a batch that has these."""
        if not self._routed:
            return self._names - labelled
        return frozenset() if labelled else self._names

    def unknown(self, teachers: Set[str]) -> Set[str]:
        """Those of some teachers whose labels still have to be seen, to make some without rows."""
        if self._routed and self._no_rows:
            return frozenset()
        return teachers - self._no_rows.keys() - self._may_miss  # for those nobody waits

    def are_known(self, unknown: Set[str], labelled: Set[str]) -> bool:
        """Whether a batch that has labels of some teachers shows what those of unknown ones are like."""
        return bool(labelled) if self._routed else unknown <= labelled

    def without_rows(self, teachers: Set[str]) -> Packed:
        """Labels of no samples, on the host: of these teachers, or of one of those that share a set."""
        known = [teacher for teacher in self._no_rows if teacher in teachers]
        if self._routed:
            known = known[:1]
        nowhere = {PLACES: torch.full((0,), -1, dtype=torch.int64, device="cpu")}
        never = dict.fromkeys(teachers & self._may_miss - self._no_rows.keys(), nowhere)
        return {teacher: self._no_rows[teacher] for teacher in known} | never

    def of(
        self, packed: Mapping[str, Mapping[str, Tensor]], codec: CodecSpec | None = None
    ) -> dict[str, Any]:
        """What the loop gets of the labels that came from each teacher.

        Args:
            codec: in which all of them came, if it is not that of each teacher.

        Raises:
            LabelError: they cannot be one set, or an output has the name of the mask.
        """
        if self._routed:
            return self._one_set(packed, codec)
        decoded: dict[str, Any] = {}
        for teacher, tensors in packed.items():
            outputs = self._outputs(teacher, tensors, codec)
            if self._asked.prefixed:
                outputs = {f"{teacher}/{output}": labels for output, labels in outputs.items()}
            decoded |= outputs
        return decoded

    def _outputs(
        self, teacher: str, tensors: Mapping[str, Tensor], codec: CodecSpec | None
    ) -> dict[str, Any]:
        came, places = _apart(tensors)
        if places is None:
            labels = self._decode(teacher, came, codec)
            if teacher not in self._may_miss:
                return labels
            check_no_mask(labels, teacher)
            one = next(iter(came.values()))
            return labels | {MASK: torch.ones(len(one), dtype=torch.bool, device=one.device)}
        if not came:
            came, codec = self._like_former(teacher, places), None
        if not came:  # nobody knows what its labels are called
            return {MASK: places >= 0}
        return put_back(self._decode(teacher, came, codec), places, teacher)

    def _decode(self, teacher: str, came: dict[str, Tensor], codec: CodecSpec | None) -> dict[str, Any]:
        """Labels by output, and the version that each row is of where versions follow each other.

        Where positions have no labels, as padding has none, the version is put back as 0, like all integers.
        """
        version = came.pop(VERSION, None)
        labels = (self._codec(teacher) if codec is None else make_codec(codec)).decode(came)
        if (translation := self._translations.get(teacher)) is not None:
            labels = translation(labels)
        if version is None:
            return labels
        if _VERSION in labels:
            raise LabelError(
                f"teacher {teacher!r} has an output {_VERSION!r}, under which labels say by which version "
                "they were computed: choose its outputs without it (--outputs), or rename it"
            )
        return labels | {_VERSION: version}

    def _like_former(self, teacher: str, places: Tensor) -> dict[str, Tensor]:
        """Labels without rows, as a teacher has had them before, if it has."""
        return {name: tensor.to(places.device) for name, tensor in self._no_rows.get(teacher, {}).items()}

    def _one_set(self, packed: Mapping[str, Mapping[str, Tensor]], codec: CodecSpec | None) -> dict[str, Any]:
        places: dict[str, Tensor] = {}
        labels: dict[str, dict[str, Any]] = {}
        for teacher in self._asked.names:  # in whatever order they have answered
            came, its_places = _apart(packed.get(teacher, {}))
            if its_places is not None:
                places[teacher] = its_places
            if came:
                labels[teacher] = self._decode(teacher, came, codec)
        if not labels:
            return {MASK: torch.stack([its >= 0 for its in places.values()]).any(dim=0)} if places else {}
        if not places:
            return next(iter(labels.values()))  # of a batch without samples
        whole, together = joined(labels, places, self._codec)
        back = put_back(whole, together, next(iter(labels)))
        if not (self._asked.sequences or self._may_miss):
            del back[MASK]  # every sample has labels
        return back


def _apart(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
    """The tensors that came, and where their rows belong."""
    return {name: tensor for name, tensor in tensors.items() if name != PLACES}, tensors.get(PLACES)


class NoLabels(dict[str, Any]):
    """Labels beside those of a teacher that has not labelled anything, so that nobody knows their names."""

    def __missing__(self, key: str) -> Any:
        raise LabelError(
            f"there are no labels {key!r} (there are {', '.join(self) or 'none'}): a teacher is missing, "
            "or sees no samples of this batch, and has labelled no other one of this epoch, so nobody knows "
            "what its labels are called. Ask first, as with 'if not labels: continue'"
        )
