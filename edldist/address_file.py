"""The file in which a coordinator says where it listens, for those who cannot know it beforehand.

An engine may start a coordinator on any host, and again on another one. Those who look for it are told of a
file that all hosts see, by an absolute path::

    coordinator = address | "file:" PATH      tcp://10.0.0.5:7070, or file:/jobs/digits/coordinator.json

Each coordinator writes the file anew once it listens, whole, and so takes the place of the one before. It is
read at first, and again whenever nobody answers where it said (``wire.moving``).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edldist.address import Address, parse_address
from edldist.errors import ConfigError, CoordinatorUnreachableError

__all__ = ["AddressFile", "find_coordinator", "parse_coordinator"]

PREFIX = "file:"
_LOOK_S = 0.2
_MOST_BYTES = 4096


@dataclass(frozen=True)
class AddressFile:
    """A file that a coordinator writes, and others read.

    Attributes:
        path: absolute.
    """

    path: Path

    def __str__(self) -> str:
        return f"{PREFIX}{self.path}"

    def read(self) -> Address | None:
        """Where the coordinator listens that wrote it last; None where no file is there.

        Raises:
            OSError: it cannot be read now.
            ConfigError: it says something else.
        """
        try:
            with self.path.open("rb") as file:
                text = file.read(_MOST_BYTES)
        except FileNotFoundError:
            return None
        try:
            said = json.loads(text)["address"]
            return parse_address(said, "address")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError) as exc:
            raise ConfigError(
                f"{self.path} is no address file of a coordinator: {text[:80]!r}. Name the file that "
                "'edldist coordinator --address-file' writes"
            ) from exc

    def write(self, fields: Mapping[str, Any]) -> None:
        """Say where a coordinator listens (``address``), and what else is of use; readers see all or nothing.

        Raises:
            ConfigError: it cannot be written.
        """
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            draft.write_text(json.dumps(dict(fields)) + "\n", encoding="utf-8")
            draft.replace(self.path)
        except OSError as exc:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise ConfigError(f"cannot write the address file {self.path}: {exc.strerror or exc}") from exc

    def remove(self) -> None:
        """Let nobody who looks now find a coordinator that is gone."""
        with contextlib.suppress(OSError):
            self.path.unlink()


def parse_coordinator(text: str, what: str) -> Address | AddressFile:
    """Where a coordinator is, or which file says so.

    Args:
        what: where the text was given, for the error.

    Raises:
        ConfigError: it is neither an address nor ``file:`` and an absolute path.
    """
    path = text.removeprefix(PREFIX)
    if path == text:
        return parse_address(text, what)
    if not path.startswith("/") or "\0" in path:
        raise ConfigError(
            f"{what}: {text!r} names no file: write file: and an absolute path, as in "
            "file:/jobs/digits/coordinator.json"
        )
    return AddressFile(Path(path))


def find_coordinator(
    text: str, what: str, timeout_s: float, stop: Callable[[], bool] = lambda: False
) -> Address:
    """The address that is meant now; of a file that is not there yet, once it is.

    Args:
        text: as for ``parse_coordinator``.
        what: where the text was given, for the error.
        timeout_s: how long to wait for a file.
        stop: says to wait no longer.

    Raises:
        ConfigError: the text is wrong, or the file.
        CoordinatorUnreachableError: no coordinator wrote the file in time.
    """
    place = parse_coordinator(text, what)
    if isinstance(place, Address):
        return place
    deadline = time.monotonic() + timeout_s
    while True:
        why = ""
        try:
            if (address := place.read()) is not None:
                return address
        except OSError as exc:  # a file that is being replaced, or a file server that is
            why = f" ({exc.strerror})"
        if stop() or time.monotonic() > deadline:
            raise CoordinatorUnreachableError(
                f"no coordinator wrote {place.path} within {timeout_s:.0f} s{why}. Is one running "
                f"(edldist coordinator --address-file {place.path}), and does this host see that folder?"
            )
        time.sleep(_LOOK_S)
