"""The image example at toy size: labels that are served or made inside, and the story of the fleet."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edldist.lifecycle import stopping
from edldist.observe import reporter
from edldist.teacher.model.digest import weights_digest
from examples.digits.throughput import Change, Throughput
from examples.image import fleet, plain, recipe, student
from examples.image.data import splits
from examples.image.models import parameters, teacher
from examples.image.story import GUEST, Join, Kill, Leave, Scale, Story
from tests.harness import local_job

pytestmark = pytest.mark.timeout(240)

SIZE = 16


def test_served_labels_teach_what_the_teacher_inside_teaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fast and a slow worker of one teacher, and a student for one epoch."""
    former = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(stopping, "_request", None)
    torch.manual_seed(4)
    inside, weights = teacher(SIZE), tmp_path / "teacher.safetensors"
    save_file(inside.state_dict(), weights)
    options: dict[str, Any] = {"model": "examples.image.models:teacher", "weights": str(weights)}
    with local_job() as job:
        for times in (1.0, 1.5):
            job.teacher(model_args={"size": SIZE, "times": times}, **options)
        monkeypatch.setenv("EDLDIST_COORDINATOR", job.address)
        monkeypatch.setenv("EDLDIST_OUTPUT", str(tmp_path / "out"))
        monkeypatch.setattr(sys, "argv", ["student.py", "--size", str(SIZE), "--epochs", "1"])
        student.main()
        reporter.flush()  # while there is somebody to hear it
        assert job.errors == []
    signal.signal(signal.SIGTERM, former)
    served = re.search(r"accuracy: (\S+)", capsys.readouterr().out)
    online = plain.trained(SIZE, 1, 0, inside)
    assert served is not None
    assert float(served.group(1)) == pytest.approx(online["accuracy"], abs=1.0), "but for the last bits"
    assert online["images_per_s"] > 0


def test_pictures_are_functions_of_their_draws() -> None:
    train, test = splits(SIZE, seed=3)
    batch = train.__getitems__([5, 7, len(train) + 5])
    assert batch["image"].shape == (3, 3, SIZE, SIZE) and batch["image"].isfinite().all()
    assert torch.equal(batch["image"][1], train[7]["image"])
    assert batch["label"][0] == batch["label"][2], "the same digit in the next epoch"
    assert not torch.equal(batch["image"][0], batch["image"][2])
    other = splits(SIZE, seed=4)
    assert not torch.equal(other[0][5]["image"], batch["image"][0])
    assert torch.equal(other[1][5]["image"], test[5]["image"]), "every seed is judged by the same pictures"
    large = splits(224, seed=3)[0].__getitems__([5])["image"]
    assert large.shape == (1, 3, 224, 224)
    assert teacher(224)(large).shape == student.student(224)(large).shape == (1, 10)
    with pytest.raises(SystemExit, match="--size 8"):
        splits(8, seed=0)


def test_a_slow_worker_is_the_same_teacher() -> None:
    torch.manual_seed(1)
    fast = teacher(SIZE).eval()
    slow = teacher(SIZE, times=2.0).eval()
    slow.load_state_dict(fast.state_dict())
    assert weights_digest(slow) == weights_digest(fast)
    image = torch.randn(2, 3, SIZE, SIZE)
    assert torch.equal(slow(image), fast(image))
    assert parameters(fast) > 15 * parameters(student.student(SIZE))
    with pytest.raises(ValueError, match=r"times=0.5"):
        teacher(SIZE, times=0.5)


def test_the_fleet_grows_suffers_and_shrinks_at_shares_of_the_steps() -> None:
    story = Story()

    def event(name: str, **fields: Any) -> list[Any]:
        return story.see({"event": name, **fields})

    assert event("coordinator_started", address="tcp://h:1") == [Scale(2)]
    for number in range(2):
        assert event("teacher_started", id=f"teacher-{number}", pid=100 + number) == []
        assert event("teacher_joined", id=f"teacher-{number}") == []

    def at(step: int) -> list[Any]:
        return event("report", step=step, steps=100)

    assert at(0) == at(14) == [] and at(15) == [Scale(3)] and at(16) == []
    assert at(40) == [Join("tcp://h:1")]
    event("teacher_joined", id=GUEST)
    event("teacher_lost", id="teacher-0")
    assert at(60) == [Kill("teacher-1", 101)]
    assert at(90) == [Leave(), Scale(1)] and at(100) == []
    assert len(story.done) == 6


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    changes = [Change(1.0, "teacher-2", "joined"), Change(2.0, "teacher-0", "killed")]
    fleet.draw(Throughput([0.0, 1.0, 2.0], [100.0, 150.0, 80.0], 2, changes), tmp_path / "new" / "rate.png")
    assert (tmp_path / "new" / "rate.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_line_is_that_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    args = recipe.options(None).parse_args(["--size", "224", "--epochs", "3"])
    assert (args.size, args.epochs, args.seed) == (224, 3, 0)
    command = fleet.Fleet(Path("out"), ["teachers.0.kwargs.size=64"])._slow("tcp://h:1")
    assert "size=64" in command and "times=3.0" in command and GUEST in command
