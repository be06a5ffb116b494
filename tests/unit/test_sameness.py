"""What a checkpoint keeps of rank 0 for all ranks has to be equal on all; what differs is named."""

from __future__ import annotations

import json
import math
import re
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from edldist.checkpoint import sameness
from edldist.checkpoint.sameness import DifferentStatesError, bits_of, require_same
from edldist.checkpoint.snapshot import Snapshot

pytestmark = pytest.mark.timeout(240)


class Box:
    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> Any:
        return self.value

    def load_state_dict(self, state: Any) -> None: ...


class Meeting:
    """A gather among threads."""

    def __init__(self, size: int) -> None:
        self.values: dict[int, Any] = {}
        self.gathered: list[list[str]] = []
        self.barrier = threading.Barrier(size, timeout=150)

    def of(self, rank: int) -> Any:
        meeting = self

        class One:
            def gather(self, value: Any) -> list[Any]:
                meeting.values[rank] = value
                if rank == 0:
                    meeting.gathered.append(list(value))
                meeting.barrier.wait()
                found = [meeting.values[k] for k in sorted(meeting.values)]
                meeting.barrier.wait()
                return found

        return One()


def verdicts(*states: dict[str, Any], meeting: Meeting | None = None) -> list[str]:
    """What every rank is told of the states of all."""
    meeting = meeting or Meeting(len(states))

    def judge(rank: int) -> str:
        try:
            require_same(meeting.of(rank), 5, Snapshot(states[rank]).shared_values())
        except DifferentStatesError as exc:
            return str(exc)
        return ""

    with ThreadPoolExecutor(len(states)) as pool:
        return list(pool.map(judge, range(len(states))))


def boxes(*values: Any) -> str:
    said = verdicts(*({"same": Box([1]), "box": Box(value)} for value in values))
    assert len(set(said)) == 1, "every rank is told the same"
    return said[0]


EQUAL = [
    {"epoch": 3, "deep": [1.5, None, {"x": (1, 2)}], 7: "seven"},
    torch.arange(5),
    {"generator": torch.Generator().manual_seed(1).get_state(), "nan": torch.tensor([math.nan])},
    [],
]


@pytest.mark.parametrize("value", EQUAL, ids=str)
def test_equal_states_are_equal(value: Any) -> None:
    assert boxes(value, value, value) == ""


def test_the_order_of_a_dicts_keys_is_no_difference_and_of_an_ordered_ones_is() -> None:
    assert boxes({"a": 1, "b": 2}, {"b": 2, "a": 1}) == ""
    assert boxes({1: "a", 2: "b"}, {2: "b", 1: "a"}) == ""
    assert "box" in boxes(OrderedDict(a=1, b=2), OrderedDict(b=2, a=1))


IN_ORDER = re.escape(json.dumps(list("abcdefgh")))
DIFFERENT = [
    ({"at": [0, 14]}, {"at": [0, 12]}, "box/at/1: 14 on rank 0, 12 on rank 2"),
    ({7: {"x": 1}}, {7: {"x": 2}}, "box/7/x: 1 on rank 0, 2 on rank 2"),
    ({"at": 1}, {"at": True}, "box/at: 1 on rank 0, true on rank 2"),
    ({"at": 0.0}, {"at": -0.0}, "box/at: 0.0 on rank 0, -0.0 on rank 2"),
    ({"at": math.nan}, {"at": 1.0}, "box/at: {.!float.: .nan.} on rank 0"),
    ({"a": 1}, {"a": 1, "b": 2}, r"box: keys: \[\] on rank 0, \[\"b\"\] on rank 2"),
    ([1, 2], [1], r"box: \[1, 2\] on rank 0, \[1\] on rank 2"),
    (["x" * 100], ["y"], r"box/0: \"x{79}\.\.\. \(102 characters\) on rank 0"),
    ({"t": torch.ones(2)}, {"t": torch.ones(3)}, r"box/t: \"float32\[2\]\" on rank 0, \"float32\[3\]\""),
    ({"t": torch.ones(2)}, {"t": torch.ones(2).int()}, r"box/t: .*float32.* on rank 0, .*int32.* on rank 2"),
    ({"t": torch.ones(2)}, {"t": torch.tensor([1.0, 2.0])}, "box/t: .values with digest .* on rank 0, "),
    ({"t": torch.zeros(2)}, {"t": -torch.zeros(2)}, "box/t: .values with digest"),
    ({"t": [torch.zeros(2)]}, {"t": [torch.ones(2)]}, "box/t/0: .values with digest"),
    ({"t": torch.ones(2)}, {"t": {"a": 1}}, r"box/t: keys: .*\"!tensor\".* on rank 0, \[\"a\"\] on rank 2"),
    ({"t": {"a": 1}}, {"t": torch.ones(2)}, r"box/t: keys: \[\"a\"\] on rank 0, .*\"!tensor\""),
    (dict.fromkeys("hgfedcba"), {}, f"box: keys: {re.escape(json.dumps(list('abcdefgh')))} on rank 0"),
    (
        {},
        dict.fromkeys("hgfedcba"),
        rf"box: keys: \[\] on rank 0, {re.escape(json.dumps(list('abcdefgh')))} on",
    ),
    (["x" * 78], ["y"], r"box/0: \"x{78}\" on rank 0"),
]


@pytest.mark.parametrize(("one", "two", "says"), DIFFERENT, ids=lambda value: str(value)[:20])
def test_the_path_and_the_rank_that_differs_are_named(one: Any, two: Any, says: str) -> None:
    said = boxes(one, one, two)
    assert re.search(f"step 5 was not saved: the states differ among ranks: {says}", said), said
    assert "rank_state_dict()" in said


def test_digests_are_gathered_and_only_what_differs_itself() -> None:
    states = [{"step": Box(1), "order": Box([0, 1])}, {"step": Box(1), "order": Box([1, 0])}]
    meeting = Meeting(2)
    verdicts(*states, meeting=meeting)
    assert meeting.gathered == [["step", "order"], ["order"]]
    verdicts(states[0], states[0], meeting=meeting)
    assert meeting.gathered[2:] == [["step", "order"]]
    meeting.gathered.clear()
    verdicts({"box": Box({"a": 1, "b": 2})}, {"box": Box({"b": 2, "a": 1})}, meeting=meeting)
    assert meeting.gathered == [["box"]]


def test_other_names_are_a_difference() -> None:
    said = verdicts({"a": Box(1)}, {"a": Box(1), "b": Box(2)})
    assert said[0] == said[1] and 'the state: keys: [] on rank 0, ["b"] on rank 1' in said[0]


def test_a_generators_state_of_each_ranks_own_is_found() -> None:
    states = [{"rng": torch.Generator().manual_seed(rank).get_state()} for rank in range(2)]
    assert "box/rng" in boxes(*states)


class TestTensorsOfModulesAndOptimizers:
    """DDP keeps parameters equal up to rounding, and means rank 0's buffers to count."""

    @staticmethod
    def job(value: float) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
        optimizer = torch.optim.Adam(model.parameters())
        for tensor in model.state_dict().values():
            tensor.fill_(value)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, value)
        optimizer.step()
        return model, optimizer

    def test_are_compared_by_structure(self) -> None:
        jobs = [self.job(1.0), self.job(2.0)]
        assert verdicts(*({"model": model, "optimizer": opt} for model, opt in jobs)) == ["", ""]
        nested = [Box({"model": m.state_dict(), "all": [o.state_dict()]}) for m, o in jobs]
        assert boxes(*(box.value for box in nested)) == ""

    def test_their_shapes_and_plain_values_are_not_exempt(self) -> None:
        (model, optimizer), (_, other) = self.job(1.0), self.job(1.0)
        other.param_groups[0]["lr"] = 0.5
        assert (
            "optimizer/param_groups/0/lr: 0.001 on rank 0"
            in verdicts(*({"optimizer": it} for it in (optimizer, other)))[0]
        )
        assert (
            "model/0.weight"
            in verdicts({"model": model}, {"model": nn.Sequential(nn.Linear(2, 1), model[1])})[0]
        )


@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_large_tensor_is_compared_by_a_sample_a_small_one_whole(place: int) -> None:
    small = torch.zeros(sameness.SAMPLE_ELEMENTS)
    changed = small.clone()
    changed[place] = 1
    assert bits_of(small) != bits_of(changed)
    large = torch.zeros(3 * sameness.SAMPLE_ELEMENTS + 1)
    assert bits_of(large) != bits_of(large + 1)
    assert bits_of(large[:0]) == bits_of(small[:0]) != bits_of(torch.tensor(1.0))


def test_bits_do_not_depend_on_strides() -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    assert bits_of(matrix.t()) == bits_of(matrix.t().contiguous()) != bits_of(matrix)
