"""What this student takes from each teacher group: one fingerprint, and the codec that decodes its labels."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from edldist.errors import CodecError
from edldist.labels.codec import make_codec
from edldist.labels.fingerprint import Fingerprint, VocabularyMark
from edldist.labels.packing import Codec
from edldist.labels.standard import Misfit, Standard
from edldist.student.service.options import ServiceOptions
from edldist.student.service.peers import ConnectedWorker
from edldist.student.service.unsuited import Unsuited
from edldist.wire.messages import Hello, Refused, Result, TokensTold, TokensWanted
from edldist.wire.transport import Sender

__all__ = ["Standards"]

_MOST_ASKED = 1_000


class Standards:
    """The standard of each teacher. Pure; the I/O thread owns it, but what is asked of it is for any.

    Args:
        options: the groups whose labels are wanted, and what is wanted of them.
    """

    def __init__(self, options: ServiceOptions) -> None:
        self._translations = options.translations
        self._one_set = options.one_set
        self._asked_codecs = options.codecs
        self._kept_only = options.store is not None and options.store.only
        self._asked: dict[Sender, Hello] = {}  # who was asked for its tokens
        self._standards = {
            name: Standard(
                name, options.codecs.get(name), self._objection_of(name), options.versions.get(name)
            )
            for name in options.teachers
        }
        self._codecs: dict[str, Codec] = {}
        self._refused = dict.fromkeys(options.teachers, "")
        self._unsuited = Unsuited()
        self._former: deque[Mapping[str, Fingerprint]] = deque()

    def _objection_of(self, teacher: str) -> Callable[[VocabularyMark | None], str | None]:
        translation = self._translations.get(teacher)
        return (lambda mark: None) if translation is None else translation.objection

    def codec(self, teacher: str) -> Codec:
        """The codec of a group of which there are labels."""
        return self._codecs[teacher]

    def admit(self, peer: Sender, hello: Hello, now: float) -> Refused | TokensWanted | None:
        """Take a worker that greets from some address, or say why not, or what it has to tell first."""
        translation = self._translations.get(hello.teacher)
        if translation is not None and translation.must_ask(hello.fingerprint.vocabulary):
            if len(self._asked) >= _MOST_ASKED:
                del self._asked[next(iter(self._asked))]
            self._asked[peer] = hello
            return TokensWanted()
        refusal = self._refusal(hello)
        if translation is not None and refusal is None:
            translation.taken(hello.fingerprint.vocabulary)
        self._unsuited.greeted(peer)
        if hello.teacher in self._refused:
            self._refused[hello.teacher] = "" if refusal is None else refusal.reason
            # A stale one would suit if there were none that is newer: such a one may come back.
            if refusal is not None and not self._standards[hello.teacher].is_stale(hello.fingerprint.version):
                self._unsuited.refused(peer, hello.teacher, refusal, now)
        return refusal

    def told(self, peer: Sender, told: TokensTold, frames: Sequence[memoryview]) -> Hello | None:
        """Somebody told its tokens: its greeting, to be looked at once more, if it was asked for them."""
        hello = self._asked.pop(peer, None)
        if hello is None or hello.fingerprint.vocabulary != told.mark or len(frames) != 1:
            return None
        return hello if self._translations[hello.teacher].learn(told.mark, frames[0]) else None

    def verdict(
        self, served_by: Collection[str], now: float, reach: Callable[[Sender, Refused], bool]
    ) -> str | None:
        """Why no worker that is here suits this student (see ``Unsuited``)."""
        return self._unsuited.verdict(served_by, now, reach)

    def refused(self, teacher: str) -> str:
        """Why the last worker of a group that greeted was refused; empty if it was not."""
        return self._refused.get(teacher, "")

    def used(self) -> dict[str, Fingerprint]:
        """What the labels that were used came from, by group; a group of which none were is not here."""
        return {
            name: standard.fingerprint
            for name, standard in self._standards.items()
            if standard.fixed and standard.fingerprint is not None
        }

    def expect_soon(self, former: Mapping[str, Fingerprint]) -> None:
        """Take none but workers like those that labelled for a checkpoint, by group, once that is heeded.

        The training thread's word.
        """
        self._former.append(former)

    def heed(self) -> Mapping[str, Fingerprint] | None:
        """Take none but workers like those of the next such word, and return it; None if there is none."""
        if not self._former:
            return None
        former = self._former.popleft()
        for name, fingerprint in former.items():
            self._standards[name].expect(fingerprint)
        return former

    def admit_again(self, worker: ConnectedWorker, now: float) -> Refused | None:
        """Why a worker that was admitted does not fit any more; None if it does."""
        misfit = self._standards[worker.teacher].admit(worker.name, worker.fingerprint)
        if misfit is None:
            return None
        return self._turned_away(worker, misfit, now)

    def stale(self, workers: Iterable[ConnectedWorker]) -> list[tuple[ConnectedWorker, Refused]]:
        """Of workers that were admitted, those of versions that are not taken any more."""
        found = []
        for worker in workers:
            standard = self._standards[worker.teacher]
            if standard.is_stale(worker.fingerprint.version):
                misfit = standard.admit(worker.name, worker.fingerprint)
                assert misfit is not None
                found.append((worker, Refused(reason=misfit.reason)))
        return found

    def oldest_version(self, teacher: str) -> int:
        """The oldest version of a teacher that is taken; 0 where versions do not follow each other."""
        return self._standards[teacher].oldest_version

    def _refusal(self, hello: Hello) -> Refused | None:
        standard = self._standards.get(hello.teacher)
        if standard is None:
            wanted = list(self._standards)
            return Refused(reason=f"this student wants labels of {wanted}, not of {hello.teacher!r}")
        if self._kept_only:
            return Refused(reason="this student takes labels from its store alone (store.only)")
        try:
            codec = make_codec(hello.fingerprint.codec)
        except CodecError as exc:
            # Another student may be of a version that has it.
            return Refused(reason=f"worker {hello.worker} of teacher {hello.teacher!r}: {exc}")
        if reason := self._parted(hello):
            return Refused(reason=reason)
        if (misfit := standard.admit(hello.worker, hello.fingerprint)) is not None:
            return _refused(misfit)
        self._codecs[hello.teacher] = codec
        return None

    def _parted(self, hello: Hello) -> str:
        """Why labels of a worker cannot be one set with those of another group; empty if they can."""
        if not self._one_set:
            return ""
        others = [each for name, each in self._standards.items() if name != hello.teacher]
        known = ((each.teacher, each.fingerprint.codec) for each in others if each.fingerprint is not None)
        its = hello.fingerprint.codec
        teacher, codec = next(((name, codec) for name, codec in known if codec != its), ("", its))
        if not teacher:
            return ""
        return (
            f"worker {hello.worker} of teacher {hello.teacher!r} sends codec {its}, and teacher {teacher!r} "
            f"sends {codec}: samples are routed among them, and their labels are one set. Give both the same "
            "codec"
        )

    def objection(self, worker: ConnectedWorker, result: Result, now: float) -> Refused | None:
        """Why labels that came are none of the worker's group, or None."""
        standard = self._standards[worker.teacher]
        greeted = worker.fingerprint.version
        # In a smaller codec, they travel under other names.
        outputs = None if result.codec is not None else _outputs(result)
        misfit = standard.objection(worker.name, result.version, outputs, greeted)
        if misfit is not None and worker.labelled:  # it stays, and its tasks fail
            return _refused(misfit)
        return None if misfit is None else self._turned_away(worker, misfit, now)

    def _turned_away(self, worker: ConnectedWorker, misfit: Misfit, now: float) -> Refused:
        refusal = _refused(misfit)
        self._refused[worker.teacher] = misfit.reason
        self._unsuited.refused(worker.peer, worker.teacher, refusal, now)
        return refusal

    def undecided(self, teacher: str) -> bool:
        """Whether no labels of a group were used yet."""
        return not self._standards[teacher].fixed

    def used_of(self, worker: ConnectedWorker, result: Result, late: bool) -> None:
        """Labels of a worker were used, or dropped as late."""
        standard = self._standards[worker.teacher]
        if not standard.fixed and not late and result.codec is None:
            standard.fix(_outputs(result))
        if not late:
            standard.used_of(worker.fingerprint)

    def used_kept(self, teacher: str, its: Fingerprint, outputs: Sequence[str]) -> None:
        """Labels of a group were used that a store has kept."""
        self._standards[teacher].used_kept(its, outputs)

    def reads(self, teacher: str, its: Fingerprint) -> str:
        """Be ready for labels that a store has kept of a group; why they cannot be read, if so.

        Before any worker of it is here.
        """
        translation = self._translations.get(teacher)
        if translation is not None:
            if translation.must_ask(its.vocabulary):
                return (
                    f"labels of teacher {teacher!r} are over another vocabulary ({its.vocabulary}), whose "
                    "tokens only a worker could tell"
                )
            if (reason := translation.objection(its.vocabulary)) is not None:
                return f"labels of teacher {teacher!r}: {reason}"
            translation.taken(its.vocabulary)
        if (codec := self._asked_codecs.get(teacher)) is not None and codec != its.codec:
            return f"labels of teacher {teacher!r} are kept as {its.codec}, and {codec} is asked for"
        self._codecs[teacher] = make_codec(its.codec)
        return ""

    def deserted(self, teacher: str) -> None:
        """No worker of a group is left."""
        self._standards[teacher].deserted()


def _refused(misfit: Misfit) -> Refused:
    return Refused(reason=misfit.reason, incompatible=misfit.incompatible)


def _outputs(result: Result) -> list[str]:
    return [spec.name for spec in result.tensors]
