"""The simulation finds defects that are put into the code on purpose, each within some seeds."""

from __future__ import annotations

import pytest

from tests.simulation.defects import DEFECTS, defect
from tests.simulation.runs import run_seed

SEEDS = (*(0, 2, 3, 9, 22, 27, 34, 71, 187, 528, 5094), *range(120))
"""Those that found one when it was put in; any other, should the code have changed their stories."""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(name: str) -> None:
    with defect(name):
        assert any(run_seed(seed).violations for seed in SEEDS), (
            f"none of {len(SEEDS)} seeds notices that {name}"
        )
