"""Objects of this process that a saved state has to hold, or a restored run would go wrong.

Such an object announces itself when it is made, says when training begins to depend on it, and notes
every taking of its state. So an object counts as part of a state however deep it lies in it: inside a
list of an own object's, or behind a ``state_dict`` that calls the object's own.

::

    made --announce--> announced --must_be_saved--> required --need_not_be_saved--> forgotten
                       a restore refuses a state     a save refuses a state
                       without any of these          without each of these
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Collection, Iterator
from contextvars import ContextVar

from edldist.errors import CheckpointError

__all__ = [
    "announce",
    "must_be_saved",
    "need_not_be_saved",
    "require_all",
    "require_some",
    "state_taken",
    "states_taken",
]

# Invariant: what is in _required is in _announced.
_announced: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()
_required: weakref.WeakSet[object] = weakref.WeakSet()
_taken: ContextVar[list[object] | None] = ContextVar("_taken", default=None)


def announce(thing: object, what: str) -> None:
    """The object was made, and may have to be in the states of this process.

    Args:
        thing: known for as long as it lives; compared by identity, so it must be hashable by identity.
        what: the object, and what a restored run would do without it, as in ``DistillLoader of teacher
            'big': a restored run would repeat or lose samples``.
    """
    _announced[thing] = what


def must_be_saved(thing: object) -> None:
    """The training depends on the announced object from now on: a saved state without it is refused."""
    _required.add(thing)


def need_not_be_saved(thing: object) -> None:
    """The object is closed: its state is of no more use. Harmless when repeated."""
    _announced.pop(thing, None)
    _required.discard(thing)


def state_taken(thing: object) -> None:
    """To be called by an announced object's ``state_dict``."""
    taken = _taken.get()
    if taken is not None and not any(thing is other for other in taken):
        taken.append(thing)


@contextlib.contextmanager
def states_taken() -> Iterator[list[object]]:
    """The announced objects whose state is taken inside, by this thread, in that order."""
    taken: list[object] = []
    outer = _taken.set(taken)
    try:
        yield taken
    finally:
        _taken.reset(outer)


def require_all(names: Collection[str], taken: Collection[object]) -> None:
    """Refuse to save a state that lacks an object which must be saved.

    Args:
        names: of the objects that the state consists of.
        taken: what was found in it (see ``states_taken``).

    Raises:
        CheckpointError: says which object.
    """
    for thing in list(_required):
        if not any(thing is other for other in taken):
            kind = _announced[thing]
            same = any(_announced.get(other) == kind for other in taken)
            raise _lacking(names, f"other {kind}" if same else kind)


def require_some(names: Collection[str], taken: Collection[object]) -> None:
    """Refuse to restore a state that holds none of the objects that may have to be saved.

    Which ones have to be is not known before training begins, but a script that gives none has forgotten
    something, and learns it at its start.

    Raises:
        CheckpointError: there are such objects, and none is in the state.
    """
    announced = list(_announced.items())
    if announced and not any(thing is other for thing, _ in announced for other in taken):
        raise _lacking(names, announced[0][1])


def _lacking(names: Collection[str], what: str) -> CheckpointError:
    return CheckpointError(
        f"the state ({', '.join(names) or 'empty'}) lacks the {what}. If its position does not matter, as in "
        "an evaluation, make it with checkpointed=False. Else add it, as in "
        '{"model": model, "optimizer": optimizer, "loader": loader}, or to an object of the state, whose '
        "state_dict() then has to call its state_dict()"
    )
