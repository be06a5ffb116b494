"""The simulation finds defects that are put into the code on purpose, each within some seeds."""

from __future__ import annotations

import re

import pytest

from tests.simulation.defects import DEFECTS, defect
from tests.simulation.runs import run_seed

FOUND_BY = {
    "what a broken connection swallowed is not made good": 5094,
    "success does not end a row of failures": 22,
    "tasks are cut larger than a frame may be": 52,
    "sleepers are never woken": 0,
    "a member that the coordinator does not know stays silent": 2,
    "nobody looks where a coordinator is now": 8,
    "a loop that is left keeps its batches": 0,
    "what a worker gives back is nobody's": 2,
    "rows of a shared answer are taken from its start": 0,
    "a batch is ready before its last label": 9,
    "a group that was missing is missed for good": 9,
    "an answer goes to the oldest request instead of its own": 0,
    "a rank that is a step behind keeps its weights": 22,
    "labels of older versions are kept": 22,
    "a batch is passed over while another teacher owes it labels": 9,
    "a task that kills workers is given to the next": 9,
}
"""The seed that found each of them when it was last looked for."""

OTHERS = (*(2, 3, 9, 22, 27, 34, 71, 187, 528, 5094), *range(120))
"""Should the code have changed its story."""


def test_a_seed_is_known_for_every_defect() -> None:
    assert FOUND_BY.keys() == DEFECTS.keys()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(name: str) -> None:
    seeds = (FOUND_BY[name], *OTHERS)
    with defect(name):
        found = next((each for each in map(run_seed, seeds) if each.violations), None)
    assert found is not None, f"none of {len(seeds)} seeds notices that {name}"
    misfit = re.search(r"\b(TypeError|AttributeError|NameError)\b.*", found.violations[0])
    assert misfit is None, f"the defect does not fit the code any more: {misfit[0]}"
