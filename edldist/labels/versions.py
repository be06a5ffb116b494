"""Versions of one teacher that follow each other, and which of them it learns from. Pure.

A version is a whole number that its user gives (``--model-version``): of two, the larger is the newer.
"""

from __future__ import annotations

from edldist.labels.fingerprint import Fingerprint

__all__ = ["LARGEST_VERSION", "Versions", "is_newer", "number_of"]

LARGEST_VERSION = 2**63 - 1


def number_of(version: str) -> int | None:
    """The number that a version is, or None if it is none."""
    if not (version.isascii() and version.isdigit()) or len(version) > 19:
        return None
    number = int(version)
    return number if number <= LARGEST_VERSION and str(number) == version else None


def is_newer(its: Fingerprint, than: Fingerprint) -> bool:
    """Whether a version follows another one."""
    return (number_of(its.version) or 0) > (number_of(than.version) or 0)


class Versions:
    """The newest versions of a teacher, of which labels are taken.

    Args:
        most: how many.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        # Invariant: the newest ``most`` that were ever seen, each with the digest of its weights, rising.
        self._weights: dict[int, str] = {}

    @property
    def oldest(self) -> int:
        """The oldest one that is still taken, as far as is known."""
        return next(iter(self._weights)) if len(self._weights) == self.most else 0

    def objection(self, its: Fingerprint) -> str | None:
        """Why a version cannot be one of them at all, or None."""
        number = number_of(its.version)
        if number is None:
            return (
                f"version {its.version or '(none)'}, which is no whole number: give --model-version 1, 2, ..."
            )
        weights = self._weights.get(number, its.weights)
        if weights != its.weights:
            return f"version {number} with weights {its.weights or '(none)'} instead of {weights or '(none)'}"
        return None

    def is_stale(self, version: str) -> bool:
        """Whether as many newer ones are known as are taken."""
        number = number_of(version)
        return number is None or number < self.oldest

    def see(self, its: Fingerprint) -> bool:
        """A version to which there is no objection is there; whether others have become stale by that."""
        number = number_of(its.version)
        assert number is not None
        if number in self._weights or self.is_stale(its.version):
            return False
        before = self.oldest
        known = {**self._weights, number: its.weights}
        self._weights = {each: known[each] for each in sorted(known)[-self.most :]}
        return self.oldest > before

    def named(self) -> str:
        """Those that are taken, newest first."""
        return ", ".join(map(str, reversed(self._weights)))
