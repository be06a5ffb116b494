"""A plugin of pytest: property tests try the same examples in every run, and look for no smaller one."""

from __future__ import annotations

from hypothesis import Phase, settings


def pytest_collection_modifyitems() -> None:
    settings.register_profile(
        "mutation", deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
    )
    settings.load_profile("mutation")
