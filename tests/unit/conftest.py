"""Fixtures that several files of this folder share."""

from __future__ import annotations

import pytest
import torch

from tests.unit.party import Party


@pytest.fixture
def party():
    """Make a party; it ends with the test."""
    made: list[Party] = []

    def make(*args, **options) -> Party:
        made.append(Party(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)
