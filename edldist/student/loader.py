"""``DistillLoader``: a data loader's batches, in order, each with the teachers' labels."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch

from edldist.checkpoint import registry
from edldist.environment import JobEnvironment
from edldist.sampling.composition import check_order, elastic_sampler
from edldist.sampling.dealing import check_dealing
from edldist.store.label_store import LabelStore
from edldist.store.shelf import Shelf
from edldist.student.inputs.ids import Part, SampleIds
from edldist.student.inputs.inputs import InputsByTeacher
from edldist.student.inputs.route import RouteKey
from edldist.student.loop.arrivals import Arrivals, Pair
from edldist.student.loop.consumption import Consumption
from edldist.student.loop.epochs import Epochs
from edldist.student.loop.figures import LoopFigures
from edldist.student.loop.labelling import Labelling
from edldist.student.loop.loop_state import LoopState
from edldist.student.loop.reading import ReadAhead
from edldist.student.loop.seeding import SeedingWatch
from edldist.student.loop.step_weights import StepWeights
from edldist.student.loop.stored import Stored
from edldist.student.memory.to_device import DeviceTransfer, copier_for
from edldist.student.queue.flow import Flow
from edldist.student.teachers.asked_teachers import AskedTeachers
from edldist.wire.messages import Scalar
from edldist.wire.transport import Transport

__all__ = ["DistillLoader"]


class DistillLoader:
    """Iterate over a data loader and get each batch with its labels.

    ``for batch, labels in loader``: ``batch`` is what the data loader yielded: the same tensors and
    values, in containers of the same types. ``labels`` is a dict of tensors on the host, first
    dimension = samples of the batch (with ``device``, the tensors of both are there), or of what a codec
    makes of them (``edldist.labels.typed``). A tensor-valued teacher's output is named ``logits``;
    with a sequence of teachers, keys are ``"<teacher>/<output>"``. Every batch arrives once, in the
    data loader's order; one without samples has labels under the same keys, without rows.

    Each ``for`` runs one epoch; leaving a loop early forgets what was read ahead, and the next
    ``for`` begins the next epoch. A loop that counts, and takes the last batch without asking for one
    more, has not left early. The data loader is read in the training thread, inside the
    loop's ``next``, up to the high watermark: its errors surface here, after the batches before
    them, and it draws from random numbers of its own (docs/architecture.md). With ``epochs``, the
    first batches of the next epoch are read and labelled before this one's last is consumed.
    Behind them there is nothing left: a ``for`` ends at once, as that of a script does that was restored
    behind its last step. ``state_dict`` holds what the loop has consumed.

    Args:
        data_loader: any iterable of batches (dict, tuple, named tuple, tensor, nested).
        inputs: what the teacher sees: a key, an index, a tuple of them, or a callable from batch
            to ``dict[str, Tensor]``; lists of texts or of bytes may stand for tensors. Keys become keyword
            arguments of the model, indices positional ones. ``Sequences`` for padded ones. None for batches
            that are one tensor. Or one of these for each teacher, by name: a teacher may see a part of the
            samples then, and its labels are of these.
        teacher: name of the teacher group, or several.
        coordinator: ``tcp://host:port`` or ``file:PATH`` (``address_file``); default ``EDLDIST_COORDINATOR``.
        codec: the only form in which labels are taken, as ``topk:64``, or one by teacher's name; workers
            that send another are refused. Default: that of the first worker of each teacher.
        vocabulary: the ids in which the loop reads labels of tokens: a tokenizer, a folder with one, tokens,
            or a ``Vocabulary``, or one of these by teacher's name. Workers with another one are refused,
            unless a ``Vocabulary`` says how theirs becomes this one. Default: not compared.
        agreement: bounds of what counts as one teacher, or ``"off"`` (docs/teachers.md). Default: the job's.
        low_watermark, high_watermark: bounds on batches that are read ahead or labelled. Default: the job's
            (``student.high_watermark``), else 2 and 8.
        route: key, index or callable(batch) for one teacher of each sample, by name or place in ``teacher``.
            Only that sees the sample; labels come as of one teacher, in the batch's order, without prefixes.
        missing: what becomes of a batch that lacks labels of a teacher only because that has no worker:
            ``"wait"``, or ``"skip"`` them once it has had none for ``missing_after_s`` (at the start too), if
            another has labelled it. Or one by teacher's name. Those that may be skipped have a mask.
        versions: how many of a teacher's newest versions (whole numbers, ``--model-version``) label at a
            time, or one by name; labels have a ``version`` then (0 at padding). Default: one for all the run.
        max_bytes: bound on the memory of batches that were read ahead: all of their tensors and arrays, and
            their labels, whether a teacher has them at the moment or not. One batch is always read.
        task_size: cut batches at multiples of this instead of to each worker's wish.
        deterministic: fixed cuts, one task a forward pass, so that results do not depend on who
            computed them; default ``EDLDIST_DETERMINISTIC``.
        on_poison: what to do with a batch that three attempts could not label: ``"raise"`` a
            ``PoisonTaskError`` when it is due, or ``"skip"`` it and count its samples as ``skipped``.
            With several ranks the others take that step, so this one takes it too: with its last batch
            once more, or the next one ahead of its time where there was none, and a ``loss_weight`` of 0.
            See ``agree_weights``. Default ``EDLDIST_ON_POISON``, else raise.
        epochs: how many epochs the script runs, counted from 0, and no more of them: each but the last goes
            on with the next without a wait for labels. Whatever a script does to its data loader at the
            start of an epoch would come too late for what was read by then: None, if it does such things. A
            data loader with a ``set_epoch`` other than an ``ElasticSampler``'s, with a generator or a state
            of its own, and an iterator are not read ahead, and a warning says so.
        device: where the loop wants its tensors: those of the batch, nested ones too, and the labels are
            copied to this CUDA device on a stream of their own, one batch ahead. None or the CPU
            leaves them as they come.
        pin_memory: take pinned host memory for labels, and for what is copied to ``device``. Default:
            with a CUDA device. A data loader that pins its batches itself spares them a copy here.
        copy_batches: copy every batch when it is read, for a data loader that fills the same memory again
            for the next one, as loaders of videos or onto GPUs do. Without it such a data loader ends in
            an ``InputError``, because batches wait for their labels while it reads on. Also for one that
            keeps hold of large batches, whose memory is read twice otherwise, to be sure that nobody wrote.
        agree_weights: let all ranks agree in every step on how many samples each has got, so that
            ``loss_weight`` makes the gradient that of their mean, whatever a rank skipped as poison, and
            whatever a collate function left out. Without it, such a step is smaller by what is missing.
            A collective in each ``next``, for which a rank waits for the labels of all of them: for
            loaders that all ranks iterate together, as under DDP, after ``init_process_group``.
        checkpointed: whether the position matters to a restored run. From its first ``for`` on a loader
            has to be in the state that a ``Checkpointer`` saves; False for one whose position does not
            matter, as of an evaluation that reads all of its data each time.
        lock_step: whether the data loader does collectives while it is read (rank 0 reads, and broadcasts),
            so that all ranks have to read it at the same points of their loops: ``high_watermark`` batches
            ahead of the loop, whatever labels there are, and whatever ``max_bytes`` says. Default: if it is
            Accelerate's dispatcher; any other that is seen to do so ends in a ``ConfigError``.
        store: where labels are kept, so that none is computed twice (docs/store.md): a folder, or a
            ``LabelStore``, which stays open. False: nowhere. Default: the job's ``store`` section.
        ids: keep labels by what samples are called, ``SampleIds`` or the key, index or function of the batch
            that it takes. Default: by digests of what the teacher sees.
        heartbeat_ttl_s: a worker silent for longer is written off (default: the job's, else 3).
        first_deadline_s, min_deadline_s: age at which a task is given to others too, because its worker
            lives but has not answered. The first one holds until the worker has answered once; after
            that it is ten times its own latency, at least ``min_deadline_s``.
        hang_s: how long after their deadlines three workers must have held a task, and lived, until it is
            taken for one that hangs whoever computes it.
        transport: for tests without sockets.

    Raises:
        ConfigError: bad arguments, or no coordinator is named.
    """

    def __init__(
        self,
        data_loader: Iterable[Any],
        inputs: InputsByTeacher = None,
        teacher: str | Sequence[str] = "teacher",
        coordinator: str | None = None,
        low_watermark: int | None = None,
        high_watermark: int | None = None,
        *,
        codec: str | Mapping[str, str] | None = None,
        vocabulary: Any = None,
        route: RouteKey | None = None,
        missing: str | Mapping[str, str] = "wait",
        missing_after_s: float = 30.0,
        versions: int | Mapping[str, int] | None = None,
        agreement: Mapping[str, float] | str | None = None,
        max_bytes: int = 4 << 30,
        task_size: int | None = None,
        deterministic: bool | None = None,
        on_poison: str | None = None,
        epochs: int | None = None,
        device: str | int | torch.device | None = None,
        pin_memory: bool | None = None,
        copy_batches: bool = False,
        agree_weights: bool = False,
        checkpointed: bool = True,
        lock_step: bool | None = None,
        store: LabelStore | str | os.PathLike[str] | bool | None = None,
        ids: SampleIds | Part | None = None,
        heartbeat_ttl_s: float | None = None,
        first_deadline_s: float = 300.0,
        min_deadline_s: float = 10.0,
        hang_s: float = 300.0,
        transport: Transport | None = None,
    ) -> None:
        environment = JobEnvironment.read()
        fixed = environment.deterministic if deterministic is None else deterministic
        asked = AskedTeachers.of(
            *(teacher, inputs, codec, route, missing, missing_after_s, versions, fixed, vocabulary),
            degrade=environment.degrade,
        )
        poison = environment.poison_as(on_poison)
        low, high = environment.watermarks_as(low_watermark, high_watermark)
        size = environment.task_size if task_size is None else task_size
        flow = Flow(
            *(low, high, max_bytes, size, fixed),
            first_deadline_s=first_deadline_s,
            min_deadline_s=min_deadline_s,
            hang_s=hang_s,
        )
        if checkpointed:
            check_order(data_loader)
        self._data_loader = data_loader
        copier = copier_for(device, pin_memory)
        self._ahead = ReadAhead(
            *(data_loader, inputs, epochs, copier.allocate, agree_weights, copy_batches),
            *(asked.names, lock_step, asked.route),
        )
        self._position = self._ahead.position
        figures = LoopFigures()
        stored = Stored.of(store, ids, environment)
        self._labelling = labelling = Labelling(
            "DistillLoader",
            *(asked, flow, figures, environment),
            coordinator=coordinator,
            heartbeat_ttl_s=heartbeat_ttl_s,
            agreement=agreement,
            checkpointed=checkpointed,
            transport=transport,
            skip_poison=poison == "skip",
            stored=stored,
        )
        one_rank = labelling.here.world_size == 1
        weights = StepWeights(agree_weights)
        self._dealing_checked = False
        self._service = service = labelling.service
        watch = SeedingWatch(data_loader, self._ahead, service, figures)
        self._arrivals = Arrivals(
            self._ahead,
            service,
            DeviceTransfer(copier),
            figures,
            labelling.clock,
            labelling.decoding,
            keep_stand_in=poison == "skip" and not one_rank,
            depth=max(2, high),
            looked_up=watch.looked_up if stored.by_inputs else None,
        )
        self._consumption = Consumption(
            *(self._position, figures, weights, labelling.known, service.used, self._arrivals),
            *(labelling.clock, one_rank),
        )
        self._finalizer = labelling.start(self)
        self._epochs = Epochs(
            *(data_loader, self._ahead, self._arrivals, self._consumption, weights, labelling),
            served=self._finalizer,
        )
        self._state = LoopState(self._position, self._epochs, self._consumption, labelling)
        self._checkpointed = checkpointed
        if checkpointed:
            what = f"DistillLoader(teacher={teacher!r}): a restored run would repeat or lose samples"
            registry.announce(self, what)

    # --- iteration ------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Batches of an iteration that starts now, if the data loader knows."""
        return len(self._data_loader)  # type: ignore[arg-type]

    @property
    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch, wherever the position is, if the data loader knows."""
        elastic = elastic_sampler(self._data_loader)
        return len(self._data_loader) if elastic is None else elastic.batches_per_epoch  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Pair]:
        iteration = self._epochs.begin()
        if self._checkpointed:
            registry.must_be_saved(self)
            if not self._dealing_checked:  # not before: the group of ranks may be younger than the loader
                self._dealing_checked = True
                check_dealing(self._data_loader)
        return self._epochs.loop(iteration, self)

    # --- what is known ----------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch that is running, or that the next ``for`` begins or resumes."""
        return self._position.epoch

    @property
    def epochs(self) -> int | None:
        """How many the script runs, as given."""
        return self._ahead.epochs

    @property
    def loss_weight(self) -> float:
        """Factor for the mean loss of the last batch, so that DDP's gradient is the global batch's.

        1.0 unless this rank's part of a global batch is smaller or larger than the others' (see
        ``ElasticSampler``), or was skipped, or the ranks agree on what each has got (``agree_weights``).
        """
        return self._consumption.loss_weight

    @property
    def start(self) -> tuple[int, int]:
        """Where the batch that the loop has begins: its epoch, and the samples of that consumed before it."""
        return self._consumption.start

    def leave_out(self, start: tuple[int, int], batches: int = 1) -> None:
        """Do not give the loop the batch that begins there when it comes (again), nor those that follow it.

        They are consumed without a step, and their samples counted as ``left_out``, once. All ranks have to
        leave out the same ones. ``ends_epoch`` does not know of them.

        Args:
            start: what ``start`` was while the loop had that batch.
            batches: how many, 1 or more.
        """
        self._consumption.left_out.add(start, batches)

    @property
    def ends_epoch(self) -> bool:
        """Whether the batch that the running loop has is the last one of its epoch: time for the last step.

        Reads one more batch where that is not known yet.

        Raises:
            LoaderClosedError: no loop runs.
        """
        return self._epochs.ends()

    def stats(self) -> dict[str, Scalar]:
        """Figures since the loader was made.

        ``batches`` and ``samples`` delivered, the position in ``epoch`` and ``epoch_samples``,
        samples ``skipped`` as poison, ``left_out`` (see ``leave_out``), and ``missed`` by teachers that
        were missing; ``starved_s`` waited for labels (``startup_s`` before the very first batch apart),
        ``waiting_s`` for those of now; ``loop_s`` from the first batch to the last one so far, ``reading_s``
        of it in the data loader; ``backpressure_s`` with the queue full and the teachers idle; ``done``,
        ``requeued``, ``duplicates`` (``late`` among them), ``hedged``, ``failed`` tasks, ``leased`` ones now;
        batches ``discarded`` after they were read, because the loop was left early or another epoch began
        than was read ahead; ``buffered`` labelled batches and ``teachers`` connected now; bytes of tensors
        by the way that they went; and what comparing these found (docs/teachers.md).
        """
        return self._service.stats()

    @property
    def shelves(self) -> dict[str, Shelf]:
        """Where in the store the labels of each teacher lie, from the moment that this is known."""
        return self._service.shelves

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    def state_dict(self) -> dict[str, Any]:
        """The position of the loop, and which teachers it learnt from: what is the same on all ranks.

        Behind an ``ElasticSampler`` that is all of it, and knows no world size. So it is with one rank.
        """
        registry.state_taken(self)
        return self._state.shared()

    def rank_state_dict(self) -> dict[str, Any] | None:
        """What differs by rank behind any other data loader: its own state, this rank's samples; or None.

        A `Checkpointer` saves it for each rank, and restores it to the same one.
        """
        return self._state.of_rank()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved position; the next ``for`` resumes there, with labels of the teachers of then.

        Workers of a teacher that was changed meanwhile are refused, unless ``EDLDIST_EXTEND`` is set.

        Raises:
            CheckpointError: it was saved with another kind of data loader, or by another number of ranks,
                each of which had a place of its own.
        """
        self._state.restore(state)

    def set_epoch(self, epoch: int) -> None:
        """Let the next ``for`` begin that epoch; naming the current one resumes inside of it.

        Nobody has to call it: each ``for`` goes on with the next epoch by itself. It is for loops that count
        epochs themselves, and say so, and costs nothing where both agree.

        Raises:
            ConfigError: no number of an epoch, or the data loader keeps a state of its own, so that it
                cannot go to the start of just any epoch.
        """
        self._epochs.go_to(epoch)

    def load_rank_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """What this rank's ``rank_state_dict`` was, after ``load_state_dict``; None where none was saved.

        Raises:
            CheckpointError: the position needs one.
        """
        self._state.restore_rank(state)

    def hand_on(self) -> Any:
        """Labels that are here and were not consumed, for ``take_on`` of the next generation's loader."""
        return self._service.hand_on()

    def take_on(self, handed: Any) -> None:
        """Find labels there before a teacher is asked, while the first batches are read."""
        self._service.take_on(handed)

    # --- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Release the workers and leave the job. Idempotent; also done at interpreter exit."""
        self._finalizer()
        atexit.unregister(self._finalizer)
        if not self._labelling.forked:  # a forked child has no thread that could give the queue's lock back
            self._arrivals.close()
        registry.need_not_be_saved(self)

    def __enter__(self) -> DistillLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
