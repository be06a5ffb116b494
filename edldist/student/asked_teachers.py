"""Whose labels a loader asks for, and how they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edldist.errors import ConfigError
from edldist.labels.grammar import CodecSpec
from edldist.student.inputs import InputsByTeacher
from edldist.student.route import Route, RouteKey
from edldist.student.sequences import Sequences
from edldist.student.wanted_codecs import wanted_codecs

__all__ = ["AskedTeachers"]


@dataclass(frozen=True)
class AskedTeachers:
    """What a loader was told of its teachers.

    Attributes:
        names: of their groups.
        codecs: the only ones in which labels are taken, by teacher.
        prefixed: whether labels are named ``teacher/output``.
        route: to which of them each sample goes, and the labels of all are one set; None: to all of them.
        sequences: whether some of them see padded sequences without their padding.
        differ_by_rank: whether a rank may meet no sample for some of them.
    """

    names: tuple[str, ...]
    codecs: Mapping[str, CodecSpec]
    prefixed: bool = False
    route: Route | None = None
    sequences: bool = False
    differ_by_rank: bool = False

    @classmethod
    def of(
        cls,
        teacher: str | Sequence[str],
        inputs: InputsByTeacher = None,
        codec: str | Mapping[str, str] | None = None,
        route: RouteKey | None = None,
    ) -> AskedTeachers:
        """Check the arguments of a ``DistillLoader``, by the same names.

        Raises:
            ConfigError: they cannot be.
        """
        names = (teacher,) if isinstance(teacher, str) else tuple(teacher)
        if not names or len(set(names)) != len(names) or not all(isinstance(n, str) and n for n in names):
            raise ConfigError(f"teacher={teacher!r}: use a name, or a sequence of different names")
        codecs = wanted_codecs(codec, names)
        if route is not None and any(codecs.get(name) != codecs.get(names[0]) for name in names):
            raise ConfigError(
                f"codec={codec!r}: with route= the labels of all teachers are one set: use one codec for all"
            )
        each = inputs.values() if isinstance(inputs, Mapping) else [inputs]
        return cls(
            names,
            codecs,
            prefixed=not isinstance(teacher, str) and route is None,
            route=None if route is None else Route(route, names),
            sequences=any(isinstance(its, Sequences) for its in each),
            differ_by_rank=isinstance(inputs, Mapping) or route is not None,
        )
