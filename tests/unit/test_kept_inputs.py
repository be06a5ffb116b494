"""A model that keeps its inputs keeps what they were, whatever their owner puts there next."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edldist.labels.codec import parse_codec
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.passes.forward import Forward, PassTerms
from edldist.teacher.passes.lane import HostLane
from edldist.wire.shm.memfile import make_file

SIZE = 50 * mmap.PAGESIZE


class Lent:
    """Memory of a student, which fills it again, as a worker maps it."""

    def __init__(self) -> None:
        self.fd = make_file(SIZE)
        self._theirs = mmap.mmap(self.fd, SIZE)

    def fill(self, content: int) -> None:
        np.frombuffer(self._theirs, np.uint8)[:] = content

    def inputs(self) -> dict[str, Tensor]:
        ours = mmap.mmap(self.fd, SIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        # Neither its first byte nor its last is at the edge of a page.
        return {"x": torch.frombuffer(ours, dtype=torch.uint8)[100:-100].reshape(8, -1)}


@pytest.fixture
def lent() -> Iterator[Lent]:
    made = Lent()
    yield made
    os.close(made.fd)


def label(
    lane: HostLane, lent: Lent, model: Callable[[Tensor], Any], codec: str = "dense"
) -> dict[str, Tensor]:
    teacher = Teacher("torch.nn:Identity", torch.device("cpu"))
    teacher._model = model
    run = Forward(teacher, parse_codec(codec))
    return lane.launch([lent.inputs()], lambda inputs: run(inputs, PassTerms())).labels()[0]


class Keeping:
    """Keeps its inputs, in some way."""

    def __init__(self, keep: Callable[[Tensor], Any]) -> None:
        self._keep = keep
        self.kept: list[Any] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.kept.append(self._keep(x))
        return x.float().mean(1, keepdim=True)


WAYS = {
    "itself": lambda x: x,
    "a view": lambda x: x[1:, 5:],
    "an array": lambda x: x.numpy(),
    "its storage": lambda x: x.untyped_storage(),
    "a capsule": lambda x: torch.utils.dlpack.to_dlpack(x),
    "detached": lambda x: x.detach(),
}


def content(kept: Any) -> set[int]:
    if type(kept).__name__ == "PyCapsule":
        kept = torch.utils.dlpack.from_dlpack(kept)
    if isinstance(kept, torch.UntypedStorage):
        kept = torch.empty(0, dtype=torch.uint8).set_(kept)[100 : SIZE - 100]
    return set(np.unique(np.asarray(kept)).tolist())


@pytest.mark.parametrize("keep", WAYS.values(), ids=WAYS.keys())
def test_what_a_model_keeps_stays_what_it_was(lent: Lent, keep: Callable[[Tensor], Any]) -> None:
    model, lane = Keeping(keep), HostLane()
    for number in range(1, 4):
        lent.fill(number)
        assert (label(lane, lent, model)["logits"] == number).all()
    lent.fill(9)
    assert content(model.kept[0]) == {1}
    assert lane._copies, "it gets copies, which are its own to keep"


@pytest.mark.parametrize(
    ("model", "codec"),
    [
        pytest.param(lambda x: x.float(), "dense", id="made anew"),
        pytest.param(lambda x: x, "dense", id="the inputs"),
        pytest.param(lambda x: x[:, :7], "dense", id="a view"),
        pytest.param(lambda x: {"a": x, "b": x.T.T, "c": x[:, 1:2], "d": x + 1}, "dense", id="several"),
        pytest.param(lambda x: x.float(), "dense:fp16", id="packed"),
    ],
)
def test_a_model_that_keeps_nothing_gets_the_memory_as_it_is(lent: Lent, model: Any, codec: str) -> None:
    lane = HostLane()
    for number in (1, 2):
        lent.fill(number)
        labels = label(lane, lent, model, codec)
        assert int(next(iter(labels.values())).max()) == number
    assert not lane._copies


def test_small_inputs_are_not_looked_at() -> None:
    lane, kept = HostLane(), []
    x = torch.ones(4, 3)

    def model(x: Tensor) -> Tensor:
        kept.append(x)
        return x * 2

    teacher = Teacher("torch.nn:Identity", torch.device("cpu"))
    teacher._model = model
    run = Forward(teacher, parse_codec("dense"))
    lane.launch([{"x": x}], lambda inputs: run(inputs, PassTerms()))
    assert not lane._copies
