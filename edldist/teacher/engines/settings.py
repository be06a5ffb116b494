"""How a worker asks an engine: the ``kwargs`` of a teacher that is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edldist.errors import ConfigError

__all__ = ["EngineSettings"]

_MOST_REQUESTS = 1024
_LONGEST_S = 86_400.0
_MOST_RETRIES = 100
_MOST_ENTRIES = 1 << 24


@dataclass(frozen=True)
class EngineSettings:
    """All of it, checked.

    Attributes:
        concurrency: requests under way at once.
        timeout_s: after so long without a whole answer a request has failed.
        retries: how often it is sent again, where that may help.
        retry_s: wait before the first time; each further one is twice as long, up to 30 s.
        wait_s: how long the worker waits at its start for an engine that does not answer yet.
        api_key_file: holds the key that the engine asks for, or None.
        tokenizer: ``tokenizer.json`` of the students, or the folder with it, to hold the engine's against.
        vocabulary: entries of the model's vocabulary, or None for what the folder's ``config.json`` says.
    """

    concurrency: int = 32
    timeout_s: float = 120.0
    retries: int = 4
    retry_s: float = 0.5
    wait_s: float = 300.0
    api_key_file: str | None = None
    tokenizer: str | None = None
    vocabulary: int | None = None

    @classmethod
    def read(cls, reference: str, kwargs: Mapping[str, Any]) -> EngineSettings:
        """The settings in the ``kwargs`` of a teacher.

        Raises:
            ConfigError: there is no such one, or not with such a value.
        """
        known = [field.name for field in fields(cls)]
        if wrong := [name for name in kwargs if name not in known]:
            raise ConfigError(
                f"model {reference}: an engine has no setting {wrong[0]!r}; those of kwargs (--model-arg) "
                f"are {', '.join(known)}"
            )
        ranges: dict[str, tuple[type, float, float]] = {
            "concurrency": (int, 1, _MOST_REQUESTS),
            "timeout_s": (float, 0.001, _LONGEST_S),
            "retries": (int, 0, _MOST_RETRIES),
            "retry_s": (float, 0.0, 30.0),
            "wait_s": (float, 0.0, _LONGEST_S),
            "vocabulary": (int, 2, _MOST_ENTRIES),
        }
        for name, value in kwargs.items():
            if name in ranges:
                kind, low, high = ranges[name]
                fits = (
                    isinstance(value, int | float)
                    and not isinstance(value, bool)
                    and (kind is float or isinstance(value, int))
                    and low <= value <= high
                )
                if not fits and not (value is None and name == "vocabulary"):
                    what = "a whole number" if kind is int else "a number"
                    raise ConfigError(
                        f"model {reference}: {name} {value!r}: use {what} from {low:g} to {high:g}"
                    )
            elif value is not None and not (isinstance(value, str) and value):
                raise ConfigError(f"model {reference}: {name} {value!r}: use a path")
        return cls(**kwargs)

    def key(self, reference: str) -> str:
        """The key in ``api_key_file``; empty for none.

        Raises:
            ConfigError: the file cannot be read, or does not hold one key.
        """
        if self.api_key_file is None:
            return ""
        try:
            key = Path(self.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"model {reference}: api_key_file {self.api_key_file}: {exc}") from exc
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(
                f"model {reference}: api_key_file {self.api_key_file} must hold the key and nothing else"
            )
        return key
