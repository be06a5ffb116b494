"""The examples of docs/ run, in the order in which a reader meets them."""

from __future__ import annotations

import importlib
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import edldist
from edldist.lifecycle import stopping
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.worker import TeacherWorker, WorkerOptions
from tests.harness import LocalJob, local_job

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalJob]:
    """A job with the teacher of the quick start, whose coordinator a script finds by itself."""
    former = signal.getsignal(signal.SIGTERM)
    (tmp_path / "my_teacher.py").write_text(blocks("quickstart.md")[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stopping, "_request", None)
    importlib.invalidate_caches()
    with local_job() as made:
        settings = WorkerOptions(coordinator=made.address, model="my_teacher:teacher")
        worker = TeacherWorker(settings, Teacher(settings.model, torch.device("cpu")), made.transport)
        made.workers.append(worker)
        made._threads.append(made._spawn(worker.run))
        monkeypatch.setenv("EDLDIST_COORDINATOR", made.address)
        yield made
        assert made.errors == []
    sys.modules.pop("my_teacher", None)
    signal.signal(signal.SIGTERM, former)


def run(page: str, job: LocalJob, first: int = 0) -> None:
    names: dict[str, object] = {}
    for number, block in enumerate(blocks(page)[first:], first):
        code = block.replace("tcp://127.0.0.1:7070", job.address)
        exec(compile(code, f"{page}, block {number}", "exec"), names)


def test_the_quick_start_runs(job: LocalJob, capsys: pytest.CaptureFixture[str]) -> None:
    run("quickstart.md", job, first=1)
    assert capsys.readouterr().out.count("epoch ") == 3


def test_labels_for_what_the_student_makes(job: LocalJob) -> None:
    run("on_policy.md", job)


def test_every_public_name_is_there_with_an_example_that_runs(job: LocalJob) -> None:
    page = (DOCS / "api.md").read_text()
    headings = re.findall(r"^## `?edldist\.(\w+)", page, re.MULTILINE)
    assert {*edldist.__all__, "integrations"} == set(headings)
    examples = "".join(blocks("api.md"))
    for name in edldist.__all__:
        assert f"edldist.{name}" in examples
    for kind in (
        *(edldist.DistillLoader, edldist.LabelRequests, edldist.ElasticSampler),
        *(edldist.Checkpointer, edldist.SpikeGuard),
    ):
        members = [name for name in vars(kind) if not name.startswith("_")]
        assert [name for name in members if not re.search(rf"[.`]{name}\b", page)] == []
    run("api.md", job)


def test_the_table_of_contents_names_every_page() -> None:
    contents = (DOCS / "README.md").read_text()
    assert set(re.findall(r"\((\w+\.md)\)", contents)) == {page.name for page in DOCS.glob("*.md")} - {
        "README.md"
    }
