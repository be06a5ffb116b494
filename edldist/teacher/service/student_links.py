"""A worker's links to students: who is greeted, served, silent, refuses it, or is gone.

A link to one student goes through::

    greeting --Welcome--> serving --silent, Unknown--> greeting ...
       |                     |
       +-- Refused: left alone until the coordinator says otherwise
                             +-- Goodbye, released by the coordinator, or unknown to it and silent: closed

When a student dies, what is held of it is dropped: nobody wants it any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from edldist.errors import ConfigError
from edldist.labels.fingerprint import Fingerprint
from edldist.observe.repeats import Repeats
from edldist.teacher.service.identity import TeacherIdentity
from edldist.teacher.service.student import ServedStudent
from edldist.wire.messages import Goodbye, Hello, Links, Peer
from edldist.wire.transport import Link

__all__ = ["GREET_AGAIN_S", "StudentLinks"]

logger = logging.getLogger(__name__)

GREET_AGAIN_S = 2.0


class StudentLinks:
    """Opens links as the coordinator says, and gives them up. Owned by the I/O thread.

    Args:
        identity: of this worker, as it greets.
        dial: opens a link to an address.
        now: monotonic seconds.
        disconnected: called with the name of a student that does not expect answers (any more).

    Attributes:
        students: by name, those that are linked.
    """

    def __init__(
        self,
        identity: TeacherIdentity,
        dial: Callable[[str], Link],
        now: float,
        disconnected: Callable[[str], None],
    ) -> None:
        self.students: dict[str, ServedStudent] = {}
        self._identity = identity
        self._dial = dial
        self._looked_at = now
        self._disconnected = disconnected
        self._unusable = Repeats(logger)

    @property
    def serving(self) -> bool:
        """Whether a student takes this worker's labels."""
        return any(student.serving for student in self.students.values())

    @property
    def unwanted(self) -> str:
        """Why no student will ever take this worker; empty while one may."""
        reasons = [student.incompatible for student in self.students.values()]
        return reasons[-1] if reasons and all(reasons) else ""

    def follow(self, links: Links, now: float, fingerprint: Fingerprint, anew: bool) -> None:
        """Serve whom the coordinator names.

        Args:
            fingerprint: what this worker labels with, as it is said to those that are greeted.
            anew: whether to link to anybody who is not linked yet.
        """
        wanted = {peer.id: peer for peer in links.students}
        for name, student in list(self.students.items()):
            moved = name in wanted and wanted[name].address != student.peer.address
            student.missing = links.complete and name not in wanted
            if moved or (student.missing and name in links.released):
                self.forget(student, "the coordinator reassigned it")
            elif student.missing:
                self._forget_if_silent(student, now)
        for name, peer in wanted.items():
            if name not in self.students and anew:
                self._link(peer, now, fingerprint)

    def greet(self, student: ServedStudent, now: float, fingerprint: Fingerprint) -> None:
        """Ask a student for work."""
        me = self._identity
        student.greeted_at = now
        student.serving = student.refused = False
        student.incompatible = ""
        student.link.send(
            Hello(
                worker=me.worker,
                teacher=me.teacher,
                fingerprint=fingerprint,
                process=me.process,
                host=me.host,
            )
        )

    def look(self, now: float, fingerprint: Fingerprint) -> None:
        """Find out who is silent, and greet again who did not answer."""
        away_s, self._looked_at = now - self._looked_at, now
        for student in list(self.students.values()):
            # This side stood still: what it did not hear meanwhile is no silence, and waits in the socket.
            if away_s > student.ttl_s / 2:
                student.last_heard = min(now, student.last_heard + away_s)
            if student.missing:
                self._forget_if_silent(student, now)
                if student.peer.id not in self.students:
                    continue
            silent_s = now - student.last_heard
            if student.serving and silent_s > student.ttl_s:
                logger.warning("student %s silent for %.1f s; greeting it again", student.peer.id, silent_s)
                self._disconnected(student.peer.id)
                self.students.pop(student.peer.id).link.close(at_once=True)  # broken, it swallows greetings
                self._link(student.peer, now, fingerprint)
            elif not student.serving and not student.refused and now - student.greeted_at > GREET_AGAIN_S:
                self.greet(student, now, fingerprint)

    def give_up(self, student: ServedStudent, reason: str) -> None:
        """Leave a student alone that does not want this worker; the others are served on."""
        logger.warning("student %s refused this worker: %s", student.peer.id, reason)
        student.refused, student.serving = True, False
        self._disconnected(student.peer.id)

    def forget(self, student: ServedStudent, reason: str) -> None:
        """Close the link to a student that is gone, or is no longer this worker's."""
        name = student.peer.id
        logger.info("no longer serving student %s: %s", name, reason or "it left")
        del self.students[name]
        self._disconnected(name)
        if student.serving:
            student.link.send(Goodbye(id=self._identity.worker, reason=reason))
        student.link.close()

    def leave(self, reason: str) -> None:
        """Say goodbye to all."""
        for student in self.students.values():
            if student.serving:
                student.link.send(Goodbye(id=self._identity.worker, reason=reason))
        self._unusable.end()

    def _link(self, peer: Peer, now: float, fingerprint: Fingerprint) -> None:
        try:
            link = self._dial(peer.address)
        except ConfigError as exc:
            self._unusable.warn(f"student {peer.id} has an address that cannot be used: {exc}", of=peer.id)
            return
        self.students[peer.id] = student = ServedStudent(peer, link, now, now)
        self.greet(student, now, fingerprint)

    def _forget_if_silent(self, student: ServedStudent, now: float) -> None:
        """A student that the coordinator lost may be dead, or the coordinator alone may be cut off."""
        if now - student.last_heard > student.ttl_s:
            self.forget(student, "the coordinator lost it, and it is silent here too")
