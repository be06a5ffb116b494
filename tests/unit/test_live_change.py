"""What is a change of a live group, who hears of it, and what it leaves in the models."""

from __future__ import annotations

import threading
import time

import pytest
import torch
import torch.distributed as dist
from torch import nn

from edldist.errors import EdlDistError, RegroupError
from edldist.live.change import is_change
from edldist.live.forming import form
from edldist.live.standing import Standing
from edldist.live.undo import Undo

GLOO = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:33211"
)
LOST = "1 of the 2 ranks of generation 3 are gone"


def caught(raising, *args) -> BaseException:
    with pytest.raises(Exception) as info:
        raising(*args)
    return info.value


def wrapped() -> None:
    try:
        raise RegroupError(LOST)
    except RegroupError as exc:
        raise ValueError("evaluation failed") from exc


def while_handled() -> None:
    try:
        raise RuntimeError(GLOO)
    except RuntimeError:
        raise OSError("cannot clean up")  # noqa: B904


def hidden() -> None:
    try:
        raise RegroupError(LOST)
    except RegroupError:
        raise ValueError("no longer of interest") from None


@pytest.mark.parametrize(
    "error",
    [
        RegroupError(LOST),
        RuntimeError(GLOO),
        RuntimeError(f"Got the following error when running the callback: RegroupError: {LOST}"),
        dist.DistNetworkError("failed to recv, got 0 bytes"),
        caught(wrapped),
        caught(while_handled),
    ],
)
def test_what_an_operation_of_the_group_ended_in_is_a_change(error: BaseException) -> None:
    assert is_change(error, LOST)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("boom of the script"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        torch.OutOfMemoryError("CUDA out of memory"),
        OSError(28, "No space left on device"),
        KeyError("gloo"),
        EdlDistError("task 3 is poison"),
        caught(hidden),
    ],
)
def test_what_a_script_raises_is_its_own_however_close_to_a_change(error: BaseException) -> None:
    assert not is_change(error, LOST) and not is_change(error, "")


def test_who_waits_for_a_future_hears_why_the_generation_ended() -> None:
    standing = Standing(lambda: "")
    late, kept = standing.expect(), standing.expect()
    standing.settle(kept)
    standing.end(LOST)
    standing.end("another reason")
    assert (late.wait(), kept.wait(), standing.expect().wait()) == (LOST, "", LOST)
    standing.settle(late)  # an operation that ended after all
    assert late.value() == LOST and standing.ended == standing.lost() == LOST


def test_whoever_asks_first_ends_a_generation_for_all() -> None:
    reasons = iter(["", LOST])
    standing = Standing(lambda: next(reasons, ""))
    future = standing.expect()
    assert not future.done()
    assert standing.lost() == LOST and future.value() == LOST
    assert standing.lost() == LOST, "it ended for good"


def test_ranks_that_cannot_meet_are_left_where_they_are() -> None:
    over = threading.Event()
    reasons = iter(["", ""])
    began = time.monotonic()
    with pytest.raises(RegroupError, match="2 ranks are gone"):
        form(lambda: over.wait(60), Standing(lambda: next(reasons, "2 ranks are gone")))
    assert time.monotonic() - began < 30
    over.set()


def test_what_is_made_while_ranks_meet_comes_back() -> None:
    assert form(lambda: 3, Standing(lambda: "")) == 3


@pytest.mark.timeout(60)
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_whatever_ends_the_thread_in_which_ranks_meet_nobody_waits_for_it(error: BaseException) -> None:
    def leave() -> None:
        raise error

    with pytest.raises(type(error)):
        form(leave, Standing(lambda: ""))


def test_a_store_that_cannot_be_reached_is_a_change_and_a_mistake_is_none() -> None:
    def unreachable() -> None:
        raise dist.DistNetworkError("connection refused")

    def mistaken() -> None:
        raise ValueError("no such option")

    with pytest.raises(RegroupError, match="could not meet: connection refused"):
        form(unreachable, Standing(lambda: ""))
    with pytest.raises(ValueError, match="no such option"):
        form(mistaken, Standing(lambda: ""))


def test_a_step_that_was_not_taken_leaves_nothing_in_the_models() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    outside = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([*model.parameters(), outside], lr=0.1)
    undo = Undo({"model": model, "optimizer": optimizer})

    def step() -> None:
        (model(torch.randn(4, 2)).sum() + outside.sum()).backward()

    step()
    undo.note()
    there = {name: buffer.clone() for name, buffer in model.named_buffers()}
    undo.begin()
    step()
    model.eval()  # an evaluation is cut off
    assert not torch.equal(model[1].running_mean, there["1.running_mean"])
    undo.undo()
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, there[name]), name
    assert model.training and model[1].training
    assert outside.grad is None and all(parameter.grad is None for parameter in model.parameters())


def test_buffers_that_no_checkpoint_holds_are_left_alone() -> None:
    model = nn.Module()
    model.register_buffer("cache", torch.zeros(1), persistent=False)
    undo = Undo({"model": model})
    undo.note()
    model.cache.fill_(1.0)
    undo.undo()
    assert model.cache.item() == 1.0
