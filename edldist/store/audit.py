"""Whether the files of a recipe are still what was written."""

from __future__ import annotations

import msgspec

from edldist.checkpoint.manifest import DamagedError
from edldist.store.place import Place

__all__ = ["Audit", "audit"]


class Audit(msgspec.Struct, frozen=True):
    """What was found of one recipe.

    Attributes:
        recipe: its digest.
        files, samples, bytes: that are sound.
        damaged: why others are not, by file.
    """

    recipe: str
    files: int
    samples: int
    bytes: int
    damaged: dict[str, str]


def audit(place: Place) -> Audit:
    """Read all files of a place, and compare them with their names and their list. Changes nothing.

    Raises:
        OSError: they cannot be read; says nothing about their content.
        StoreError: another recipe, or another revision of edldist.
    """
    place.check_recipe()
    files = samples = nbytes = 0
    damaged: dict[str, str] = {}
    for name, listed in place.entries().items():
        try:
            found = place.open(name).entry(listed.written_unix_s)
        except DamagedError as exc:
            damaged[name] = str(exc)
            continue
        except FileNotFoundError:
            if place.has(name):
                raise
            if name in place.entries():  # not evicted by another process just now
                damaged[name] = f"{name} is listed, and not there"
            continue
        if found != listed:
            damaged[name] = f"{name} is sound, and the list says otherwise of it: {listed}"
            continue
        files, samples, nbytes = files + 1, samples + found.samples, nbytes + found.bytes
    return Audit(place.digest, files, samples, nbytes, damaged)
