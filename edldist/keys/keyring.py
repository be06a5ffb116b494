"""The keys that one process knows: its own pair, and whom it lets in or expects at the other end."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from edldist.keys.pair import KeyPair

__all__ = ["Keyring", "Known"]


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
        found = self._by_public.get(public)
        return found.role if found is not None and found.counts(wall_s) else None

    def of_role(self, role: str, wall_s: float) -> list[str]:
        """The public keys of a role that count, the newest first."""
        return [each.public for each in self._known if each.role == role and each.counts(wall_s)]
