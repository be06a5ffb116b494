"""When the stages of a forward pass begin and end, while somebody traces, and of a pass that is timed.

A pass on an accelerator is only enqueued when it is launched, on several streams. So what is noted there are
events on the streams, which become times once the pass has landed: by how long they came after one event
whose time is known, because it was waited for when the first pass was noted.
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import NamedTuple

import torch

from edldist.tracing.kinds import Kind
from edldist.tracing.tape import Tape

__all__ = ["Stage", "Stopwatch"]

_ANCHOR_FOR_S = 60.0
"""A device's clock is not the host's: they are compared again after so long."""
_NOTHING = contextlib.nullcontext()


class Stage(NamedTuple):
    """One stage of a pass; its start and end are monotonic seconds, or events that a stream will reach."""

    kind: Kind
    began: float | torch.cuda.Event
    ended: float | torch.cuda.Event


class Stopwatch:
    """Notes the stages of the pass that is being launched. Owned by the compute thread.

    Args:
        tape: of the compute thread; while that is off, only passes are noted that are timed.
        device: what passes run on.

    Attributes:
        timed: whether the pass that is being launched, or has just landed, is timed.
    """

    def __init__(self, tape: Tape | None = None, device: torch.device | None = None) -> None:
        self.tape = tape or Tape(lambda: 0.0)
        self._cuda = device is not None and device.type == "cuda"
        self._device = device
        self._stages: list[Stage] = []
        self._anchor: torch.cuda.Event | None = None
        self._anchored_at = 0.0
        self.timed = False

    def stage(self, kind: Kind) -> contextlib.AbstractContextManager[object]:
        """What is done within is this stage of the pass."""
        return _Within(self, kind) if self.tape.on or self.timed else _NOTHING

    def take(self) -> list[Stage]:
        """The stages that were noted since this was asked last."""
        stages, self._stages = self._stages, []
        return stages

    def note(self, stage: Stage) -> None:
        """A stage was as somebody else saw it."""
        self._stages.append(stage)

    def moment(self) -> float | torch.cuda.Event:
        """Now, as the current stream will come to it."""
        if not self._cuda:
            return self.tape.now()
        if self._anchor is None or self.tape.now() - self._anchored_at > _ANCHOR_FOR_S:
            self._anchor = _recorded()
            self._anchor.synchronize()
            self._anchored_at = self.tape.now()
        return _recorded()

    def seconds(self, moment: float | torch.cuda.Event) -> float:
        """A moment that has come, as monotonic seconds."""
        if isinstance(moment, float):
            return moment
        assert self._anchor is not None
        return self._anchored_at + float(self._anchor.elapsed_time(moment)) / 1e3


class _Within:
    """Notes one stage, also one that fails."""

    __slots__ = ("_began", "_kind", "_watch")

    def __init__(self, watch: Stopwatch, kind: Kind) -> None:
        self._watch = watch
        self._kind = kind

    def __enter__(self) -> None:
        self._began = self._watch.moment()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.note(Stage(self._kind, self._began, self._watch.moment()))


def _recorded() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event
