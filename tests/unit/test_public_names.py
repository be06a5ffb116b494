"""The names that users and other rooms may rely on exist and are listed."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import edldist
from edldist import errors
from edldist.errors import EdlDistError

ROOT = Path(__file__).resolve().parents[2]
NOT_FOR_IMPORT = {"__main__"}


def _modules() -> list[str]:
    paths = sorted(path for top in ("edldist", "launch") for path in (ROOT / top).rglob("*.py"))
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in paths
        if path.stem not in NOT_FOR_IMPORT
    ]


def test_the_public_surface_is_that_of_the_design() -> None:
    assert sorted(edldist.__all__) == [
        "Checkpointer",
        "DistillLoader",
        "ElasticSampler",
        "LabelRequests",
        "LabelStore",
        "LiveGroup",
        "PublishedWeights",
        "SampleIds",
        "Sequences",
        "SpikeGuard",
        "Vocabulary",
        "WeightAverage",
        "__version__",
        "augmentation_seed",
        "collate",
        "errors",
        "losses",
        "optim",
        "report",
        "should_stop",
        "vocabulary",
    ]
    assert dir(edldist) == sorted(edldist.__all__)


@pytest.mark.parametrize("name", edldist.__all__)
def test_each_public_name_can_be_had(name: str) -> None:
    value = getattr(edldist, name)
    assert value is not None
    if name[0].isupper():
        assert isinstance(value, type) and value.__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'Distiller'"):
        edldist.Distiller  # noqa: B018


@pytest.mark.parametrize("name", _modules())
def test_a_module_lists_only_what_it_has(name: str) -> None:
    module = importlib.import_module(name)
    listed = getattr(module, "__all__", [])
    assert len(set(listed)) == len(listed)
    missing = [entry for entry in listed if not hasattr(module, entry)]
    assert not missing, f"{name}.__all__ lists {missing}"


def test_every_error_is_in_the_one_tree_and_listed() -> None:
    tree = ast.parse(Path(errors.__file__).read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    assert defined == set(errors.__all__)
    assert all(issubclass(getattr(errors, name), EdlDistError) for name in defined)
    assert all(name.endswith("Error") for name in defined)
