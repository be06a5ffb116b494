"""Every error that edldist raises on purpose, in one tree.

Messages say what happened, where, with which value, and what to do about it. Errors of other
libraries are mapped to these with ``raise ... from exc``.
"""

from __future__ import annotations

from collections.abc import Sequence

from edldist.wording import in_words

__all__ = [
    "CheckpointError",
    "CodecError",
    "ConfigError",
    "ContractError",
    "CoordinatorUnreachableError",
    "EdlDistError",
    "EngineLostError",
    "IncompatibleError",
    "InputError",
    "LabelError",
    "LabelMemoryError",
    "LabelTimeoutError",
    "LaunchError",
    "LoaderClosedError",
    "LossSpikeError",
    "ModelError",
    "ModelImportError",
    "PeerUnreachableError",
    "PoisonTaskError",
    "ProtocolVersionError",
    "RefusedError",
    "RegroupError",
    "SharedMemoryError",
    "StaleLabelsError",
    "StoreError",
    "UnfitCodecError",
    "UnlabelableError",
    "UnsuitableTeacherError",
    "WireError",
]


class EdlDistError(Exception):
    """Base of all errors of this package.

    Attributes:
        final: whether a script that it ended would only meet it again when restarted.
    """

    final = False


class ConfigError(EdlDistError):
    """A job file, option or environment variable is missing or wrong. Commands exit with 2."""

    final = True


class ModelError(EdlDistError):
    """A teacher's model cannot be imported, built or loaded, or breaks the output contract."""


class ModelImportError(ModelError):
    """The module of a model or a data set is there, and raises while it is imported."""


class ContractError(ModelError):
    """What a teacher's model takes or returns is not what it must be: each attempt would end the same.

    A worker that meets it says so to the student, which tries nobody else, unless the group has labelled
    something before: then the model is well, and the samples or that worker are not.
    """

    final = True


class EngineLostError(EdlDistError):
    """The HTTP engine behind a teacher worker does not answer (any more). The worker ends with 1."""


class InputError(EdlDistError):
    """A batch does not hold what ``inputs=`` asks for, or holds something that is no tensor batch."""

    final = True


class LabelError(EdlDistError):
    """Labels came back in a form that cannot be delivered (shape, dtype, non-finite values)."""


class LabelMemoryError(EdlDistError):
    """This rank cannot make the buffers for labels. No teacher is to blame, and no sample is lost."""


class CodecError(EdlDistError):
    """A codec's name or parameters are wrong, or it cannot encode these labels."""


class UnfitCodecError(CodecError, ContractError):
    """A codec is not one for such outputs, or such inputs, whatever their values."""


class UnlabelableError(CodecError):
    """What a student asks about some samples has no answer, whichever worker it asks."""


class CheckpointError(EdlDistError):
    """A checkpoint cannot be written, or none can be restored safely.

    Final, unless its cause may pass: a lock that another process holds, a failing read.
    """

    final = True


class LoaderClosedError(EdlDistError):
    """A ``DistillLoader``, or ``LabelRequests``, was used after ``close()``."""


class LabelTimeoutError(EdlDistError, TimeoutError):
    """The labels of a request have not come in the time that the loop gave them; it may ask again."""


class StaleLabelsError(EdlDistError):
    """A loop's own batch would be learnt from later than the loop has said that it may be."""

    final = True


class StoreError(EdlDistError):
    """Kept labels cannot be used, or labels cannot be kept, as they are asked for."""

    final = True


class RegroupError(EdlDistError):
    """The group of ranks is not what it was; the block of its ``LiveGeneration`` ends."""


class LossSpikeError(EdlDistError):
    """A loss spike that going back and leaving batches out did not get past."""

    final = True


class UnsuitableTeacherError(EdlDistError):
    """A teacher's workers are well, and none is what this student wants: another codec, another model."""

    final = True


class WireError(EdlDistError):
    """A message is malformed, too large, or does not fit its own header."""


class ProtocolVersionError(WireError):
    """The other side is of another revision of edldist: neither can understand what the other says.

    Attributes:
        theirs, ours: the protocols of both, as ``edldist --version`` names them.
    """

    final = True

    def __init__(self, theirs: str, ours: str, who: str = "the other side") -> None:
        super().__init__(
            f"{who} is of another revision of edldist: it speaks wire protocol {theirs}, this process speaks "
            f"{ours}. Install the same edldist everywhere ('edldist --version' names its protocol)"
        )
        self.theirs = theirs
        self.ours = ours

    def at(self, address: str) -> ProtocolVersionError:
        """The same, told of who listens at an address."""
        return ProtocolVersionError(self.theirs, self.ours, f"the process at {address}")


class PeerUnreachableError(WireError):
    """The peer's connection is gone: it left, died, or was never there."""


class SharedMemoryError(WireError):
    """Memory cannot be shared with a peer on this host; the socket carries the tensors instead.

    Attributes:
        gone: the other side's memory was there once, and has been given back.
    """

    def __init__(self, reason: str, *, gone: bool = False) -> None:
        super().__init__(reason)
        self.gone = gone


class RefusedError(EdlDistError):
    """The other side refused this member, with its reason."""


class IncompatibleError(RefusedError):
    """The other side refused this worker for what it is: it is not the teacher whose name it serves under.

    Started again as it is, it would be refused again. ``edldist teacher`` exits with 3.
    """


class CoordinatorUnreachableError(EdlDistError):
    """No coordinator answered within the stated time."""


class LaunchError(EdlDistError):
    """An engine that places processes refused, cannot be reached, or has lost the job; with its own words."""


class PoisonTaskError(EdlDistError):
    """Several attempts could not label a task.

    Attributes:
        teacher: name of the teacher group.
        batch: number of the batch since the loader was made, from 0.
        samples: positions within the batch, rising, a ``range`` where they follow each other; of those that
            the teacher sees, where a callable of ``inputs=`` shows it a part.
        attempts: one line or traceback for each failed attempt, oldest first.
    """

    final = True

    def __init__(self, teacher: str, batch: int, samples: Sequence[int], attempts: Sequence[str]) -> None:
        self.teacher = teacher
        self.batch = batch
        self.samples = samples
        self.attempts = list(attempts)
        last = self.attempts[-1] if self.attempts else "no attempt was recorded"
        tried = f"{len(self.attempts)} attempt{'s' * (len(self.attempts) != 1)}"
        super().__init__(
            f"teacher {teacher!r} could not label samples {in_words(samples)} of batch "
            f"{batch} in {tried}. The last one said:\n{last}"
        )
