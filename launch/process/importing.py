"""Folders from which models and scripts import, without hiding Python's own modules.

They are the current folder, and then that of the job file.

A folder in front of the standard library, as ``PYTHONPATH`` and ``python -m`` put it there, makes a user's
``queue.py`` the ``queue`` of every library in the process. So only those processes get such a folder that run
a user's code, and those of edldist's own kind get it behind the standard library.
"""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
from collections.abc import MutableMapping

__all__ = ["add_to_environment", "hidden_modules", "make_importable"]

logger = logging.getLogger(__name__)


def make_importable(*folders: str) -> None:
    """Let this process import modules of folders: after Python's own, before what is installed."""
    places = [place for place in sys.path if place not in folders]
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    own = [number for number, place in enumerate(places) if _within(place, standard)]
    at = own[-1] + 1 if own else 0
    places[at:at] = dict.fromkeys(folders)
    sys.path[:] = places


def add_to_environment(environment: MutableMapping[str, str], *folders: str) -> None:
    """Put folders in front of ``PYTHONPATH``, unless they would hide modules of Python's own; in place."""
    for folder in reversed(folders):
        _put_in_front(environment, folder)


def _put_in_front(environment: MutableMapping[str, str], folder: str) -> None:
    others = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part and part != folder]
    if hidden := hidden_modules(folder):
        logger.warning(
            "%s holds %s, which would take the place of Python's own: scripts import from their own folder "
            "only. Rename it to have modules of this folder found",
            folder,
            ", ".join(hidden),
        )
    else:
        others.insert(0, folder)
    if others:
        environment["PYTHONPATH"] = os.pathsep.join(others)
    else:
        environment.pop("PYTHONPATH", None)


def hidden_modules(folder: str) -> list[str]:
    """Files and packages of a folder that have the name of a module of the standard library."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name, dot, kind = entry.name.partition(".")
            package = not dot and os.path.exists(os.path.join(entry.path, "__init__.py"))
            if name in sys.stdlib_module_names and (package or kind == "py" or kind.endswith("so")):
                found.append(entry.name)
    return sorted(found)


def _within(place: str, standard: set[str]) -> bool:
    """Whether an entry of ``sys.path`` is the standard library, its archive or its ``lib-dynload``."""
    whole = os.path.realpath(place) if place else ""
    roots = {os.path.realpath(root) for root in standard}
    inside = any(whole == root or whole.startswith(root + os.sep) for root in roots)
    return inside and "site-packages" not in whole and "dist-packages" not in whole
