"""One fingerprint for each teacher group, laid down by its first live worker. Pure.

So no two ranks can be served by different models under one name. Several *versions* of one model may be there
where all students that want the group take them (``DistillLoader(versions=...)``). A group whose last worker
has gone may begin again with another model; a student that has used labels of the former one refuses it then
(``labels.standard``).

A fresh coordinator knows no worker, and the first that comes to it may be one that the former coordinator has
refused. So those that come anew before everyone who was there had time to come back are *provisional*: they
give way to one that was there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from edldist.labels.fingerprint import Fingerprint
from edldist.wire.messages import Register

__all__ = ["GroupFingerprints"]


@dataclass(slots=True)
class _Version:
    fingerprint: Fingerprint
    workers: dict[str, None] = field(default_factory=dict)  # ids, in the order in which they came


class GroupFingerprints:
    """What the live workers of each group are. Owned by the membership; nothing survives a restart."""

    def __init__(self) -> None:
        # Invariant: a group in here has a version, that has a worker, and none of these differs from its
        # fingerprint. Versions of a group differ in nothing else than their names and weights.
        self._groups: dict[str, dict[str, _Version]] = {}
        # Invariant: each of them is a worker in there.
        self._provisional: set[str] = set()

    @property
    def groups(self) -> Collection[str]:
        """The groups that have a worker."""
        return self._groups.keys()

    def validate(self, teachers: Iterable[Register]) -> None:
        """Check the invariants, for tests.

        Args:
            teachers: the registrations of all workers that are members.
        """
        here: dict[str, dict[str, set[str]]] = {}
        for register in teachers:
            its = register.fingerprint
            assert its is not None, f"{register.id} has no fingerprint"
            here.setdefault(register.group, {}).setdefault(its.version, set()).add(register.id)
            known = self._groups[register.group][its.version].fingerprint
            assert not its.differences(known), f"{register.id} is not like its group"
        listed = {
            group: {version: {*entry.workers} for version, entry in versions.items()}
            for group, versions in self._groups.items()
        }
        assert listed == here, "members are not those of the groups"
        for versions in self._groups.values():
            first, *others = (entry.fingerprint for entry in versions.values())
            assert not any(other.differences(first, any_version=True) for other in others)
        members = {
            worker for versions in here.values() for workers in versions.values() for worker in workers
        }
        assert self._provisional <= members, "somebody who is gone gives way"

    def objection(self, message: Register, rolls: Callable[[], bool] = lambda: False) -> str | None:
        """Why a teacher worker does not belong to the group that it names, or None.

        Args:
            rolls: whether another version of the group's model may come beside those that are there.
        """
        its = message.fingerprint
        if its is None:
            return f"teacher worker {message.id} has no fingerprint: install the same edldist version"
        others = {
            version: (entry.fingerprint, other)
            for version, entry in self._groups.get(message.group, {}).items()
            if (other := next((worker for worker in entry.workers if worker != message.id), None)) is not None
        }
        if not others:
            return None
        known, other = others.get(its.version) or next(iter(others.values()))
        differences = its.differences(known)
        if differences and its.version not in others and rolls():
            differences = its.differences(known, any_version=True)
        if not differences:
            return None
        return (
            f"teacher worker {message.id} is not like worker {other}, which serves teacher {message.group!r} "
            f"now: {'; '.join(differences)}. Start it with the same model, weights, version and codec, or "
            "under another --name; or end the workers of the group first"
        )

    def giving_way(self, message: Register, any_version: bool = False) -> list[str]:
        """Who has to go so that there is no objection to a worker that was there before: provisional ones.

        Args:
            any_version: whether other versions of the group's model may stay.

        Returns:
            Their ids; none if one of those in its way is not provisional.
        """
        its = message.fingerprint
        if its is None:
            return []
        unlike = [
            worker
            for version, entry in self._groups.get(message.group, {}).items()
            if its.differences(entry.fingerprint, any_version=any_version and version != its.version)
            for worker in entry.workers
            if worker != message.id
        ]
        return unlike if self._provisional.issuperset(unlike) else []

    def is_provisional(self, worker: str) -> bool:
        """Whether a worker gives way to those that were there before it."""
        return worker in self._provisional

    def settle(self) -> None:
        """Everyone who was there had time to come back: nobody gives way any more."""
        self._provisional.clear()

    def joined(self, message: Register, provisional: bool = False) -> None:
        """A worker to which there was no objection is a member; it may be one already."""
        its = message.fingerprint
        if its is None:
            return
        group = self._groups.setdefault(message.group, {})
        entry = group.setdefault(its.version, _Version(its))
        entry.workers[message.id] = None
        if provisional:
            self._provisional.add(message.id)
        if its.outputs is not None:
            entry.fingerprint = its

    def left(self, message: Register) -> None:
        """A worker, as it has joined, is no member any more."""
        its, group = message.fingerprint, self._groups.get(message.group, {})
        if its is None or its.version not in group or message.id not in group[its.version].workers:
            return
        self._provisional.discard(message.id)
        del group[its.version].workers[message.id]
        if not group[its.version].workers:
            del group[its.version]
        if not group:
            del self._groups[message.group]
