"""``LabelRequests``: the teachers' labels for what a loop has just made, when it asks for them."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from edldist.checkpoint import registry
from edldist.environment import JobEnvironment
from edldist.errors import ConfigError, InputError, LabelTimeoutError, LoaderClosedError
from edldist.labels.fingerprint import Fingerprint
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.teacher_inputs import TeacherInputs
from edldist.student.decoding.decoding import NoLabels
from edldist.student.inputs.inputs import InputsByTeacher, TeacherInputSelector
from edldist.student.inputs.route import RouteKey
from edldist.student.loop.figures import LoopFigures
from edldist.student.loop.labelling import Labelling
from edldist.student.loop.under_way import Request, UnderWay
from edldist.student.loop.waiting import LabelWait
from edldist.student.memory.to_device import DeviceTransfer, copier_for
from edldist.student.queue.flow import Flow
from edldist.student.teachers.asked_teachers import AskedTeachers
from edldist.wire.messages import Scalar
from edldist.wire.transport import Transport

__all__ = ["LabelRequests", "PendingLabels"]


class PendingLabels:
    """A request that is under way.

    Attributes:
        batch: what the loop asked about: the very object.
    """

    __slots__ = ("__weakref__", "_labels", "_request", "_requests", "batch")

    def __init__(self, requests: LabelRequests, request: Request, batch: Any) -> None:
        self.batch = batch
        self._requests = requests
        self._request = request
        self._labels: dict[str, Any] | None = None

    def labels(self, timeout_s: float | None = None) -> dict[str, Any]:
        """The labels of the batch, waited for. Asked again, the same ones.

        Args:
            timeout_s: wait for so long at most. None: for as long as it takes.

        Raises:
            LabelTimeoutError: they have not come. The request stays under way.
            PoisonTaskError, ContractError, LabelMemoryError: why it has no labels. It is over then, and the
                next ones go on.
            StaleLabelsError: the loop has taken more steps since than it has stated. It is over then, too.
            LoaderClosedError: it is over, or the ``LabelRequests`` was closed or restored meanwhile.
            ConfigError: asked in another thread or process, or ``timeout_s`` is no number of seconds.
            EdlDistError: what ended the service.
            SystemExit: this process was asked to stop, and no labels come.
        """
        if self._labels is None:
            self._labels = self._requests._labels_of(self._request, timeout_s)
        return self._labels

    def __del__(self) -> None:
        self._requests._under_way.forget(self._request)


class LabelRequests:
    """Ask teachers to label what the loop has just made: sampled sequences, drawn candidates.

    ::

        teachers = edldist.LabelRequests(inputs=("user", "candidates"))
        for step in range(steps):
            batch = draw_candidates(model)
            labels = teachers.request(batch).labels()

    Each request is answered once, with the labels that were computed for its samples, under the guarantees
    of a ``DistillLoader``, and in the form that has (docs/on_policy.md). Nothing is read ahead. The loop may
    have several requests under way: it states by ``staleness`` how many steps old a batch may be by the time
    it learns from it, and is held to that.

    What teachers see of a batch is copied by ``request``: the loop may write to the batch at once.

    Owned by the thread that makes the first request.

    Args:
        inputs, teacher, coordinator, codec, vocabulary, agreement, route, missing, missing_after_s, versions:
            as of ``DistillLoader``.
        task_size, deterministic, pin_memory, heartbeat_ttl_s, first_deadline_s, min_deadline_s, hang_s: too.
        device: where the loop wants its labels; its batches stay where they are.
        transport: for tests without sockets.
        staleness: how many steps may lie between a request and the taking of its labels. A step is a request
            whose labels are taken, so 0 is for a loop that takes the labels of each batch before it makes the
            next, and 1 for one that makes the next batch first.
        optimizer: count its steps instead. So a loop may ask for the labels of several batches, and take one
            step on all of them, with ``staleness`` 0; and steps that it takes on other batches count.
        checkpointed: whether a restored run has to have the same teachers. From its first request on this has
            to be in the state that a ``Checkpointer`` saves then, which keeps which they were.

    Raises:
        ConfigError: bad arguments, or no coordinator is named.
    """

    def __init__(
        self,
        inputs: InputsByTeacher = None,
        teacher: str | Sequence[str] = "teacher",
        coordinator: str | None = None,
        staleness: int = 0,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        codec: str | Mapping[str, str] | None = None,
        vocabulary: Any = None,
        route: RouteKey | None = None,
        missing: str | Mapping[str, str] = "wait",
        missing_after_s: float = 30.0,
        versions: int | Mapping[str, int] | None = None,
        agreement: Mapping[str, float] | str | None = None,
        task_size: int | None = None,
        deterministic: bool | None = None,
        device: str | int | torch.device | None = None,
        pin_memory: bool | None = None,
        checkpointed: bool = True,
        heartbeat_ttl_s: float | None = None,
        first_deadline_s: float = 300.0,
        min_deadline_s: float = 10.0,
        hang_s: float = 300.0,
        transport: Transport | None = None,
    ) -> None:
        if not isinstance(staleness, int) or isinstance(staleness, bool) or staleness < 0:
            raise ConfigError(f"staleness={staleness!r}: use a number of steps, 0 or more")
        if optimizer is not None and not hasattr(optimizer, "register_step_post_hook"):
            raise ConfigError(
                f"optimizer={type(optimizer).__qualname__}: its steps cannot be counted; pass the "
                "torch.optim.Optimizer itself"
            )
        environment = JobEnvironment.read()
        if environment.store is not None and environment.store.only:
            raise ConfigError(
                "store.only: what a loop makes itself is in no store before it is made; LabelRequests needs "
                "teachers (store.only: false). It keeps no labels: hardly anything is asked for twice"
            )
        fixed = environment.deterministic if deterministic is None else deterministic
        asked = AskedTeachers.of(
            *(teacher, inputs, codec, route, missing, missing_after_s, versions, fixed, vocabulary),
            degrade=environment.degrade,
        )
        self._select = TeacherInputSelector(inputs, asked.names, asked.route)
        copier = copier_for(device, pin_memory)
        self._allocate, self._transfer = copier.allocate, DeviceTransfer(copier)
        flow = Flow(
            # Nothing is read. Where all that was asked for is labelled, teachers wait for the loop.
            low_watermark=0,
            high_watermark=1,
            task_size=task_size if task_size is not None else environment.task_size,
            fixed=fixed,
            first_deadline_s=first_deadline_s,
            min_deadline_s=min_deadline_s,
            hang_s=hang_s,
        )
        self._figures = LoopFigures(staleness=0)
        self._labelling = labelling = Labelling(
            "LabelRequests",
            *(asked, flow, self._figures, environment),
            coordinator=coordinator,
            heartbeat_ttl_s=heartbeat_ttl_s,
            agreement=agreement,
            checkpointed=checkpointed,
            transport=transport,
            hand_on=True,
        )
        self._known, self._service = labelling.known, labelling.service
        self._under_way = under_way = UnderWay(
            self._service.delivery, self._service.offer, staleness, counted=optimizer is not None
        )
        figures = self._figures
        self._service.extra_stats = lambda: figures.as_stats() | {"discarded": under_way.discarded}
        self._steps_of = None
        if optimizer is not None:
            # An optimizer outlives this, and is not to keep it.
            self._steps_of = optimizer.register_step_post_hook(lambda *_: under_way.stepped())
        self._thread: int | None = None
        self._finalizer = labelling.start(self)
        self._checkpointed = checkpointed
        if checkpointed:
            what = f"LabelRequests(teacher={teacher!r}): a restored run would learn from any other teacher"
            registry.announce(self, what)

    # --- the loop -----------------------------------------------------------------------------------

    def request(self, batch: Any) -> PendingLabels:
        """Ask for the labels of a batch that the loop has made; returns at once.

        A request that nobody refers to any more is over.

        Raises:
            InputError: the batch has no samples, or not what ``inputs`` asks for.
            StaleLabelsError: the labels of earlier ones have to be taken first (``staleness``).
            LoaderClosedError: this was closed.
            ConfigError: asked in another thread or process than the first one.
        """
        self._check_owner()
        if not self._finalizer.alive:
            raise LoaderClosedError("this LabelRequests was closed; make a new one")
        if self._checkpointed:
            registry.must_be_saved(self)
        request = self._under_way.ask(lambda request: self._opened(batch, request))
        return PendingLabels(self, request, batch)

    def _opened(self, batch: Any, request: Request) -> OpenBatch:
        seen = self._select(batch)
        if not seen.samples:
            raise InputError("a request without samples: there is nothing to label. Leave such batches out")
        own = _Copies()
        apart = {teacher: TeacherInputs(own.of(part[0]), *part[1:]) for teacher, part in seen.apart.items()}
        return OpenBatch(None, own.of(seen.tensors), seen.samples, request, self._allocate, apart)

    def _labels_of(self, request: Request, timeout_s: float | None) -> dict[str, Any]:
        self._check_owner()
        number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
        if timeout_s is not None and not (number and timeout_s >= 0):
            raise ConfigError(f"labels(timeout_s={timeout_s!r}): use seconds, 0 or more, or None to wait on")
        if request not in self._under_way:
            raise LoaderClosedError(
                f"request {request.number} is over: it was answered by an error, or this LabelRequests was "
                "closed or restored since"
            )
        try:
            self._wait_for(request, timeout_s)
        finally:
            self._figures.waiting_s = 0.0
        batch, steps = self._under_way.take(request)
        if batch.failure is not None:
            try:
                raise batch.failure
            finally:
                del batch  # an error that its own frame holds is left to a garbage collector
        return self._taken(batch, steps)

    def _wait_for(self, request: Request, timeout_s: float | None) -> None:
        clock = self._labelling.clock
        wait: LabelWait | None = None
        until = None if timeout_s is None else clock.monotonic() + timeout_s
        while not self._under_way.arrived(request):
            wait = wait or LabelWait(self._service, clock, self._figures)
            left_s = 1.0 if until is None else min(1.0, until - clock.monotonic())
            if not wait.for_labels(reading=False, most_s=max(left_s, 0.0)) and left_s <= 0:
                raise LabelTimeoutError(
                    f"the labels of request {request.number} have not come within {timeout_s:g} s; it is "
                    "still under way"
                )

    def _taken(self, batch: OpenBatch, steps: int) -> dict[str, Any]:
        figures, decoding = self._figures, self._labelling.decoding
        figures.staleness = max(figures.staleness or 0, steps)
        figures.missed += batch.missed
        figures.took(batch.samples, self._labelling.clock.monotonic())
        if not self._known.complete:
            self._known.consumed(self._service.used())
        packed = self._transfer.bring(batch.labels())
        if batch.codec is None:
            decoding.learn(packed)
        lacking = decoding.lacking(batch.labelled | batch.passed_over)
        unknown = decoding.unknown(lacking) | {
            teacher for teacher in batch.passed_over if not decoding.all_known({teacher})
        }
        for teacher, tensors in self._transfer.bring(decoding.without_rows(lacking)).items():
            packed[teacher] = tensors | packed.get(teacher, {})
        labels = decoding.of(packed, batch.codec)
        return NoLabels(labels) if unknown else labels

    def _check_owner(self) -> None:
        self._labelling.check_process()
        self._thread = self._thread or threading.get_ident()
        if self._thread != threading.get_ident():
            raise ConfigError(
                "this LabelRequests belongs to the thread that made its first request, and was used in "
                "another one: answers come in the order of the requests, which two threads cannot agree on. "
                "Make one for each"
            )

    # --- what is known ------------------------------------------------------------------------------

    def stats(self) -> dict[str, Scalar]:
        """Figures since it was made, as those of ``DistillLoader.stats``.

        A batch is a request whose labels were taken; ``discarded`` were forgotten before. ``staleness`` is
        the most steps after which labels were taken, and ``open`` how many requests are under way at the
        teachers.
        """
        return self._service.stats()

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    def state_dict(self) -> dict[str, Any]:
        """Which teachers the loop has learnt from. What was under way is no part of it: it is made anew."""
        registry.state_taken(self)
        return self._known.shared_state()

    def rank_state_dict(self) -> dict[str, Any] | None:
        """What differs by rank: where each rank may meet other teachers, those that it has learnt from."""
        return self._known.rank_state() or None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take labels of the teachers of then alone. What is under way is over.

        Workers of a teacher that was changed meanwhile are refused, unless ``EDLDIST_EXTEND`` is set.

        Raises:
            CheckpointError: what it says of a teacher cannot be read.
        """
        self._labelling.check_process()
        self._expect(self._known.read(state))

    def load_rank_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """What this rank's ``rank_state_dict`` was, after ``load_state_dict``; None where none was saved."""
        self._labelling.check_process()
        self._expect(self._known.read(state or {}))

    def _expect(self, former: Mapping[str, Fingerprint]) -> None:
        self._under_way.clear()
        self._labelling.expect(former)

    # --- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        """Release the workers and leave the job; what is under way is over. Idempotent; also done at exit."""
        self._finalizer()
        atexit.unregister(self._finalizer)
        if self._steps_of is not None:
            self._steps_of.remove()
        if not self._labelling.forked:  # a forked child has no thread that could give the queue's lock back
            self._under_way.clear()
        registry.need_not_be_saved(self)

    def __enter__(self) -> LabelRequests:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Copies:
    """Copies of what teachers see that lies in this host's memory: one of each tensor."""

    def __init__(self) -> None:
        self._made: dict[int, Tensor] = {}

    def of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self._copy(tensor) for name, tensor in tensors.items()}

    def _copy(self, tensor: Tensor) -> Tensor:
        if not tensor.is_cpu or tensor.layout is not torch.strided or tensor.is_nested:
            return tensor
        if id(tensor) not in self._made:
            self._made[id(tensor)] = tensor.detach().clone(memory_format=torch.contiguous_format)
        return self._made[id(tensor)]
