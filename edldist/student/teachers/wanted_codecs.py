"""The codecs in which a loader insists on labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edldist.errors import CodecError, ConfigError
from edldist.labels.grammar import CODEC_FORMS, CodecSpec, parse_spec

__all__ = ["wanted_codecs"]


def wanted_codecs(codec: str | Mapping[str, str] | None, teachers: Sequence[str]) -> dict[str, CodecSpec]:
    """The codecs that a loader insists on, by teacher.

    Raises:
        ConfigError: one is none, or is for a teacher that there is not.
    """
    if codec is None:
        return {}
    wanted = dict(codec) if isinstance(codec, Mapping) else dict.fromkeys(teachers, codec)
    if strangers := wanted.keys() - set(teachers):
        raise ConfigError(f"codec={codec!r}: there is no teacher {min(strangers)!r} among {list(teachers)}")
    try:
        return {teacher: parse_spec(text) for teacher, text in wanted.items()}
    except (CodecError, AttributeError) as exc:
        raise ConfigError(f"codec={codec!r}: use {CODEC_FORMS}, or a mapping from teachers to such") from exc
