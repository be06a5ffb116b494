"""Property tests judge what is computed, not how long a busy machine takes; a timeout ends a hanging one."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("edldist", deadline=None)
settings.load_profile("edldist")


@pytest.fixture(autouse=True)
def no_named_coordinator() -> Iterator[None]:
    """A loader that is given its coordinator names it for all later reports of its process."""
    yield
    if (reporter := sys.modules.get("edldist.observe.reporter")) is not None:
        reporter._coordinator = None
