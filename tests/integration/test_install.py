"""An installed edldist, beside files of the user's that have the names of others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
BUILD = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
WRONG = ("launch", "benchmarks", "queue", "agent", "random")
MODELS = "def teacher():\n    return lambda image: image\n"
JOB = """\
name: j
teachers: [{model: "job.models:teacher"}]
student: {script: job/train.py, nnodes: "2"}
"""
SCRIPT = """\
import edldist, edldist_launch, queue, sys
import own  # beside this file
print("trained with", edldist.__file__)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel of this checkout holds, unpacked as an installation would."""
    pytest.importorskip("setuptools")
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("edldist", "launch", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(built)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = built.glob("*.whl")
    place = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(place)
    return place


def test_an_installation_takes_three_names_and_every_file(site: Path) -> None:
    names = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"edldist", "edldist_launch", "edldist_benchmarks"}
    for folder, name in (
        ("edldist", "edldist"),
        ("launch", "edldist_launch"),
        ("benchmarks", "edldist_benchmarks"),
    ):
        expected = {path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*.py")}
        assert {path.relative_to(site / name) for path in (site / name).rglob("*.py")} == expected
    manifests = site / "edldist_launch" / "kubernetes" / "k8s"
    assert {path.relative_to(manifests) for path in manifests.rglob("*.yaml")} == {
        path.relative_to(ROOT / "k8s") for path in (ROOT / "k8s").rglob("*.yaml")
    }
    (entry,) = site.glob("*.dist-info/entry_points.txt")
    assert "edldist = edldist_launch.cli:main" in entry.read_text()


@pytest.mark.slow
def test_an_installed_job_runs_beside_files_with_the_names_of_others(site: Path, tmp_path: Path) -> None:
    """Every command of a job: coordinator, teacher, two nodes that meet, their agents and ranks."""
    for name in WRONG:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')\n")
    (tmp_path / "job").mkdir()
    for name, text in (("models", MODELS), ("train", SCRIPT), ("own", "")):
        (tmp_path / "job" / f"{name}.py").write_text(text)
    (tmp_path / "job.yaml").write_text(JOB)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
    environment["PYTHONPATH"] = str(site)
    command = [sys.executable, str(site / "edldist_launch" / "__main__.py")]
    done = subprocess.run(
        [*command, "run", "job.yaml", "--output", "out"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    logs = {path.name: path.read_text() for path in (tmp_path / "out" / "logs").glob("*.log")}
    assert "the wrong" not in "".join(logs.values())
    assert f"trained with {site / 'edldist'}" in logs["student-0.log"] + logs["student-1.log"]
    assert "holds agent.py" not in done.stderr and "queue.py, random.py" in logs["student-0.log"]
    assert json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "completed"
    for arguments in (["--version"], ["status", "--coordinator", "tcp://127.0.0.1:9"]):
        done = subprocess.run(
            [*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert "the wrong" not in done.stdout + done.stderr
