"""Where a vocabulary is read from: a tokenizer, a folder or a file of one, a map, a list."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edldist.errors import ConfigError
from edldist.vocabulary.tokens import Tokens, as_text, texts_of

__all__ = ["FILES", "is_source", "read_folder", "tokens_of"]

FILES = ("tokenizer.json", "vocab.json", "vocab.txt")
"""Of a tokenizer, in the order in which they are looked for: the first one says what the ids are."""
_ADDED = "added_tokens.json"


def tokens_of(source: Any) -> Tokens:
    """The id map of whatever has one.

    Args:
        source: a tokenizer of transformers or tokenizers (anything with ``get_vocab()``), a folder with a
            tokenizer or one of its files, a map from tokens to ids, or a sequence of tokens.

    Raises:
        ConfigError: it is none of these, or its file cannot be read.
    """
    if isinstance(source, Tokens):
        return source
    if callable(ask := getattr(source, "get_vocab", None)):
        return Tokens.of_ids(ask())
    if isinstance(source, Mapping):
        return Tokens.of_ids(source)
    if isinstance(source, (str, Path)):
        return _read(Path(source))
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return texts_of(source)
    raise ConfigError(
        f"vocabulary {source!r:.100} ({type(source).__name__}): use a tokenizer, a folder or file of one, a "
        "dict "
        "from tokens to ids, or a list of tokens"
    )


def is_source(value: object) -> bool:
    """Whether something looks like what ``tokens_of`` takes."""
    kinds = (Tokens, Mapping, list, tuple, str, Path)
    return isinstance(value, kinds) or callable(getattr(value, "get_vocab", None))


def read_folder(folder: Path) -> Tokens | None:
    """The vocabulary of a tokenizer that lies in a folder; None if none does that can be read.

    Raises:
        ConfigError: a file of it is damaged.
    """
    for name in FILES:
        if (folder / name).is_file():
            return _read_file(folder / name)
    return None


def _read(path: Path) -> Tokens:
    if path.is_file():
        return _read_file(path)
    if not path.is_dir():
        raise ConfigError(f"vocabulary {path}: there is no such file or folder")
    found = read_folder(path)
    if found is None:
        found = _by_library(path)
    return found


def _by_library(folder: Path) -> Tokens:
    """Of a tokenizer in a form that transformers alone can read."""
    try:
        from transformers import AutoTokenizer

        return Tokens.of_ids(AutoTokenizer.from_pretrained(folder, local_files_only=True).get_vocab())
    except Exception as exc:
        raise ConfigError(
            f"vocabulary {folder}: there is no {', '.join(FILES)} in it, nor a tokenizer that transformers "
            "can "
            f"read ({type(exc).__name__}: {str(exc).partition(chr(10))[0][:200]})"
        ) from exc


def _read_file(file: Path) -> Tokens:
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix != ".json":
            return texts_of(text.removesuffix("\n").split("\n"))
        content = json.loads(text)
        if "model" not in content:
            return Tokens.of_ids(content | _added_beside(file))
        model, added = content["model"]["vocab"], content.get("added_tokens") or []
        ids = (
            dict(model) if isinstance(model, dict) else {as_text(each[0]): i for i, each in enumerate(model)}
        )
        return Tokens.of_ids(ids | {each["content"]: each["id"] for each in added})
    except (OSError, ValueError, KeyError, TypeError, IndexError) as exc:
        raise ConfigError(f"vocabulary {file} cannot be read: {type(exc).__name__}: {exc}") from exc


def _added_beside(file: Path) -> dict[str, int]:
    beside = file.parent / _ADDED
    added: dict[str, int] = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    return added
