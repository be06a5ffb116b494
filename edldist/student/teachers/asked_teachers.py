"""Whose labels a loader asks for, and how they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edldist.environment import DegradeEntry
from edldist.errors import ConfigError
from edldist.labels.grammar import CodecSpec
from edldist.student.inputs.inputs import InputsByTeacher
from edldist.student.inputs.route import Route, RouteKey
from edldist.student.inputs.sequences import Sequences
from edldist.student.teachers.fallback import Fallback
from edldist.student.teachers.translation import Translation
from edldist.student.teachers.wanted_codecs import wanted_codecs
from edldist.vocabulary.wanted import Vocabulary, vocabularies_of

__all__ = ["AskedTeachers"]


@dataclass(frozen=True)
class AskedTeachers:
    """What a loader was told of its teachers.

    Attributes:
        names: of their groups.
        codecs: the only ones in which labels are taken, by teacher.
        vocabularies: what the student says of its tokens, by teacher.
        prefixed: whether labels are named ``teacher/output``.
        route: to which of them each sample goes, and the labels of all are one set; None: to all of them.
        sequences: whether some of them see padded sequences without their padding.
        versions: of how many versions at a time labels are taken, by teacher; of one for life where it is not
            named.
        skip_after_s: those without whose labels batches go on once they have had no worker for so long.
        differ_by_rank: whether a rank may meet no sample for some of them.
        fallback: what labels instead of the first where the fleet is overloaded; the route, where that may be
            another of them.
    """

    names: tuple[str, ...]
    codecs: Mapping[str, CodecSpec]
    vocabularies: Mapping[str, Vocabulary] = field(default_factory=dict)
    prefixed: bool = False
    route: Route | None = None
    sequences: bool = False
    versions: Mapping[str, int] = field(default_factory=dict)
    skip_after_s: Mapping[str, float] = field(default_factory=dict)
    differ_by_rank: bool = False
    fallback: Fallback | None = None

    @classmethod
    def of(
        cls,
        teacher: str | Sequence[str],
        inputs: InputsByTeacher = None,
        codec: str | Mapping[str, str] | None = None,
        route: RouteKey | None = None,
        missing: str | Mapping[str, str] = "wait",
        missing_after_s: float = 30.0,
        versions: int | Mapping[str, int] | None = None,
        deterministic: bool = False,
        vocabulary: Any = None,
        degrade: Sequence[DegradeEntry] = (),
    ) -> AskedTeachers:
        """Check the arguments of a ``DistillLoader``, by the same names.

        Args:
            degrade: what may label instead where the fleet is overloaded, as the job says.

        Raises:
            ConfigError: they cannot be.
        """
        names: tuple[str, ...] = (teacher,) if isinstance(teacher, str) else ()
        if not names and isinstance(teacher, Sequence):
            names = tuple(teacher)
        if not names or len(set(names)) != len(names) or not all(isinstance(n, str) and n for n in names):
            raise ConfigError(f"teacher={teacher!r}: use a name, or a sequence of different names")
        fallback = _fallback(names, degrade, route, deterministic)
        names = names if fallback is None else fallback.teachers
        codecs = wanted_codecs(codec, names)
        if route is not None and any(codecs.get(name) != codecs.get(names[0]) for name in names):
            raise ConfigError(
                f"codec={codec!r}: with route= the labels of all teachers are one set: use one codec for all"
            )
        each = inputs.values() if isinstance(inputs, Mapping) else [inputs]
        return cls(
            names,
            codecs,
            vocabularies_of(vocabulary, names),
            prefixed=not isinstance(teacher, str) and route is None,
            route=Route(route, names) if route is not None else fallback if len(names) > 1 else None,
            fallback=fallback,
            sequences=any(isinstance(its, Sequences) for its in each),
            versions=_versions(names, versions, deterministic),
            skip_after_s=_skipped(names, missing, missing_after_s, deterministic),
            differ_by_rank=isinstance(inputs, Mapping)
            or route is not None
            or (fallback is not None and len(names) > 1),
        )

    def translations(self, note: Callable[[float], None]) -> dict[str, Translation]:
        """Between each teacher's vocabulary and the student's, where that is said (see ``Translation``)."""
        return {name: Translation(name, wanted, note) for name, wanted in self.vocabularies.items()}


def _fallback(
    names: Sequence[str], degrade: Sequence[DegradeEntry], route: RouteKey | None, deterministic: bool
) -> Fallback | None:
    """What sends batches to cheaper labels where the fleet is overloaded, if any are named."""
    if not degrade:
        return None
    written = ",".join(map(str, degrade))
    if len(names) > 1 or route is not None:
        raise ConfigError(
            f"EDLDIST_DEGRADE={written!r}: this loop asks {', '.join(map(repr, names))}; one that "
            "asks a single teacher can be degraded. Leave the job's degrade out"
        )
    if deterministic:
        raise ConfigError(
            f"EDLDIST_DEGRADE={written!r}: which batches a cheaper teacher or a smaller codec labels is a "
            "matter of timing, so results would depend on it: leave the job's degrade out with deterministic"
        )
    return Fallback(names[0], degrade)


def _skipped(
    names: Sequence[str], missing: str | Mapping[str, str], after_s: float, deterministic: bool
) -> dict[str, float]:
    """After how long each teacher is skipped that may be."""
    wanted = dict(missing) if isinstance(missing, Mapping) else dict.fromkeys(names, missing)
    if strangers := wanted.keys() - set(names):
        raise ConfigError(
            f"missing={missing!r}: there is no teacher {min(strangers, key=str)!r} among {list(names)}"
        )
    if any(way not in ("wait", "skip") for way in wanted.values()):
        raise ConfigError(f"missing={missing!r}: use 'wait' or 'skip', or a mapping from teachers to these")
    if not isinstance(after_s, (int, float)) or isinstance(after_s, bool) or not 0 < after_s < float("inf"):
        raise ConfigError(f"missing_after_s={after_s!r}: use a number of seconds above 0")
    skipped = {name: float(after_s) for name, way in wanted.items() if way == "skip"}
    if skipped and len(names) < 2:
        raise ConfigError(
            f"missing={missing!r}: there is one teacher, and a batch goes on with labels of another only"
        )
    if skipped and deterministic:
        raise ConfigError(
            f"missing={missing!r}: which batches go on without a teacher's labels is a matter of timing, so "
            "results would depend on it: use 'wait' with deterministic"
        )
    return skipped


def _versions(
    names: Sequence[str], versions: int | Mapping[str, int] | None, deterministic: bool
) -> dict[str, int]:
    """Of how many versions labels are taken, of the teachers of which more than one may come."""
    if versions is None:
        return {}
    wanted = dict(versions) if isinstance(versions, Mapping) else dict.fromkeys(names, versions)
    if strangers := wanted.keys() - set(names):
        raise ConfigError(
            f"versions={versions!r}: there is no teacher {min(strangers, key=str)!r} among {list(names)}"
        )
    if any(not isinstance(most, int) or isinstance(most, bool) or most < 1 for most in wanted.values()):
        raise ConfigError(
            f"versions={versions!r}: use how many of the newest versions are taken, 1 or more, or a mapping "
            "from teachers to these, or None for one version for the whole run"
        )
    if wanted and deterministic:
        raise ConfigError(
            f"versions={versions!r}: which version labels a batch is a matter of timing, so results would "
            "depend on it: leave it out with deterministic"
        )
    return wanted
