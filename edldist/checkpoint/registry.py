"""Objects of this process that a saved state has to hold, or a restored run would go wrong."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

from edldist.errors import CheckpointError

__all__ = ["must_be_saved", "need_not_be_saved", "require_in"]

_required: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()


def must_be_saved(thing: object, loss: str) -> None:
    """From now on a state without such an object is refused.

    Args:
        thing: known for as long as it lives; compared by identity, so it must be hashable by identity.
        loss: what a restored run would do without it, as in ``repeat or lose samples``.
    """
    _required[thing] = loss


def need_not_be_saved(thing: object) -> None:
    """The object is closed: its state is of no more use. Harmless when repeated."""
    _required.pop(thing, None)


def require_in(state: Mapping[str, object]) -> None:
    """Refuse a state that lacks what must be saved.

    Raises:
        CheckpointError: none of the registered objects of some kind is in it.
    """
    kinds = {type(thing): loss for thing, loss in list(_required.items())}
    for kind, loss in kinds.items():
        if not any(isinstance(value, kind) for value in state.values()):
            name = kind.__name__
            raise CheckpointError(
                f"the state ({', '.join(state) or 'empty'}) lacks the {name}: a restored run would "
                f'{loss}. Add it, as in {{"model": model, "optimizer": optimizer, "loader": loader}}'
            )
