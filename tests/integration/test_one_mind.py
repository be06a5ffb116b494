"""Labels are of one mind: workers of a group answer alike, or are refused with both sides named."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from edldist.errors import ConfigError, IncompatibleError, UnsuitableTeacherError
from edldist.labels import codec as codecs
from edldist.labels import grammar
from edldist.labels.grammar import CodecSpec, Parameter
from edldist.labels.packing import NO_INPUTS, Codec, Packed
from edldist.labels.places import in_samples
from edldist.student.loop import waiting
from edldist.student.service import unsuited
from tests.harness import LocalJob

pytestmark = pytest.mark.timeout(240)


def batches(count: int) -> list[dict[str, Tensor]]:
    return [{"id": torch.arange(8) + 8 * number} for number in range(count)]


def ended(job: LocalJob, count: int) -> list[str]:
    """What so many workers said when they ended because they do not belong to their group."""
    pause = threading.Event()
    for _ in range(4000):
        if len(job.errors) == count:
            break
        pause.wait(0.005)
    assert [type(error) for error in job.errors] == [IncompatibleError] * count
    words = [str(error) for error in job.errors]
    job.errors.clear()
    return words


def test_workers_with_another_codec_are_refused_and_their_group_goes_on(memory_job):
    first = memory_job.teacher(batch_size=2, codec="dense")
    loader = memory_job.loader(batches(20), inputs="id")
    steps = iter(loader)
    next(steps)
    others = [memory_job.teacher(batch_size=2, codec="dense:fp16") for _ in range(3)]
    for words in ended(memory_job, 3):
        assert (
            f"is not like worker {first.worker_id}" in words and "codec dense:fp16 instead of dense" in words
        )
    for batch, labels in steps:
        assert labels["logits"].dtype == torch.float64
        assert labels["logits"][:, 0].tolist() == batch["id"].tolist()
    assert loader.stats()["failed"] == 0
    assert first.service._ledger.tasks and not any(worker.service._ledger.tasks for worker in others)


@pytest.fixture
def impatient(monkeypatch):
    """Students that do not wait for other workers of a group long."""
    monkeypatch.setattr(unsuited, "PATIENCE_S", 0.2)


@pytest.mark.parametrize("wanted", ["dense:fp16", {"teacher": "dense:fp16"}])
def test_a_student_of_another_wish_ends_and_workers_and_other_students_go_on(memory_job, impatient, wanted):
    workers = [memory_job.teacher(batch_size=2) for _ in range(2)]
    well = memory_job.loader(batches(40), inputs="id")
    steps = iter(well)
    next(steps)
    mistaken = memory_job.loader(batches(3), inputs="id", codec=wanted)
    with pytest.raises(UnsuitableTeacherError) as caught:
        next(iter(mistaken))
    words = str(caught.value)
    assert "sends codec dense; this student takes labels of teacher 'teacher' as dense:fp16 only" in words
    assert "So are 1 others that are here" in words and caught.value.final
    assert "sends codec dense" in mistaken._service.missing_teachers()["teacher"]
    mistaken.close()
    assert sum(1 for _ in steps) == 39
    assert memory_job.errors == [] and all(worker.service._ledger.tasks for worker in workers)


def test_workers_that_their_only_student_does_not_want_stay_for_the_next_one(memory_job, impatient):
    memory_job.teacher(batch_size=2)
    mistaken = memory_job.loader(batches(3), inputs="id", codec="topk:2")
    with pytest.raises(UnsuitableTeacherError, match="sends codec dense; .* as topk:2 only"):
        next(iter(mistaken))
    mistaken.close()
    right = memory_job.loader(batches(3), inputs="id", codec="dense")
    assert len(list(right)) == 3 and memory_job.errors == []


def test_a_student_takes_the_workers_that_it_wants_once_those_of_another_codec_have_gone(memory_job):
    wrong = memory_job.teacher(batch_size=2)
    loader = memory_job.loader(batches(3), inputs="id", codec="dense:fp16")
    pause = threading.Event()
    while not loader._service.missing_teachers().get("teacher"):
        pause.wait(0.005)
    wrong.drain()
    wrong.service._thread._thread.join(20)
    memory_job.teacher(batch_size=2, codec="dense:fp16")
    assert [labels["logits"].dtype for _, labels in loader] == [torch.float16] * 3


def test_a_student_that_has_used_labels_takes_no_other_model_though_the_group_began_anew(memory_job):
    first = memory_job.teacher(batch_size=2)
    loader = memory_job.loader(batches(40), inputs="id")
    steps = iter(loader)
    next(steps)
    first.drain()
    first.service._thread._thread.join(20)
    memory_job.teacher("negative", batch_size=2)
    (words,) = ended(memory_job, 1)
    assert "model tests.models:negative instead of tests.models:identify" in words
    assert "restart the student" in words
    memory_job.teacher(batch_size=2)
    for batch, labels in steps:
        assert labels["logits"][:, 0].tolist() == batch["id"].tolist()


def trained(job: LocalJob, steps: int = 3, **options) -> dict:
    """The state after a few steps."""
    loader = job.loader(batches(40), inputs="id", **options)
    for number, _ in enumerate(loader, 1):
        if number == steps:
            break
    state = loader.state_dict()
    loader.close()
    return state


def test_a_student_that_goes_on_from_a_checkpoint_takes_no_other_model(memory_job, impatient):
    first = memory_job.teacher(batch_size=2)
    state = trained(memory_job)
    first.drain()
    first.service._thread._thread.join(20)

    other = memory_job.teacher("negative", batch_size=2)  # it may be there before the loader has its state
    loader = memory_job.loader(batches(40), inputs="id")
    loader.load_state_dict(state)
    with pytest.raises(UnsuitableTeacherError) as caught:
        next(iter(loader))
    words = str(caught.value)
    assert "that labelled for the checkpoint" in words and "EDLDIST_EXTEND=1" in words
    assert "model tests.models:negative instead of tests.models:identify" in words
    assert loader.state_dict() == state and memory_job.errors == []
    other.drain()
    other.service._thread._thread.join(20)
    memory_job.teacher(batch_size=2)
    for batch, labels in loader:
        assert labels["logits"][:, 0].tolist() == batch["id"].tolist()


def test_a_state_without_teachers_restores_as_ever(memory_job):
    first = memory_job.teacher(batch_size=2)
    state = trained(memory_job)
    assert state.pop("teachers")["teacher"]["model"] == "tests.models:identify"
    first.drain()
    first.service._thread._thread.join(20)
    memory_job.teacher("negative", batch_size=2)
    loader = memory_job.loader(batches(40), inputs="id")
    loader.load_state_dict(state)
    for batch, labels in loader:
        assert labels["logits"].flatten().tolist() == (-batch["id"]).tolist()
    assert loader.stats()["samples"] == 37 * 8


def test_a_state_says_nothing_of_teachers_before_the_loop_has_had_labels_of_them(memory_job):
    memory_job.teacher(batch_size=2)
    loader = memory_job.loader(batches(40), inputs="id")
    steps = iter(loader)
    assert "teachers" not in loader.state_dict()
    next(steps)
    assert loader.state_dict()["teachers"]["teacher"]["outputs"] == ["logits"]


def test_who_extends_goes_on_with_another_model_and_is_told(memory_job, monkeypatch, caplog):
    first = memory_job.teacher(batch_size=2)
    state = trained(memory_job)
    first.drain()
    first.service._thread._thread.join(20)
    memory_job.teacher("negative", batch_size=2)
    monkeypatch.setenv("EDLDIST_EXTEND", "1")
    loader = memory_job.loader(batches(40), inputs="id")
    loader.load_state_dict(state)
    for batch, labels in loader:
        assert labels["logits"].flatten().tolist() == (-batch["id"]).tolist()
    (warning,) = [record for record in caplog.records if "--extend says" in record.getMessage()]
    assert "model tests.models:negative instead of tests.models:identify" in warning.getMessage()
    assert loader.state_dict()["teachers"]["teacher"]["model"] == "tests.models:negative"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("zip", "codec='zip': use dense"),
        ({"teacher": "dense:int8"}, "use dense"),
        ({"other": "dense"}, "no teacher 'other' among"),
        (3, "codec=3: use dense"),
    ],
)
def test_a_codec_that_is_none_is_refused_where_the_loader_is_made(memory_job, wanted, words):
    with pytest.raises(ConfigError, match=words):
        memory_job.loader(batches(1), inputs="id", codec=wanted)


def test_models_that_name_their_outputs_in_another_order_label_together(memory_job):
    workers = [memory_job.teacher("either_order", batch_size=2) for _ in range(2)]
    loader = memory_job.loader(batches(20_000), inputs="id")
    for batch, labels in loader:
        assert labels["left"].flatten().tolist() == batch["id"].tolist()
        assert torch.equal(labels["right"], -labels["left"])
        if all(worker.service._ledger.tasks >= 20 for worker in workers):
            break
    else:
        pytest.fail("one of them labelled nothing")
    assert loader.stats()["failed"] == 0


class Sparse(NamedTuple):
    """Labels of a codec whose labels are no tensor."""

    indices: Tensor
    values: Tensor


class Largest(Codec):
    """The largest value of each row and its place: the least that a sparse codec can be."""

    def __init__(self, scale: int) -> None:
        self.spec = CodecSpec("largest", {"scale": scale})
        self._scale = scale

    def pack(self, outputs, asked=NO_INPUTS, *, fixed=False) -> Packed:
        found = {name: tensor.max(1) for name, tensor in outputs.items()}
        values = {f"{name}.values": each.values * self._scale for name, each in found.items()}
        indices = {f"{name}.indices": each.indices.to(torch.int32) for name, each in found.items()}
        return Packed(values | indices)

    def check(self, outputs, asked=NO_INPUTS, where=in_samples) -> None:
        return

    def decode(self, packed: Mapping[str, Tensor]) -> dict[str, Sparse]:
        names = {name.rpartition(".")[0] for name in packed}
        return {
            name: Sparse(packed[f"{name}.indices"], packed[f"{name}.values"] / self._scale) for name in names
        }


def test_a_codec_may_have_parameters_and_typed_labels(memory_job, monkeypatch):
    monkeypatch.setitem(grammar.GRAMMAR, "largest", (Parameter("scale", int, "SCALE"),))
    monkeypatch.setitem(codecs._CODECS, "largest", Largest)
    for _ in range(2):
        memory_job.teacher(batch_size=3, codec="largest:4")
    loader = memory_job.loader(batches(10), inputs="id", teacher=["teacher"], codec="largest:4")
    for batch, labels in loader:
        sparse = labels["teacher/logits"]
        assert isinstance(sparse, Sparse)
        assert sparse.indices.tolist() == [1] * 8
        assert sparse.values.tolist() == (batch["id"] * 2 + 1).tolist()


def test_a_loop_that_waits_says_why_the_worker_that_came_was_refused(memory_job, monkeypatch, caplog):
    monkeypatch.setattr(waiting, "_COMPLAIN_S", 0.01)
    loader = memory_job.loader(batches(1), inputs="id", codec="dense:fp16")
    wrong = memory_job.teacher(batch_size=2)
    read = threading.Thread(target=lambda: list(loader), daemon=True)
    read.start()
    pause = threading.Event()
    while "one was refused" not in caplog.text:
        pause.wait(0.01)
    assert "no worker of 'teacher' is connected" in caplog.text or "(one was refused: worker " in caplog.text
    wrong.drain()
    wrong.service._thread._thread.join(20)
    memory_job.teacher(batch_size=2, codec="dense:fp16")
    read.join(20)
    assert not read.is_alive()


def test_a_loop_that_waits_for_a_group_that_is_not_there_says_which_are(memory_job, monkeypatch, caplog):
    monkeypatch.setattr(waiting, "_COMPLAIN_S", 0.01)
    loader = memory_job.loader(batches(1), inputs="id", teacher="teacher")
    memory_job.teacher(batch_size=2, name="bert")
    read = threading.Thread(target=lambda: list(loader), daemon=True)
    read.start()
    pause = threading.Event()
    while "there are workers of" not in caplog.text:
        pause.wait(0.01)
    assert (
        "no worker of 'teacher' is connected; there are workers of 'bert' (a worker's --name" in caplog.text
    )
    assert loader.stats()["waiting_s"] > 0
    memory_job.teacher(batch_size=2)
    read.join(20)
    assert not read.is_alive()
    assert loader.stats()["waiting_s"] == 0
