"""One fingerprint for each teacher group, laid down by its first live worker. Pure.

So no two ranks can be served by different models under one name. A group whose last worker has gone may
begin again with another model; a student that has used labels of the former one refuses it then
(``labels.standard``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from edldist.labels.fingerprint import Fingerprint
from edldist.wire.messages import Register

__all__ = ["GroupFingerprints"]


@dataclass(slots=True)
class _Group:
    fingerprint: Fingerprint
    workers: dict[str, None] = field(default_factory=dict)  # ids, in the order in which they came


class GroupFingerprints:
    """What the live workers of each group are. Owned by the membership; nothing survives a restart."""

    def __init__(self) -> None:
        # Invariant: a group in here has a worker, and none of its workers differs from its fingerprint.
        self._groups: dict[str, _Group] = {}

    @property
    def groups(self) -> Collection[str]:
        """The groups that have a worker."""
        return self._groups.keys()

    def objection(self, message: Register) -> str | None:
        """Why a teacher worker does not belong to the group that it names, or None."""
        its = message.fingerprint
        if its is None:
            return f"teacher worker {message.id} has no fingerprint: install the same edldist version"
        group = self._groups.get(message.group)
        other = next((worker for worker in group.workers if worker != message.id), None) if group else None
        if group is None or other is None or not (differences := its.differences(group.fingerprint)):
            return None
        return (
            f"teacher worker {message.id} is not like worker {other}, which serves teacher {message.group!r} "
            f"now: {'; '.join(differences)}. Start it with the same model, weights, version and codec, or "
            "under another --name; or end the workers of the group first"
        )

    def joined(self, message: Register) -> None:
        """A worker to which there was no objection is a member; it may be one already."""
        its = message.fingerprint
        if its is None:
            return
        group = self._groups.setdefault(message.group, _Group(its))
        group.workers[message.id] = None
        if its.outputs is not None or len(group.workers) == 1:
            group.fingerprint = its

    def left(self, message: Register) -> None:
        """A worker is no member any more."""
        group = self._groups.get(message.group)
        if group is None or message.id not in group.workers:
            return
        del group.workers[message.id]
        if not group.workers:
            del self._groups[message.group]
