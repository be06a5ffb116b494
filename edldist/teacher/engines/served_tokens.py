"""What is known of an engine's vocabulary on the worker's side: its size, and the students' tokenizer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from edldist.errors import ConfigError, ModelError
from edldist.teacher.engines.client import RefusedError
from edldist.teacher.engines.protocol import Protocol, Served
from edldist.teacher.engines.settings import EngineSettings
from edldist.teacher.model.huggingface import HuggingFaceFolder

__all__ = ["ServedTokens"]

_FILE = "tokenizer.json"
_PROBE = "Naïve café: 12,345 + x_i != 0?\n\tdef f(x): return 'ok'  # 中文 🙂 don't"
_MOST_SPECIAL = 2
"""Ids that an engine may put before a text, or behind it."""


@dataclass(frozen=True)
class ServedTokens:
    """The size, and the tokenizer where one is given.

    Attributes:
        size: entries, as the model's logits have them.
        tokenizer: file of the students', or None.
        digest: of it, as of a ``hf:`` folder; empty for none.
    """

    size: int
    tokenizer: Path | None
    digest: str

    @classmethod
    def read(cls, reference: str, settings: EngineSettings) -> ServedTokens:
        """What the settings say.

        Raises:
            ConfigError: they do not say how large it is, or name no tokenizer.
        """
        given = None if settings.tokenizer is None else Path(settings.tokenizer)
        folder = given if given is not None and given.is_dir() else None
        file = given if folder is None else folder / _FILE
        if file is not None and not file.is_file():
            raise ConfigError(
                f"model {reference}: tokenizer {settings.tokenizer}: use a {_FILE}, or a folder with one"
            )
        size = settings.vocabulary or (None if folder is None else _size_in(folder / "config.json"))
        if size is None:
            raise ConfigError(
                f"model {reference}: an engine does not say how many entries its vocabulary has. Give it as "
                "kwargs: {vocabulary: N} (--model-arg vocabulary=N), the vocab_size of the model's "
                "config.json; or name the model's folder, as tokenizer"
            )
        digest = ""
        if folder is not None:
            digest = HuggingFaceFolder(reference, folder, "").tokenizer_digest()
        elif file is not None:
            digest = hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
        return cls(size, file, digest)

    def compare(self, protocol: Protocol, served: Served) -> None:
        """Hold the engine's tokenizer against the one that is given.

        Raises:
            ConfigError: tokenizers is not installed.
            ModelError: a text becomes other ids there.
        """
        if self.tokenizer is None:
            return
        try:
            from tokenizers import Tokenizer
        except ImportError as exc:
            raise ConfigError(
                f"tokenizer {self.tokenizer} cannot be read: tokenizers is not installed: pip install "
                "'edldist[huggingface]' (in a clone: '.[huggingface]')"
            ) from exc
        try:
            ours: list[int] = (
                Tokenizer.from_file(str(self.tokenizer)).encode(_PROBE, add_special_tokens=False).ids
            )
        except Exception as exc:  # of a library in Rust, which has no other class
            raise ConfigError(f"tokenizer {self.tokenizer} cannot be read: {exc}") from exc
        try:
            theirs = protocol.tokenize(served, _PROBE)
        except RefusedError as exc:
            raise ModelError(
                f"{protocol.client.address} does not tell which ids it makes of a text, so nothing can be "
                f"held against {self.tokenizer} (leave tokenizer out to do without): HTTP {exc.status}: "
                f"{exc.words}"
            ) from exc
        before, alike = max(
            ((before, _alike(ours, theirs[before:])) for before in range(_MOST_SPECIAL + 1)),
            key=lambda each: each[1],
        )
        behind = len(theirs) - before - alike
        if alike == len(ours) and behind <= _MOST_SPECIAL:
            return
        mine, its = (part[alike] if alike < len(part) else "none" for part in (ours, theirs[before:]))
        raise ModelError(
            f"{protocol.client.address} has another tokenizer than {self.tokenizer}: it makes {len(theirs)} "
            f"tokens of {_PROBE[:20]!r}..., and this one {len(ours)}; the first difference is at token "
            f"{alike}: {its} instead of {mine}. Its labels would be of other words"
        )


def _alike(one: list[int], other: list[int]) -> int:
    """How many ids two lists have in common from their beginning."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (mine, its) in enumerate(pairs) if mine != its), min(len(one), len(other)))


def _size_in(config: Path) -> int | None:
    """``vocab_size`` of a model's config, which may be in that of its text part."""
    try:
        document = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for part in (document, document.get("text_config") if isinstance(document, dict) else None):
        size = part.get("vocab_size") if isinstance(part, dict) else None
        if isinstance(size, int) and size > 1:
            return size
    return None
