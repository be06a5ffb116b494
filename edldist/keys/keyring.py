"""The keys that one process knows: its own pair, and whom it lets in or expects at the other end."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from edldist.keys.pair import KeyPair

__all__ = ["KeyNews", "Keyring", "Known", "key_news"]


class Known(NamedTuple):
    """A public key that counts.

    Attributes:
        role, name: whose it is.
        public: the key, in Z85.
        until: unix seconds from which on it counts no more; None: for good.
    """

    role: str
    name: str
    public: str
    until: float | None = None

    def counts(self, wall_s: float) -> bool:
        return self.until is None or wall_s < self.until


class Keyring:
    """A process's own pair and the public keys that count. Never changes.

    Args:
        own: this process's pair.
        known: all public keys of the job, of each role the newest first.
    """

    def __init__(self, own: KeyPair, known: Collection[Known]) -> None:
        self.own = own
        self._by_public = {each.public: each for each in known}
        self._known = tuple(known)

    def role_of(self, public: str, wall_s: float) -> str | None:
        """What a key is for; None if it does not count (any more)."""
        found = self.owner_of(public, wall_s)
        return None if found is None else found.role

    def owner_of(self, public: str, wall_s: float) -> Known | None:
        """Whose a key is: of one role and name through all rotations; None if it counts no more."""
        found = self._by_public.get(public)
        return found if found is not None and found.counts(wall_s) else None

    def of_role(self, role: str, wall_s: float) -> list[str]:
        """The public keys of a role that count, the newest first."""
        return [each.public for each in self._known if each.role == role and each.counts(wall_s)]

    def counting(self, wall_s: float) -> frozenset[Known]:
        """All public keys that count."""
        return frozenset(each for each in self._known if each.counts(wall_s))


class KeyNews(NamedTuple):
    """What became of a job's keys, as one process sees it.

    Attributes:
        rotated: this process has another key of its own now.
        added: how many keys count that did not.
        retired: how many count no more that did.
        former: how many of those that count do so for a while only.
    """

    rotated: bool
    added: int
    retired: int
    former: int


def key_news(before: Keyring, now: Keyring, wall_s: float) -> KeyNews | None:
    """What somebody has changed between two readings of a folder; None where that changes nothing. Pure.

    Args:
        wall_s: unix seconds. A key whose time ran out by itself is no news.
    """
    old, new = ({each.public for each in ring.counting(wall_s)} for ring in (before, now))
    rotated = before.own.public != now.own.public
    if not rotated and old == new:
        return None
    former = sum(each.until is not None for each in now.counting(wall_s))
    return KeyNews(rotated, len(new - old), len(old - new), former)
