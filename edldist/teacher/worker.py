"""One teacher worker: load the model, serve until told to leave."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edldist.address_file import parse_coordinator
from edldist.clock import Clock, SystemClock
from edldist.errors import ConfigError, ModelError, UnfitCodecError
from edldist.grace import DRAIN_S
from edldist.keys.pair import TEACHER
from edldist.labels.codec import parse_codec
from edldist.labels.fingerprint import Fingerprint, check_version
from edldist.labels.packing import Codec
from edldist.observe.health import Health, probed
from edldist.reference import is_engine, is_folder, place_of
from edldist.signals import EXIT_STOPPED
from edldist.teacher.dataset import IndexedDataset, parse_entries
from edldist.teacher.engines.engine import Engine
from edldist.teacher.engines.forward import EngineForward
from edldist.teacher.engines.lane import EngineLane
from edldist.teacher.exchange import answers_to
from edldist.teacher.model.outputs import parse_outputs
from edldist.teacher.model.teacher import Teacher, device_type, pick_device
from edldist.teacher.passes.batch_size import AUTO, BatchSizeSearch
from edldist.teacher.passes.forward import Forward, Labelling
from edldist.teacher.passes.lane import Lane, lane_for
from edldist.teacher.passes.pipeline import Pipeline
from edldist.teacher.passes.stopwatch import Stopwatch
from edldist.teacher.reader import DatasetReader
from edldist.teacher.service.identity import TeacherIdentity
from edldist.teacher.service.service import TeacherService
from edldist.teacher.service.trail import COMPUTE
from edldist.teacher.stop_signals import StopSignals
from edldist.weights.followed import Follower, Version
from edldist.wire.messages import Scalar
from edldist.wire.process import process_id
from edldist.wire.transport import Transport
from edldist.wire.voucher import Voucher
from edldist.wire.zmq.keys import socket_keys
from edldist.wire.zmq.transport import ZmqTransport

__all__ = ["TeacherWorker", "WorkerOptions", "load_teacher", "run_worker"]

logger = logging.getLogger(__name__)

_TAKE_S = 0.25
_LABELLING, _TALKING = "labelling", "I/O"
_LONGEST_TURN_S = {_LABELLING: 600.0, _TALKING: 10.0}
"""After so long probes hear that a loop is stuck. The first turns in a pass: for as long as a model takes."""


@dataclass(frozen=True)
class WorkerOptions:
    """What ``edldist teacher`` takes.

    Attributes:
        coordinator: ``tcp://host:port``, or ``file:PATH`` (``address_file``).
        model: ``package.module:factory``, ``hf:FOLDER``, or an engine, as ``vllm:http://HOST:PORT``.
        model_args: arguments of the factory, or settings of how the engine is asked (``EngineSettings``).
        name: of the teacher group.
        device: ``auto``, ``auto:K`` (see ``pick_device``), ``cpu``, ``cuda:1``, ...
        batch_size: most samples of one forward pass, or ``auto`` to find it out.
        codec: how labels travel.
        weights: file to load into the model, or ``follow:PLACE`` for those that somebody publishes there
            (``PublishedWeights``), version by version; or None.
        outputs: names of those that are sent, separated by commas, or None for all.
        vocabulary: folder or file of the tokenizer whose ids it takes, or None: what lies beside the model.
        version: of the model, where its weights do not tell; labels are of one version only.
        compile: run the model through ``torch.compile``.
        autocast: ``bf16`` or ``fp16``, or None.
        channels_last: weights and images in channels-last memory format.
        dataset: ``package.module:factory`` of a data set; students send indices then. Or None.
        dataset_inputs: entries of a sample that the model takes, separated by commas, or None.
        dataset_threads: threads that read the data set.
        allow_nonfinite: let NaN and infinite labels through.
        drain_s: after SIGTERM, time to finish what is held; then the rest is given back.
        connect_timeout_s: how long to wait for a coordinator.
        worker_id: unique id, or None to make one.
        attempt: how often that id was given to a process before: this one takes the place of those.
        http: ``HOST:PORT`` where probes ask for its health, or None for nowhere.
    """

    coordinator: str
    model: str
    name: str = "teacher"
    device: str = "auto"
    batch_size: int | str = 64
    codec: str = "dense"
    weights: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    outputs: str | None = None
    vocabulary: str | None = None
    version: str = ""
    compile: bool = False
    autocast: str | None = None
    channels_last: bool = False
    dataset: str | None = None
    dataset_inputs: str | None = None
    dataset_threads: int = 1
    allow_nonfinite: bool = False
    drain_s: float = DRAIN_S
    connect_timeout_s: float = 300.0
    worker_id: str | None = None
    attempt: int = 0
    http: str | None = None

    def __post_init__(self) -> None:
        parse_coordinator(self.coordinator, "coordinator")
        parse_codec(self.codec)
        check_version(self.version)
        if place_of(self.weights) == "":
            raise ConfigError(f"weights {self.weights}: say where they are published, follow:PATH or URL")
        if self.version and place_of(self.weights) is not None:
            raise ConfigError(
                f"version {self.version}: weights that are published have versions of their own "
                f"({self.weights}): leave it out (--model-version)"
            )
        if self.outputs is not None:
            parse_outputs(self.outputs)
        if self.batch_size != AUTO and (not isinstance(self.batch_size, int) or self.batch_size < 1):
            raise ConfigError(f"batch_size={self.batch_size}: must be at least 1, or {AUTO}")
        if self.dataset_threads < 1:
            raise ConfigError(f"dataset_threads={self.dataset_threads}: must be at least 1")
        if self.dataset_inputs is not None:
            parse_entries(self.dataset_inputs)
            if self.dataset is None:
                raise ConfigError(
                    f"dataset_inputs={self.dataset_inputs}: there is no dataset to take them from"
                )
        for name in ("drain_s", "connect_timeout_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}={getattr(self, name)}: must not be negative")


class TeacherWorker:
    """The compute loop. Owned by the thread that calls ``run``.

    Instead of ``run``, somebody may call its turns and those of ``service``, then ``close``.
    """

    def __init__(
        self,
        options: WorkerOptions,
        teacher: Teacher | Engine,
        transport: Transport | None = None,
        clock: Clock | None = None,
        lane: Lane | None = None,
        process: str | None = None,
        host: str | None = None,
        pid: int | None = None,
        alive: Callable[[Collection[str], float], None] = lambda addresses, ttl_s: None,
    ) -> None:
        """Connect, and be ready for ``run``, or for turns that somebody else calls.

        Args:
            options: who it is and how it labels.
            teacher: the model.
            transport, clock: the wire and the time; None for the real ones.
            lane: how passes reach the device; None for the one that fits it.
            process, host, pid: of this process; None for what they are.
            alive: as of ``TeacherService``.
        """
        self._options = options
        self._teacher = teacher
        codec = parse_codec(options.codec)
        self._clock = clock or SystemClock()
        self._search = BatchSizeSearch(options.batch_size)
        self._reader = _reader(options)
        self._started = self._clock.monotonic()
        self._stop_at: float | None = None
        self._version = options.version
        self._newer: Version | None = None
        self._following = self._followed(options)
        self.worker_id = options.worker_id or _new_id(options.name)
        self.service = TeacherService(
            TeacherIdentity(
                worker=self.worker_id,
                teacher=options.name,
                coordinator=options.coordinator,
                batch_size=self._search.size,
                fingerprint=Fingerprint(
                    model=teacher.identity,
                    weights=teacher.digest,
                    tokenizer=teacher.tokenizer,
                    vocabulary=None if teacher.tokens is None else teacher.tokens.mark,
                    version=self._version,
                    codec=codec.spec,
                ),
                process=process or process_id(),
                host=host or socket.gethostname(),
                pid=pid or os.getpid(),
                device=str(teacher.device),
                device_type=device_type(teacher.device),
                connect_timeout_s=options.connect_timeout_s,
                tokens=teacher.tokens,
                attempt=options.attempt,
            ),
            transport or ZmqTransport(keys=socket_keys(TEACHER)),
            self._clock,
            alive,
        )
        service = self.service
        watch = Stopwatch(service.recorder[COMPUTE], teacher.device)
        labelling = _labelling(teacher, codec, options.allow_nonfinite, watch)
        service.makes = labelling.makes
        self._pipeline = Pipeline(
            lane or _lane_of(teacher, watch),
            labelling,
            self._search,
            lambda tasks, labels, compute_s: answers_to(
                tasks, labels, self._version, compute_s, service.max_frame_bytes
            ),
            service.resize,
            service.capacity,
            self._reader,
            watch,
            service.recorder.number,
        )
        service.extra_stats = self._stats
        service.in_passes = self._pipeline.levels

    def _followed(self, options: WorkerOptions) -> tuple[Follower, Teacher] | None:
        """Load the first weights that are published, and follow them from there on."""
        place, teacher = place_of(options.weights), self._teacher
        if place is None:
            return None
        if not isinstance(teacher, Teacher):
            raise ModelError(f"model {options.model}: an engine loads its own weights, and follows no others")
        follower = Follower(place, teacher.state)
        first = follower.first(options.connect_timeout_s)
        teacher.replace(first.tensors)
        self._version = str(first.number)
        return follower, teacher

    def drain(self) -> None:
        """Finish the passes that have begun, give back the rest, then let ``run`` return. For any thread."""
        if self._stop_at is None:
            self._stop_at = self._clock.monotonic() + self._options.drain_s
            self.service.drain()

    def run(self, turned: Callable[[], None] = lambda: None) -> None:
        """Serve until drained.

        Args:
            turned: called before each turn.

        Raises:
            EdlDistError: the coordinator refuses this worker, or cannot be reached.
        """
        reason = "it failed"
        self.service.start()
        try:
            while not self.finished:
                self._await_work()
                turned()
                self.turn(self._clock.monotonic())
            reason = "it was asked to leave"
        finally:
            self.close(reason)

    def close(self, reason: str) -> None:
        """Say goodbye with a reason, and release everything."""
        self.service.close(reason)
        self._pipeline.end()
        if self._following is not None:
            self._following[0].close()
        if self._reader is not None:
            self._reader.close()

    def abandon(self) -> None:
        """Give everything back and say goodbye, from another thread: the one that runs may never return."""
        self.service.close("it was asked to leave, and its model did not end")

    def turn(self, now: float) -> float:
        """Take on what is there, and answer what is done, without waiting.

        Args:
            now: monotonic seconds.

        Returns:
            Monotonic seconds at which it wants its next turn at the latest; tasks that come, and a pass that
            lands, are reasons for an earlier one.

        Raises:
            EdlDistError: what ended the service, or that the device is of no use any more.
        """
        pipeline, service = self._pipeline, self.service
        if self._following is not None:
            self._newer = self._following[0].take() or self._newer
        while self._newer is None and pipeline.has_room and (tasks := service.take()):
            pipeline.begin(tasks)
        for outcome in pipeline.step():
            service.answer(outcome)
        if self._following is not None and self._newer is not None and pipeline.idle:
            self._replace(self._following[1], self._newer)
        return now + pipeline.patience_s(_TAKE_S)

    def _replace(self, teacher: Teacher, newer: Version) -> None:
        """Go over to newer weights, while no pass is under way, and greet with them."""
        teacher.replace(newer.tensors)
        self._version, self._newer = str(newer.number), None
        self.service.renew(self._version, teacher.digest)
        logger.info("worker %s labels with version %s of its weights", self.worker_id, self._version)

    def _await_work(self) -> None:
        """Block until there are tasks to take on, or passes to answer, or for some time."""
        if self._pipeline.has_room and self._newer is None:
            self.service.await_tasks(self._pipeline.patience_s(_TAKE_S))
        else:
            self._pipeline.await_any()

    @property
    def finished(self) -> bool:
        """Whether it was asked to leave and holds nothing any more, or its time for that is up."""
        if self._stop_at is None:
            return False
        return self.service.drained or self._clock.monotonic() > self._stop_at

    def _stats(self) -> dict[str, Scalar]:
        return {
            "batch_size": self._search.size,
            "passes": self._pipeline.passes,
            "out_of_memory": self._pipeline.shrinks,
            "busy_s": round(self._pipeline.compute_s, 6),
            "up_s": round(self._clock.monotonic() - self._started, 3),
        }


def _reader(options: WorkerOptions) -> DatasetReader | None:
    if options.dataset is None:
        return None
    entries = parse_entries(options.dataset_inputs) if options.dataset_inputs is not None else None
    return DatasetReader(IndexedDataset(options.dataset, entries), options.dataset_threads)


def _lane_of(teacher: Teacher | Engine, watch: Stopwatch) -> Lane:
    return EngineLane(teacher, watch) if isinstance(teacher, Engine) else lane_for(teacher.device, watch)


def _labelling(teacher: Teacher | Engine, codec: Codec, allow_nonfinite: bool, watch: Stopwatch) -> Labelling:
    if isinstance(teacher, Engine):
        return EngineForward(teacher, codec)
    return Forward(teacher, codec, allow_nonfinite, watch)


def load_teacher(options: WorkerOptions) -> Teacher | Engine:
    """The model, ready to label, or the engine that has it.

    Raises:
        ModelError, ConfigError: it cannot be loaded.
        EngineLostError: the engine does not answer.
    """
    if is_engine(options.model):
        return _engine(options)
    if is_folder(options.model) and parse_codec(options.codec).spec.name == "hidden":
        raise UnfitCodecError(
            f"codec hidden of model {options.model}: what travels is the output 'hidden', and no model of "
            "transformers has one. Write a factory (package.module:factory) whose forward returns "
            "{'hidden': ...}, the state that its head is applied to, or take another codec, as topk:64"
        )
    device = pick_device(options.device)
    logger.info("loading %s on %s", options.model, device)
    return Teacher(
        options.model,
        device,
        options.weights if place_of(options.weights) is None else None,
        compiled=options.compile,
        autocast=options.autocast,
        channels_last=options.channels_last,
        outputs=None if options.outputs is None else parse_outputs(options.outputs),
        vocabulary=options.vocabulary,
        kwargs=options.model_args,
    )


def _engine(options: WorkerOptions) -> Engine:
    kept = parse_codec(options.codec).top_entries()
    elsewhere = {
        "device": options.device not in ("auto", "cpu") and not options.device.startswith("auto:"),
        "weights": options.weights is not None,
        "outputs": options.outputs not in (None, "logits"),
        "compile": options.compile,
        "autocast": options.autocast is not None,
        "channels_last": options.channels_last,
    }
    for name, given in elsewhere.items():
        if given:
            raise ConfigError(
                f"{name} {getattr(options, name)}: the model of {options.model} is the engine's: it is "
                "chosen where that is started"
            )
    if options.vocabulary is not None:
        raise ConfigError(
            f"vocabulary {options.vocabulary}: the tokenizer against which an engine's is held is named as "
            "kwargs: {tokenizer: PATH} (--model-arg tokenizer=PATH)"
        )
    logger.info("looking at %s", options.model)
    return Engine(options.model, options.model_args, kept)


def _new_id(name: str) -> str:
    return f"{name}-{socket.gethostname()}-{uuid.uuid4().hex[:8]}"


def run_worker(options: WorkerOptions) -> int:
    """Run one worker in this process until it is told to leave.

    A signal that asks it to stop drains it, within ``drain_s`` whatever the model does; one that insists ends
    it at once (see ``edldist.signals``).

    Returns:
        ``EXIT_STOPPED`` when it left as asked.

    Raises:
        ModelError, ConfigError: the model cannot be loaded. The caller exits with 2.
        EdlDistError: the job refused this worker or is gone. The caller exits with 1.
    """
    health = Health(_LONGEST_TURN_S)
    worker_id = options.worker_id or _new_id(options.name)
    options = replace(options, worker_id=worker_id)
    with (
        probed(options.http, health),
        StopSignals(options.drain_s) as signals,
        contextlib.closing(Voucher()) as voucher,
    ):
        # It is ready by the time that there is a model to vouch for.
        voucher.start(worker_id, process_id(), options.coordinator)
        teacher = load_teacher(options)

        def alive(addresses: Collection[str], ttl_s: float) -> None:
            health.turned(_TALKING)
            health.waits_for(worker.service.waits_for)
            voucher.alive(addresses, ttl_s)

        worker = TeacherWorker(options, teacher, alive=alive)
        signals.serve(worker)
        logger.info(
            "worker %s of teacher %r is up, batch size %s", worker.worker_id, options.name, options.batch_size
        )
        worker.run(lambda: health.turned(_LABELLING))
    logger.info("drained; goodbye")
    return EXIT_STOPPED
