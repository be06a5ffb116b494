"""That somebody rotated, added or retired keys of the job, as an event of its record. Pure."""

from __future__ import annotations

from edldist.keys.keyring import KeyNews
from edldist.wire.messages import Event

__all__ = ["RELINK_S", "keys_changed"]

RELINK_S = 5.0
"""How long members may take to link up with a coordinator that has another key: each looks at its folder once
a second, and tries again a second after it was turned away."""


def keys_changed(news: KeyNews, wall: float) -> Event:
    """What is recorded: numbers, and no key.

    Args:
        wall: unix seconds.
    """
    return Event(event="keys_changed", t=wall, fields=dict(news._asdict()))
