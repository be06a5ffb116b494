"""A pipeline over a model that a test chooses, and flights that land when the test says so."""

from __future__ import annotations

from concurrent.futures import Future

import torch

from edldist.labels.codec import parse_codec
from edldist.teacher.capacity import Capacity
from edldist.teacher.exchange import answers_to, inputs_of
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.passes.batch_size import BatchSizeSearch
from edldist.teacher.passes.forward import Forward
from edldist.teacher.passes.lane import HostLane
from edldist.teacher.passes.pipeline import Pipeline
from edldist.teacher.tasks import HeldTask, TaskInputs
from edldist.wire.messages import TensorSpec
from edldist.wire.tensors import unpack

CPU = torch.device("cpu")


class Flight:
    """Computed when it was launched, and in the air until it is told to land."""

    def __init__(self, landed) -> None:
        self._landed = landed
        self.computed = landed.computed
        self.is_down = False
        self.error: Exception | None = None
        self.waited = False

    def done(self) -> bool:
        if self.error is not None:
            raise self.error
        return self.is_down

    def wait(self) -> None:
        self.waited = self.is_down = True

    def labels(self):
        assert self.is_down
        return self._landed.labels()


class Apron(HostLane):
    """A lane whose flights land when the test says so."""

    depth = 2

    def __init__(self) -> None:
        super().__init__()
        self.flights: list[Flight] = []
        self.healthy = True

    def launch(self, parts, compute) -> Flight:
        flight = Flight(super().launch(parts, compute))
        self.flights.append(flight)
        assert sum(not each.is_down for each in self.flights) <= self.depth
        return flight

    def recover(self) -> bool:
        return self.healthy


class Shelf:
    """A reader whose parts are there when the test says so."""

    def __init__(self) -> None:
        self.reads: list[tuple[HeldTask, Future]] = []

    def read(self, tasks):
        futures = [Future() for _ in tasks]
        self.reads += zip(tasks, futures, strict=True)
        return futures

    def hand_over(self, task: HeldTask) -> None:
        for asked, future in self.reads:
            if asked is task and not future.done():
                future.set_result(inputs_of([task]))


class Crew:
    """A pipeline over a model, and what came of it."""

    def __init__(
        self, model, lane=None, batch_size: int | str = 8, reader=None, codec="dense", trace=(), **options
    ):
        """``trace``: the stopwatch of a trace, and the numbers of students in it."""
        teacher = Teacher("tests.models:identify", CPU)
        teacher._model = model
        self.lane = lane or HostLane()
        self.search = BatchSizeSearch(batch_size)
        self.sizes: list[int] = []
        self.capacity = Capacity()
        self.pipeline = Pipeline(
            self.lane,
            Forward(teacher, parse_codec(codec), watch=trace[0] if trace else None, **options),
            self.search,
            lambda tasks, labels, s: answers_to(tasks, labels, "", s, lambda _: None),
            self.sizes.append,
            self.capacity,
            reader,
            *trace,
        )
        self.labels: dict[int, list] = {}
        self.errors: dict[int, str] = {}

    def turn(self, wait: bool = False) -> None:
        if wait:
            self.pipeline.await_any()
        for outcome in self.pipeline.step():
            for answer in outcome.answers:
                leases = [task.lease for task in answer.tasks]
                assert not (self.labels.keys() | self.errors.keys()) & set(leases), "answered twice"
                if answer.result is None:
                    self.errors |= dict.fromkeys(leases, answer.error)
                    continue
                rows = unpack(answer.result.tensors, answer.frames)["logits"].flatten().tolist()
                for row in answer.result.rows:
                    self.labels[row.lease], rows = rows[: row.count], rows[row.count :]

    def run(self, *passes: list[HeldTask]) -> Crew:
        for tasks in passes:
            while not self.pipeline.has_room:
                self.turn(wait=True)
            self.pipeline.begin(tasks)
        while self.pipeline.patience_s(9.0) != 9.0:
            self.turn(wait=True)
        return self


def task(lease: int, *ids: int, own_pass: bool = False) -> HeldTask:
    values = list(ids) or [lease]
    spec = TensorSpec(name="id", dtype="int64", shape=[len(values)])
    frame = memoryview(torch.tensor(values).numpy().tobytes())
    return HeldTask(
        "s", lease, len(values), len(values), own_pass, TaskInputs(len(values), [spec], [frame]), 0
    )


def double(id):  # noqa: A002
    return id * 2


NO_MEMORY = torch.OutOfMemoryError("no memory on purpose")


def fits(largest: int, error=NO_MEMORY):
    def model(id):  # noqa: A002
        if len(id) > largest:
            raise error
        return id * 2

    return model


def poison(id):  # noqa: A002
    if (id == 13).any():
        raise ValueError("13 is poison on purpose")
    return id * 2
