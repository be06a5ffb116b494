"""Passes that do not fit into memory: done again in pieces, or failed with what to change."""

from __future__ import annotations

import logging

import pytest
import torch

from edldist.teacher.passes.lane import HostLane
from tests.unit.passes import NO_MEMORY, Apron, Crew, double, fits, task


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory on purpose"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        MemoryError("no memory on purpose"),
    ],
    ids=["device", "host", "python"],
)
@pytest.mark.parametrize("lane", [HostLane, Apron])
def test_a_pass_that_does_not_fit_is_done_again_in_pieces_and_loses_nothing(caplog, lane, error):
    ids = list(range(100, 130))
    crew = Crew(fits(3, error), lane(), batch_size=32)
    with caplog.at_level(logging.WARNING):
        crew.run([task(1, *ids), task(2, 7, 8)], [task(3, *ids)])
    assert crew.labels == {1: [2 * i for i in ids], 2: [14, 16], 3: [2 * i for i in ids]}
    assert crew.errors == {}
    assert crew.sizes == [16, 8, 4, 2]
    assert (crew.pipeline.shrinks, crew.search.size) == (4, 2)
    assert [record.args[0] for record in caplog.records] == [32, 16, 8, 4]


def test_a_task_larger_than_the_batch_size_is_labelled_in_pieces_unless_its_cut_is_fixed():
    sizes = []
    crew = Crew(lambda id: sizes.append(len(id)) or id * 2, batch_size=4)  # noqa: A006
    crew.run([task(1, *range(10))], [task(2, *range(10), own_pass=True)])
    assert sizes == [4, 4, 2, 10]
    assert crew.labels[1] == crew.labels[2] == [2 * i for i in range(10)]


def test_a_sample_that_does_not_fit_by_itself_fails_its_task_and_no_other():
    def model(id):  # noqa: A002
        if (id == 13).any() or len(id) > 2:
            raise torch.OutOfMemoryError("no memory on purpose")
        return id * 2

    crew = Crew(model, batch_size=8).run([task(1), task(2, 3, 13, 4), task(5)])
    assert crew.labels == {1: [2], 5: [10]}
    assert "no memory for a single sample" in crew.errors[2]
    assert 'raise torch.OutOfMemoryError("no memory on purpose")' in crew.errors[2]
    assert crew.search.size == 1


def test_a_fixed_cut_that_does_not_fit_fails_and_says_what_to_change():
    crew = Crew(fits(3), batch_size=8).run(
        [task(1, 1, 2, 3, 4, own_pass=True)], [task(2, 1, 2, 3, own_pass=True)]
    )
    assert crew.labels == {2: [2, 4, 6]}
    assert "task of 4 samples" in crew.errors[1] and "lower the teacher's batch_size" in crew.errors[1]
    assert (crew.search.size, crew.pipeline.shrinks) == (8, 0)


def test_a_fixed_cut_is_tried_again_by_itself_before_it_fails():
    lane = Apron()
    crew = Crew(None, lane)
    sizes = []

    def model(id):  # noqa: A002
        sizes.append(len(id))
        if len(id) == 4 and any(not flight.is_down for flight in lane.flights):
            raise torch.OutOfMemoryError("no memory beside another pass")
        return id * 2

    crew.pipeline._forward._teacher._model = model
    crew.run([task(1, own_pass=True)], [task(2, 1, 2, 3, 4, own_pass=True)], [task(3, own_pass=True)])
    assert crew.labels == {1: [2], 2: [2, 4, 6, 8], 3: [6]}
    assert sizes == [1, 4, 4, 1]


def test_memory_that_ran_out_on_the_device_is_found_when_the_pass_lands_and_it_flies_again_in_pieces():
    lane = Apron()
    crew = Crew(double, lane, batch_size=4)
    crew.pipeline.begin([task(1, 1, 2, 3, 4)])
    lane.flights[0].error = NO_MEMORY
    lane.flights[0].is_down = True
    crew.turn()
    assert (len(lane.flights), crew.pipeline.shrinks, crew.search.size) == (2, 1, 2)
    crew.turn(wait=True)
    assert crew.labels == {1: [2, 4, 6, 8]} and crew.errors == {}


def test_while_a_fixed_cut_waits_to_fly_by_itself_the_wait_is_for_who_still_flies():
    lane = Apron()
    crew = Crew(double, lane)
    crew.pipeline.begin([task(1, 1, 2, own_pass=True)])
    crew.pipeline.begin([task(2, 3, 4, own_pass=True)])
    first, second = lane.flights
    first.error, first.is_down = NO_MEMORY, True
    crew.turn()
    assert len(lane.flights) == 2 and not second.waited
    crew.turn(wait=True)
    assert second.waited and crew.labels == {2: [6, 8]} and len(lane.flights) == 3
    crew.turn(wait=True)
    assert crew.labels == {1: [2, 4], 2: [6, 8]}


def test_fixed_cuts_are_never_cut_even_after_others_were():
    sizes = []

    def model(id):  # noqa: A002
        sizes.append(len(id))
        if len(id) > 4:
            raise torch.OutOfMemoryError("no memory on purpose")
        return id * 2

    crew = Crew(model, batch_size=8).run([task(1, *range(8))], [task(2, *range(8), own_pass=True)])
    assert sizes == [8, 4, 4, 8]
    assert crew.labels.keys() == {1} and crew.errors.keys() == {2}


def test_the_batch_size_grows_with_full_passes_and_the_service_hears_of_it():
    crew = Crew(double, batch_size="auto")
    for lease in range(40):
        crew.run([task(lease, *range(crew.search.size))])
        if crew.search.settled:
            break
    assert crew.sizes[:1] == [16]
    assert crew.search.size in crew.sizes
