"""What ``module:factory`` makes: import, find, call, and words for each step that can fail.

A model's outputs are sent from the memory in which they lie. Memory that the model goes on holding, to write
to it again, is noticed and copied where torch knows of it (``kept_memory``): a model that returns numpy's
memory, or that ``torch.compile(mode="reduce-overhead")`` made, has to return clones.
"""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edldist.errors import ConfigError, ModelError, ModelImportError
from edldist.factories.signature import misfit

__all__ = ["find", "imported", "make", "own_traceback"]

_HOW_TO_GIVE = {
    "model": ". Give what it takes as kwargs: {name: value} of the teacher, or --model-arg name=value",
    "data set": ". Give what it takes as label.kwargs: {name: value}",
}
_OWN = (str(Path(__file__).parents[1]), str(Path("torch", "utils", "_contextlib.py")))


def make(what: str, path: str, kwargs: Mapping[str, Any] | None = None) -> Any:
    """Import ``package.module:factory`` and call it.

    Args:
        what: ``model``, ``dataset`` or ``data set``, for messages.
        kwargs: what the factory is called with.

    Raises:
        ConfigError: ``path`` is malformed.
        ModelError: any step failed; carries the factory's own traceback.
    """
    factory, kwargs = find(what, path, kwargs), kwargs or {}
    try:
        return factory(**kwargs)
    except Exception as exc:
        raise ModelError(f"{what} {path}: the factory raised:\n{own_traceback(exc)}") from exc


def find(what: str, path: str, kwargs: Mapping[str, Any] | None = None) -> Callable[..., Any]:
    """Import ``package.module:factory``, and see whether it can be called so.

    Args:
        what: ``model``, ``dataset`` or ``data set``, for messages.
        kwargs: what the factory is to be called with.

    Raises:
        ConfigError: ``path`` is malformed.
        ModelImportError: the module raised; carries its own traceback.
        ModelError: there is no such module or factory, or it takes other arguments.
    """
    factory, kwargs = imported(what, path), kwargs or {}
    if (why := misfit(factory, (), kwargs)) is not None:
        how = _HOW_TO_GIVE.get(what, "")
        given = f" with {', '.join(kwargs)}" if kwargs else " without arguments"
        name = path.partition(":")[2]
        raise ModelError(f"{what} {path}: {name} cannot be called{given}: {why}{how}")
    return factory


def imported(what: str, path: str) -> Callable[..., Any]:
    """Import ``package.module:factory``, whatever it is to be called with.

    Args:
        what: as of ``find``.

    Raises:
        ConfigError: ``path`` is malformed.
        ModelImportError: the module raised; carries its own traceback.
        ModelError: there is no such module or factory.
    """
    module_name, _, factory_name = path.partition(":")
    if not module_name or not factory_name:
        raise ConfigError(f"{what} {path!r}: use package.module:factory")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (module_name == exc.name or module_name.startswith(f"{exc.name}.")):
            raise ModelError(
                f"{what} {path}: no module named {exc.name!r} in {_own_places()}, and none is installed. "
                "Start from the folder that contains it, name that folder with --import-from (that of a job "
                "file is), or install it"
            ) from exc
        raise ModelImportError(f"{what} {path} cannot be imported:\n{own_traceback(exc)}") from exc
    except Exception as exc:
        raise ModelImportError(f"{what} {path} cannot be imported:\n{own_traceback(exc)}") from exc
    factory: Any = module
    for part in factory_name.split("."):
        try:
            factory = getattr(factory, part)
        except AttributeError:
            raise ModelError(f"{what} {path}: {module_name} has no {factory_name!r}") from None
    if not callable(factory):
        raise ModelError(f"{what} {path}: {factory_name} is a {type(factory).__name__}, not a factory")
    found: Callable[..., Any] = factory
    return found


def _own_places() -> str:
    """The folders that somebody chose to import from: Python's own and those of packages say nothing."""
    paths = sysconfig.get_paths()
    usual = {os.path.realpath(paths[key]) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    places = [os.path.realpath(place) for place in sys.path if not place.endswith(".zip")]
    return ", ".join(place for place in places if not place.startswith(tuple(usual))) or "any folder"


def own_traceback(exc: BaseException) -> str:
    """The traceback from the user's code on, without the frames of this package that lead to it."""
    trace = exc.__traceback__
    while trace is not None and any(part in trace.tb_frame.f_code.co_filename for part in _OWN):
        trace = trace.tb_next
    frames = [f for f in traceback.extract_tb(trace) if not f.filename.startswith("<frozen importlib")]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    return "".join(lines + traceback.format_exception_only(exc)).rstrip()
