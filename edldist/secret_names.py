"""Variables that hold secrets, as their names tell, and words and documents without what they hold. Pure.

A job file may set variables of its processes (``env:``), and a library may quote a key or a password in what
it raises. Neither belongs into logs, or into pages that people pass on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["HIDDEN", "helper_environment", "is_secret", "without_secrets", "words_without_secrets"]

HIDDEN = "(not shown)"
"""What stands in the place of a secret."""
_NAME = re.compile(r"(?i)password|passwd|passphrase|secret|api_?key|(^|_)(key|token|pass|credentials?)(_|$)")
_NAMES_A_PLACE = re.compile(r"(?i)_(file|path|dir|folder)$")
_IN_URL = re.compile(r"(?<=://)[^/\s]+(?=@)")
_SHORTEST = 4
"""A shorter value may be a part of any word."""


def is_secret(variable: str) -> bool:
    """Whether a variable holds a secret, as its name tells: ``HF_TOKEN``, ``WANDB_API_KEY``."""
    return _NAME.search(variable) is not None and _NAMES_A_PLACE.search(variable) is None


def helper_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """These variables without their secrets: of a small process of edldist's own, which needs none."""
    return {name: value for name, value in environment.items() if not is_secret(name)}


def without_secrets(document: Any) -> Any:
    """A job file's document with ``HIDDEN`` for each secret that an ``env`` of it sets."""
    if isinstance(document, list):
        return [without_secrets(each) for each in document]
    if not isinstance(document, Mapping):
        return document
    return {key: (_hidden if key == "env" else without_secrets)(value) for key, value in document.items()}


def _hidden(variables: Any) -> Any:
    if not isinstance(variables, Mapping):
        return variables
    return {name: HIDDEN if is_secret(str(name)) else value for name, value in variables.items()}


def words_without_secrets(words: str, environment: Mapping[str, str]) -> str:
    """Words of somebody else, without the user and password of a URL and the secrets of these variables.

    Args:
        environment: the variables of this process.
    """
    secrets = [value for name, value in environment.items() if is_secret(name) and len(value) >= _SHORTEST]
    for secret in sorted(secrets, key=len, reverse=True):  # one may be a part of another
        words = words.replace(secret, HIDDEN)
    return _IN_URL.sub(HIDDEN, words)
