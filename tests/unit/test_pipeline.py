"""Every task is answered once, with its own labels, whatever fails and in whatever order passes land."""

from __future__ import annotations

import concurrent.futures
import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.errors import ContractError, EdlDistError, InputError, UnlabelableError
from edldist.labels.codec import parse_codec
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.passes.forward import Forward, PassTerms
from edldist.teacher.passes.lane import HostLane
from edldist.teacher.tasks import Answer, HeldTask, Outcome, TaskInputs
from edldist.wire.messages import TensorSpec
from edldist.wire.tensors import DTYPES, unpack
from tests.unit.passes import CPU, NO_MEMORY, Apron, Crew, Shelf, double, fits, poison, task


def test_on_a_host_a_pass_is_answered_in_the_step_it_began():
    crew = Crew(double)
    crew.pipeline.begin([task(1), task(2, 5, 6)])
    assert not crew.pipeline.has_room
    crew.turn(wait=True)
    assert crew.labels == {1: [2], 2: [10, 12]}
    assert crew.pipeline.has_room and crew.pipeline.passes == 1 and crew.pipeline.compute_s > 0


def test_nothing_to_do_waits_and_something_to_do_does_not():
    crew = Crew(double, Apron())
    assert crew.pipeline.patience_s(9.0) == 9.0
    crew.pipeline.begin([task(1)])
    assert 0 < crew.pipeline.patience_s(9.0) < 0.01
    crew.lane.flights[0].is_down = True
    crew.turn()
    assert crew.pipeline.patience_s(9.0) == 9.0


def test_two_passes_fly_at_once_and_each_is_answered_when_it_lands():
    crew = Crew(double, Apron())
    crew.pipeline.begin([task(1)])
    assert crew.pipeline.has_room
    crew.pipeline.begin([task(2)])
    assert not crew.pipeline.has_room
    crew.turn()
    assert crew.labels == {}
    crew.lane.flights[1].is_down = True
    crew.turn()
    assert crew.labels == {2: [4]}
    assert crew.pipeline.has_room
    crew.turn(wait=True)
    assert crew.lane.flights[0].waited and crew.labels == {1: [2], 2: [4]}


def test_a_model_that_fails_every_task_is_no_flood_of_warnings(caplog):
    def broken(**inputs):
        raise ValueError("no such layer")

    crew = Crew(broken)
    for lease in range(24):
        crew.pipeline.begin([task(lease, *range(1 + lease % 3))])
        crew.turn(wait=True)
    assert len(crew.errors) == 24
    crew.pipeline.end()
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    first, tenth, rest = said
    assert first.startswith("a task failed: ValueError: no such layer (of 1 samples):\n")
    assert 'raise ValueError("no such layer")' in first, "the first one is told whole"
    assert "10 times so far" in tenth and rest.endswith("(14 more)") and "raise" not in tenth + rest


@pytest.mark.parametrize("lane", [HostLane, Apron])
def test_one_bad_task_of_a_merged_pass_fails_alone_with_the_models_traceback(lane):
    crew = Crew(poison, lane()).run([task(1), task(13), task(2)], [task(3)])
    assert crew.labels == {1: [2], 2: [4], 3: [6]}
    assert crew.errors.keys() == {13}
    assert 'raise ValueError("13 is poison on purpose")' in crew.errors[13]
    assert "teacher/passes/pipeline.py" not in crew.errors[13]


@pytest.mark.parametrize("lane", [HostLane, Apron])
def test_ids_that_the_model_does_not_have_fail_their_task_alone_and_never_reach_it(lane, monkeypatch):
    seen: list[int] = []

    def model(id):  # noqa: A002
        seen.extend(id.tolist())
        return id * 2

    def refuse(self, inputs, where):
        if 13 in inputs["id"].tolist():
            raise ContractError(f"id 13 at {where([inputs['id'].tolist().index(13)])}")

    monkeypatch.setattr(Teacher, "refuse_ids", refuse)
    crew = Crew(model, lane()).run([task(1), task(2, 7, 13), task(3)])
    assert crew.labels == {1: [2], 3: [6]} and 13 not in seen
    assert crew.errors == {2: "id 13 at sample 1 of the task"}


@pytest.mark.parametrize("lane", [HostLane, Apron])
def test_a_label_that_is_not_finite_is_found_when_the_pass_lands_and_fails_its_task_alone(lane):
    def model(id):  # noqa: A002
        return torch.where(id == 13, torch.nan, id.double())

    crew = Crew(model, lane()).run([task(1), task(2, 7, 13), task(3)])
    assert crew.labels == {1: [1.0], 3: [3.0]}
    assert "1 of 2 rows (the first is sample 1 of the task)" in crew.errors[2]
    allowed = Crew(model, lane(), allow_nonfinite=True).run([task(13)])
    assert str(allowed.labels[13]) == "[nan]"


@pytest.mark.parametrize(
    ("dtype", "bad"),
    [
        (dtype, bad)
        for dtype in DTYPES.values()
        for bad in (torch.nan, torch.inf, -torch.inf)
        if dtype.is_floating_point and not torch.tensor([bad]).to(dtype).double().isfinite()
    ],
)
def test_a_value_that_is_not_finite_never_hides_among_others(dtype, bad):
    def model(id):  # noqa: A002
        labels = torch.zeros(len(id), 7)
        labels[id == 13, 2] = bad
        labels[id == 13, 5] = -bad
        return labels.to(dtype)

    crew = Crew(model).run([task(1), task(2, 7, 13), task(3)])
    assert crew.labels.keys() == {1, 3} and "sample 1 of the task" in crew.errors[2]


def test_values_whose_sum_is_too_large_are_fine():
    crew = Crew(lambda id: torch.full((len(id), 9), 3e38)).run([task(1, 2)])  # noqa: A006
    assert not crew.errors and crew.labels.keys() == {1}


def test_a_label_that_the_codec_cannot_hold_is_found_when_the_pass_lands():
    crew = Crew(lambda id: id * 1e4, Apron(), codec="dense:fp16").run([task(1), task(13)])  # noqa: A006
    assert crew.labels.keys() == {1}
    assert "beyond fp16's 65504" in crew.errors[13]
    infinite = Crew(lambda id: id / 0.0, codec="dense:fp16", allow_nonfinite=True)  # noqa: A006
    assert infinite.run([task(1)]).labels == {1: [float("inf")]}


def test_labels_are_computed_and_packed_without_reading_one_value_back():
    teacher = Teacher("tests.models:identify", CPU)
    teacher._model = lambda id: torch.empty(len(id), 4, device="meta")  # noqa: A006
    computed = Forward(teacher, parse_codec("dense:fp16"))({"id": torch.arange(3)}, PassTerms(2))
    assert computed.packed["logits"].shape == (3, 4)
    assert computed.finite is not None and computed.finite.device.type == "meta"


@pytest.mark.parametrize("error", [ValueError("bad luck"), NO_MEMORY, None])
def test_a_pass_that_failed_is_never_done_again_from_inputs_that_the_model_changed(error):
    def model(id):  # noqa: A002
        id.mul_(2)
        if (id >= 26).any() and error is not None:
            raise error
        return torch.where(id >= 26, torch.nan, id.float()) if error is None else id

    def arrived(*ids: int) -> list[HeldTask]:
        frame = memoryview(bytearray(torch.tensor(ids).numpy().tobytes()))  # as sockets give it: writable
        inputs = TaskInputs(len(ids), [TensorSpec(name="id", dtype="int64", shape=[len(ids)])], [frame])
        return [HeldTask("s", lease, 1, 1, False, inputs, row) for row, lease in enumerate(ids)]

    crew = Crew(model).run(arrived(1, 13))
    assert crew.labels == {} and crew.errors == {1: "", 13: ""}, "given back, and nobody's failure"
    again = Crew(model, crew.lane).run(arrived(1, 13))
    assert again.labels == {1: [2]} and set(again.errors) == {13}


def test_a_broken_device_is_blamed_on_the_pass_that_broke_it_and_ends_the_worker():
    lane = Apron()
    crew = Crew(double, lane)
    crew.pipeline.begin([task(1), task(2)])
    crew.pipeline.begin([task(3)])
    lane.healthy = False
    lane.flights[0].error = lane.flights[1].error = RuntimeError("device-side assert on purpose")
    assert crew.pipeline.patience_s(9.0) != 9.0
    crew.turn()
    assert crew.errors.keys() == {1, 2} and crew.labels == {}
    assert "device-side assert on purpose" in crew.errors[1]
    assert not crew.pipeline.has_room
    with pytest.raises(EdlDistError, match="no use after an error"):
        crew.turn()


def test_reading_goes_on_while_passes_fly_and_passes_are_launched_in_order():
    shelf, lane = Shelf(), Apron()
    crew = Crew(double, lane, reader=shelf)
    tasks = [task(n) for n in range(5)]
    for each in tasks:
        if crew.pipeline.has_room:
            crew.pipeline.begin([each])
    assert [asked.lease for asked, _ in shelf.reads] == [0, 1, 2, 3]
    shelf.hand_over(tasks[1])
    crew.turn()
    assert lane.flights == []
    shelf.hand_over(tasks[0])
    crew.turn()
    assert len(lane.flights) == 2
    shelf.hand_over(tasks[2])
    crew.turn(wait=True)
    assert crew.labels == {0: [0]} and len(lane.flights) == 3


def test_a_task_that_cannot_be_read_fails_alone():
    class Faulty(Shelf):
        def read(self, tasks):
            futures = super().read(tasks)
            for each, future in zip(tasks, futures, strict=True):
                if each.lease == 13:
                    future.set_exception(InputError("no such sample on purpose"))
                else:
                    self.hand_over(each)
            return futures

    crew = Crew(double, reader=Faulty()).run([task(1), task(13), task(2)])
    assert crew.labels == {1: [2], 2: [4]} and crew.errors == {13: "no such sample on purpose"}
    assert crew.pipeline.shrinks == 0


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 12), st.booleans())
def test_every_task_is_answered_once_with_its_own_labels_in_any_weather(seed, room, by_reference):
    rng = random.Random(seed)
    lane = Apron()
    shelf = Shelf() if by_reference else None

    def model(id):  # noqa: A002
        if len(id) > room:
            raise torch.OutOfMemoryError("no memory on purpose")
        return poison(id)

    crew = Crew(model, lane, batch_size=rng.choice([4, 16, "auto"]), reader=shelf)
    tasks = [
        task(n, *(rng.randint(0, 60) for _ in range(rng.randint(1, 9))), own_pass=rng.random() < 0.2)
        for n in range(20)
    ]
    ids = {each.lease: unpack(each.inputs.tensors, each.inputs.frames)["id"].tolist() for each in tasks}
    waiting = list(tasks)
    while waiting or crew.pipeline.patience_s(9.0) != 9.0:
        if waiting and crew.pipeline.has_room:
            taken = [waiting.pop(0)]
            while not taken[0].own_pass and waiting and not waiting[0].own_pass and rng.random() < 0.5:
                taken.append(waiting.pop(0))
            crew.pipeline.begin(taken)
        if shelf is not None:
            for asked, future in rng.sample(shelf.reads, len(shelf.reads)):
                if not future.done() and rng.random() < 0.5:
                    shelf.hand_over(asked)
        for flight in lane.flights:
            flight.is_down |= rng.random() < 0.4
        crew.turn()
    assert crew.labels.keys() | crew.errors.keys() == ids.keys()
    for lease, labels in crew.labels.items():
        assert labels == [2 * each for each in ids[lease]]
    for lease, error in crew.errors.items():
        poisoned = 13 in ids[lease]
        assert poisoned or (tasks[lease].own_pass and len(ids[lease]) > room), error


def test_a_wait_with_answers_in_hand_waits_for_nothing():
    lane = Apron()
    crew = Crew(double, lane)
    crew.pipeline.begin([task(1)])
    crew.pipeline.begin([task(2)])
    crew.pipeline._outcomes.append(Outcome([]))
    crew.pipeline.await_any()
    assert not any(flight.waited for flight in lane.flights)


def test_a_wait_without_a_place_on_the_device_is_for_the_oldest_flight():
    lane = Apron()
    crew = Crew(double, lane)
    crew.pipeline.begin([task(1)])
    crew.pipeline.begin([task(2)])
    crew.pipeline.await_any()
    assert [flight.waited for flight in lane.flights] == [True, False]


def test_a_wait_for_inputs_ends_when_they_are_there(monkeypatch):
    waits = []
    monkeypatch.setattr(
        concurrent.futures, "wait", lambda those, timeout_s: waits.append((list(those), timeout_s))
    )
    lane, shelf = Apron(), Shelf()
    crew = Crew(double, lane, reader=shelf)
    first, second = task(1), task(2)
    crew.pipeline.begin([first])
    crew.pipeline.await_any()
    crew.pipeline.begin([second])
    shelf.hand_over(first)
    crew.pipeline.step()
    crew.pipeline.await_any()
    reads = [future for _, future in shelf.reads]
    assert waits == [([reads[0]], 0.25), ([reads[1]], 0.0005)], "shortly, while a flight may land"


def test_a_wait_with_nothing_to_do_returns():
    Crew(double, Apron()).pipeline.await_any()


def test_patience_is_for_what_is_not_there_yet():
    lane, shelf = Apron(), Shelf()
    crew = Crew(double, lane, reader=shelf)
    first, second, third = task(1), task(2), task(3)
    crew.pipeline.begin([first])
    assert crew.pipeline.patience_s(9.0) == 0.0005, "its inputs are being read"
    shelf.hand_over(first)
    assert crew.pipeline.patience_s(9.0) == 0.0, "it can be launched"
    for each in (second, third):
        crew.pipeline.begin([each])
        shelf.hand_over(each)
    crew.pipeline.step()
    assert crew.pipeline.patience_s(9.0) == 0.0005, "there is no place on the device"
    crew.pipeline._outcomes.append(Outcome([]))
    assert crew.pipeline.patience_s(9.0) == 0.0, "there are answers to carry away"


def test_labels_that_are_not_suspect_are_not_looked_at(monkeypatch):
    crew = Crew(double)
    monkeypatch.setattr(crew.pipeline._forward, "refuse", lambda outputs: 1 / 0)
    assert crew.run([task(3)]).labels == {3: [6]}


def test_the_seconds_of_compute_are_those_of_the_passes_that_landed():
    lane = Apron()
    crew = Crew(double, lane)
    crew.pipeline.begin([task(1)])
    crew.pipeline.begin([task(2)])
    assert crew.pipeline.compute_s == 0
    lane.flights[0].is_down = True
    crew.turn()
    assert crew.pipeline.compute_s == lane.flights[0].labels()[2] > 0


def test_an_error_that_is_none_of_ours_is_told_with_its_traceback(monkeypatch):
    lane = HostLane()
    monkeypatch.setattr(lane, "launch", lambda parts, compute: [][1])
    (error,) = Crew(double, lane).run([task(1)]).errors.values()
    assert error.startswith("Traceback") and error.endswith("IndexError: list index out of range")


def test_it_is_idle_once_nothing_is_under_way_and_everything_is_answered():
    lane = Apron()
    crew = Crew(poison, lane)
    assert crew.pipeline.idle
    crew.pipeline.begin([task(1)])
    assert not crew.pipeline.idle, "a pass flies"
    lane.flights[0].is_down = True
    crew.turn()
    assert crew.pipeline.idle
    crew.pipeline.begin([task(13)])
    assert not crew.pipeline.idle, "a failure is to be told"
    crew.turn()
    assert crew.pipeline.idle and crew.errors.keys() == {13}


def test_at_the_end_the_lane_is_closed(monkeypatch):
    crew, closed = Crew(double), []
    monkeypatch.setattr(crew.lane, "close", lambda: closed.append(True))
    crew.pipeline.end()
    assert closed == [True]


def only_answer(crew: Crew) -> Answer:
    (outcome,) = crew.pipeline.step()
    (answer,) = outcome.answers
    return answer


def test_a_task_that_is_to_be_compared_is_packed_for_that_and_says_nothing_of_capacity(monkeypatch):
    crew, told = Crew(lambda id: torch.stack([id, id * 2], 1).float(), batch_size=2), []  # noqa: A006
    monkeypatch.setattr(crew.capacity, "passed", lambda *what: told.append(what))
    crew.pipeline.begin([replace(task(1, 5, 6), compared=True)])
    answer = only_answer(crew)
    assert {tensor.name for tensor in answer.result.tensors} == {"logits.compared@2", "logits.values@2"}
    assert told == []
    crew.pipeline.begin([task(2)])
    answer = only_answer(crew)
    assert [tensor.name for tensor in answer.result.tensors] == ["logits"]
    ((samples, seconds, fullness),) = told
    assert (samples, fullness) == (1, 0.5) and seconds > 0
    crew.run([task(3, own_pass=True)])
    assert told[1][0] == told[1][2] == 1, "a fixed cut is as full as it gets"


def test_a_task_that_was_compared_leaves_its_place_to_the_next_one_at_once():
    lane, shelf = Apron(), Shelf()
    crew = Crew(double, lane, reader=shelf)
    tasks = [replace(task(1), compared=True), task(2), task(3)]
    for each in tasks:
        crew.pipeline.begin([each])
        shelf.hand_over(each)
    crew.pipeline.step()
    lane.flights[0].is_down = True
    crew.pipeline.step()
    assert len(lane.flights) == 3


@pytest.mark.parametrize(
    ("error", "final", "certain"),
    [
        (ContractError("no such token"), True, True),
        (UnlabelableError("no such id"), False, True),
        (ValueError("who knows"), False, False),
    ],
)
def test_of_an_error_is_told_whether_other_attempts_would_end_so_too(monkeypatch, error, final, certain):
    def raises(parts) -> None:
        raise error

    crew = Crew(double)
    monkeypatch.setattr(crew.pipeline._forward, "vet", raises)
    crew.pipeline.begin([task(1)])
    answer = only_answer(crew)
    assert (answer.final, answer.certain) == (final, certain)


def test_a_fixed_cut_for_which_there_is_no_memory_here_may_fit_elsewhere():
    crew = Crew(fits(3), batch_size=8)
    crew.pipeline.begin([task(1, 1, 2, 3, 4, own_pass=True)])
    answer = only_answer(crew)
    assert "task of 4 samples" in answer.error and not answer.final and not answer.certain


def levels(crew: Crew) -> dict[str, tuple[int, int]]:
    return {where: tuple(level) for where, level in crew.pipeline.levels().items()}


def test_what_was_read_ahead_is_told_apart_from_what_the_device_has():
    lane, shelf = Apron(), Shelf()
    crew = Crew(double, lane, reader=shelf)
    first, second = task(1, 5, 6), task(2)
    for each in (first, second):
        crew.pipeline.begin([each])
    assert levels(crew) == {"batch": (3, 24), "forward": (0, 0)}
    shelf.hand_over(first)
    crew.pipeline.step()
    assert levels(crew) == {"batch": (1, 8), "forward": (2, 16)}
    lane.flights[0].is_down = True
    crew.turn()
    assert levels(crew) == {"batch": (1, 8), "forward": (0, 0)}


def test_a_pass_that_is_to_fly_again_is_not_on_the_device():
    lane = Apron()
    crew = Crew(double, lane)
    for lease in (1, 2):
        crew.pipeline.begin([task(lease, 5, 6, own_pass=True)])
    lane.flights[0].error = NO_MEMORY
    crew.turn()
    assert levels(crew) == {"batch": (2, 16), "forward": (2, 16)}, "by itself, once the other has landed"


@pytest.mark.parametrize("by_reference", [False, True])
def test_what_came_in_several_messages_is_joined_and_what_was_read_is_left_where_it_lies(
    by_reference, monkeypatch
):
    lane, shelf = HostLane(), Shelf() if by_reference else None
    launched, launch = [], lane.launch
    monkeypatch.setattr(
        lane, "launch", lambda parts, compute: launched.append(parts) or launch(parts, compute)
    )
    crew, tasks = Crew(double, lane, reader=shelf), [task(1), task(2, 5, 6)]
    crew.pipeline.begin(tasks)
    for each in tasks if shelf is not None else ():
        shelf.hand_over(each)
    crew.turn()
    parts = [part["id"].tolist() for part in launched[0]]
    assert parts == ([[1], [5, 6]] if by_reference else [[1, 5, 6]])
    assert crew.labels == {1: [2], 2: [10, 12]}
