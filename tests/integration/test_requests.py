"""``LabelRequests``: labels for what a loop has just made, over queues and over sockets."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import pytest
import torch
from torch import Tensor

import edldist
from edldist import Sequences
from edldist.errors import (
    CheckpointError,
    ConfigError,
    ContractError,
    InputError,
    LabelError,
    LabelTimeoutError,
    LoaderClosedError,
    PoisonTaskError,
    StaleLabelsError,
    UnsuitableTeacherError,
)
from edldist.labels.typed import GatheredLabels
from tests import models
from tests.integration.test_missing_groups import leave
from tests.integration.test_versions import start
from tests.integration.test_wrong_mixes import in_a_fork

pytestmark = pytest.mark.timeout(240)


def ids(number: int, size: int = 4) -> dict[str, Tensor]:
    return {"id": torch.arange(size * number, size * number + size)}


def check(batch: dict[str, Tensor], labels: dict[str, Tensor]) -> None:
    value = batch["id"].double()
    assert torch.equal(labels["logits"], torch.stack([value, value * 2 + 1], dim=1))


def test_each_request_gets_the_labels_of_what_the_loop_made(job):
    for size in (1, 3):
        job.teacher(batch_size=size)
    teachers = job.requests("id")
    for number in range(30):
        batch = ids(number, 1 + number % 7)
        check(batch, teachers.request(batch).labels())
    stats = teachers.stats()
    assert (stats["batches"], stats["staleness"], stats["open"]) == (30, 0, 0)
    assert stats["samples"] == sum(1 + number % 7 for number in range(30))
    assert stats["starved_s"] > 0, "a loop that asks and waits has nothing else to do"


@pytest.mark.parametrize("options", [{}, {"deterministic": True}, {"task_size": 2}])
def test_a_loop_that_makes_the_next_batch_first_is_as_many_steps_behind_as_it_states(job, options):
    for _ in range(2):
        job.teacher(batch_size=3)
    teachers = job.requests("id", staleness=2, **options)
    pending = [teachers.request(ids(0)), teachers.request(ids(1))]
    for number in range(2, 40):
        pending.append(teachers.request(ids(number)))
        oldest = pending.pop(0)
        assert oldest.batch["id"][0] == 4 * (number - 2)
        check(oldest.batch, oldest.labels())
    assert teachers.stats()["staleness"] == 2
    with pytest.raises(StaleLabelsError, match="state a larger staleness"):
        pending += [teachers.request(ids(40)), teachers.request(ids(41))]


def test_nothing_is_labelled_before_the_loop_asks(memory_job):
    """Nobody reads ahead: between two requests there is nothing that a teacher could have."""
    memory_job.teacher()
    teachers = memory_job.requests("id")
    for number in range(5):
        pending = teachers.request(ids(number))
        check(pending.batch, pending.labels())
        assert pending.labels() is pending.labels()
        stats = teachers.stats()
        assert stats["open"] == 0 and stats["batches"] == number + 1


def test_the_loop_may_write_to_its_batch_as_soon_as_it_has_asked(job):
    """What was asked about is what was labelled, whatever became of its memory."""
    job.teacher()
    teachers = job.requests("id", staleness=1, checkpointed=False)
    batch = {"id": torch.empty(3000, dtype=torch.int64)}
    pending = []
    for number in range(2):
        batch["id"].fill_(number)
        pending.append(teachers.request(batch))
    for number, each in enumerate(pending):
        assert each.labels()["logits"][:, 0].unique().tolist() == [number]


def test_steps_are_those_of_an_optimizer_where_it_is_named(memory_job):
    memory_job.teacher()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    teachers = memory_job.requests("id", optimizer=optimizer)
    for _ in range(3):
        pending = [teachers.request(ids(number)) for number in range(4)]
        for each in pending:
            check(each.batch, each.labels())
        optimizer.step()
    old = teachers.request(ids(0))
    optimizer.step()
    with pytest.raises(StaleLabelsError, match="taken 1 steps after it was made, and staleness=0"):
        old.labels()
    teachers.close()
    kept = weakref.ref(teachers)
    memory_job.loaders.remove(teachers)
    del teachers, pending, old, each
    gc.collect()
    assert kept() is None, "the optimizer does not keep it"
    optimizer.step()


def test_poison_is_raised_at_its_request_and_the_next_go_on(memory_job, monkeypatch):
    """Whatever the job says of poison: the loop asked, so the loop is told."""
    monkeypatch.setenv("EDLDIST_ON_POISON", "skip")
    for _ in range(2):
        memory_job.teacher("raises_on_13")
    teachers = memory_job.requests("id", staleness=3)
    pending = [teachers.request(ids(number)) for number in range(4)]
    assert pending[2].labels()["logits"].tolist() == [[8], [9], [10], [11]]
    with pytest.raises(PoisonTaskError, match="13 is poison on purpose") as caught:
        pending[3].labels()
    assert list(caught.value.samples) == [1] or 1 in caught.value.samples
    with pytest.raises(LoaderClosedError, match="request 3 is over: it was answered by an error"):
        pending[3].labels()
    assert pending[0].labels()["logits"][0].tolist() == [0]
    assert teachers.request(ids(4)).labels()["logits"].tolist() == [[16], [17], [18], [19]]


def test_a_request_of_another_structure_is_refused_by_itself(memory_job):
    memory_job.teacher("looks_for_image")
    teachers = memory_job.requests(lambda batch: batch, staleness=1)
    with pytest.raises(ContractError, match="cannot label what this student sends"):
        teachers.request(ids(0)).labels()
    image = {"image": torch.rand(3, 4)}
    assert torch.equal(teachers.request(image).labels()["logits"], image["image"])
    with pytest.raises(InputError, match="differ in their first dimension"):
        teachers.request({"image": torch.rand(3, 4), "id": torch.arange(2)})
    with pytest.raises(InputError, match="without samples"):
        teachers.request({"image": torch.rand(0, 4)})
    assert torch.equal(teachers.request(image).labels()["logits"], image["image"])


def test_what_cannot_be_used_says_why(memory_job):
    memory_job.teacher()
    for wrong in (-1, 1.5, True, None):
        with pytest.raises(ConfigError, match="staleness=.*0 or more"):
            memory_job.requests("id", staleness=wrong)
    with pytest.raises(ConfigError, match="optimizer=Linear: its steps cannot be counted"):
        memory_job.requests("id", optimizer=torch.nn.Linear(1, 1))
    teachers = memory_job.requests("id")
    with pytest.raises(InputError, match="no such entry"):
        teachers.request({"image": torch.zeros(2)})
    pending = teachers.request(ids(0))
    said = in_a_fork(pending.labels)
    assert said.startswith(f"ConfigError: this LabelRequests was made by process {os.getpid()}")
    assert "ConfigError" in in_a_fork(lambda: teachers.request(ids(1)))
    errors: list[Exception] = []

    def elsewhere() -> None:
        try:
            teachers.request(ids(1))
        except Exception as exc:
            errors.append(exc)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(20)
    assert "belongs to the thread that made its first request" in str(errors[0])
    check(pending.batch, pending.labels())
    teachers.close()
    teachers.close()
    assert teachers.closed
    check(pending.batch, pending.labels())
    with pytest.raises(LoaderClosedError, match="this LabelRequests was closed"):
        teachers.request(ids(1))


def test_what_is_under_way_when_it_is_closed_is_over(memory_job):
    with memory_job.requests("id") as teachers:
        pending = teachers.request(ids(0))
    with pytest.raises(LoaderClosedError, match="request 0 is over"):
        pending.labels()


def test_labels_that_do_not_come_in_time_may_be_asked_for_again(memory_job):
    models.GATE.clear()
    try:
        memory_job.teacher("waits_at_gate")
        teachers = memory_job.requests("id")
        pending = teachers.request(ids(0))
        for timeout_s in (0, 0.05):
            with pytest.raises(LabelTimeoutError, match="request 0 have not come"):
                pending.labels(timeout_s)
        for wrong in (-1, float("nan"), "3", True):
            with pytest.raises(ConfigError, match="use seconds, 0 or more"):
                pending.labels(wrong)
        for state in (None, [], 3):
            with pytest.raises(CheckpointError, match=f"a {type(state).__name__} is no saved state"):
                teachers.load_state_dict(state)
        with pytest.raises(StaleLabelsError):
            teachers.request(ids(1))
    finally:
        models.GATE.set()
    assert pending.labels(timeout_s=60)["logits"].tolist() == [[0], [1], [2], [3]]


def test_a_request_that_the_loop_forgets_holds_up_nothing_and_leaves_nothing(memory_job):
    models.GATE.clear()
    try:
        memory_job.teacher("waits_at_gate")
        teachers = memory_job.requests("id")
        for number in range(6):
            teachers.request(ids(number))
        pending = teachers.request(ids(6))
        assert teachers.stats()["open"] == 1 and teachers.stats()["discarded"] == 6
    finally:
        models.GATE.set()
    assert pending.labels()["logits"][0].tolist() == [24]
    assert (teachers.stats()["open"], teachers.stats()["queue_bytes"]) == (0, 0)


def test_it_leaves_no_garbage(memory_job):
    memory_job.teacher()
    gc.collect()
    gc.disable()
    try:
        teachers = memory_job.requests("id", staleness=1)
        memory_job.loaders.remove(teachers)
        pending = [teachers.request(ids(0)), teachers.request(ids(1))]
        pending[0].labels()
        teachers.close()
        kept = [weakref.ref(teachers), *map(weakref.ref, pending)]
        del teachers, pending
        assert not [each() for each in kept if each() is not None]
    finally:
        gc.enable()


def test_workers_come_and_go_and_the_loop_waits_when_there_is_none(job):
    job.teacher(name="teacher")
    teachers = job.requests("id", staleness=1)
    first = teachers.request(ids(0))
    check(first.batch, first.labels())
    leave(job, "teacher")
    pending = [teachers.request(ids(1)), teachers.request(ids(2))]
    with pytest.raises(LabelTimeoutError):
        pending[0].labels(0.05)
    job.teacher(name="teacher")
    for each in pending:
        check(each.batch, each.labels())


def test_versions_of_what_answers(memory_job):
    start(memory_job, 1)
    teachers = memory_job.requests("id", versions=1)

    def version() -> int:
        batch = ids(3)
        labels = teachers.request(batch).labels()
        (one,) = set(labels["version"].tolist())
        assert torch.equal(labels["logits"][:, 1], batch["id"].double() + one)
        return one

    assert version() == 1
    start(memory_job, 2)
    while version() != 2:
        pass
    assert {version() for _ in range(5)} == {2}
    assert teachers.state_dict()["teachers"]["teacher"]["version"] == "2"


def test_labels_of_several_teachers_and_of_routed_samples(memory_job):
    for name, by in (("a", 100.0), ("b", 200.0)):
        memory_job.teacher("shifted", name=name, model_args={"by": by})
    both = memory_job.requests("id", teacher=("a", "b"), checkpointed=False)
    routed = memory_job.requests("id", teacher=("a", "b"), route="to", checkpointed=False)
    for number in range(6):
        batch = ids(number) | {"to": ["b", "a", "b", "b"] if number % 2 else ["b"] * 4}
        labels = both.request(batch).labels()
        assert labels.keys() == {"a/logits", "b/logits"}
        by = labels["b/logits"] - labels["a/logits"]
        assert by.tolist() == [[0, 100]] * 4
        labels = routed.request(batch).labels()
        expected = [{"a": 100.0, "b": 200.0}[name] for name in batch["to"]]
        assert (labels["logits"][:, 1] - batch["id"]).tolist() == expected


def test_labels_of_a_teacher_that_sees_nothing_of_a_request(memory_job):
    for name in ("a", "b"):
        memory_job.teacher("shifted", name=name, model_args={"by": 1.0})
    inputs = {"a": "id", "b": lambda batch: {"id": batch["id"][batch["id"] > 4]}}
    teachers = memory_job.requests(inputs, teacher=("a", "b"))
    labels = teachers.request(ids(0)).labels()
    with pytest.raises(LabelError, match="no labels 'b/logits'"):
        labels["b/logits"]
    assert teachers.request(ids(1)).labels()["b/logits"].shape == (3, 2)
    assert teachers.request(ids(0)).labels()["b/logits"].shape == (0, 2)


def test_sequences_that_the_student_wrote_are_judged_at_the_tokens_that_it_drew(memory_job):
    memory_job.teacher("tiny_lm", model_args={"vocabulary": 20}, codec="gather", batch_size=64)
    teachers = memory_job.requests(Sequences(("input_ids", "gather_ids"), asked="written"))
    tokens = torch.randint(20, (2, 5))
    drawn = torch.randint(20, (2, 5, 3))
    written = torch.tensor([[False, True, True, True, False], [False, False, True, False, False]])
    labels = teachers.request({"input_ids": tokens, "gather_ids": drawn, "written": written}).labels()
    assert isinstance(labels["logits"], GatheredLabels)
    assert torch.equal(labels["mask"], written)
    assert labels["logits"].log_probs.shape == drawn.shape
    nothing = torch.zeros_like(written)
    labels = teachers.request({"input_ids": tokens, "gather_ids": drawn, "written": nothing}).labels()
    assert not labels["mask"].any()


def test_beside_a_loader_over_the_same_teachers(job):
    """As a loop that learns from data and from what it makes, in turns."""
    for _ in range(2):
        job.teacher(batch_size=3)
    loader = job.loader([ids(number) for number in range(20)], "id", checkpointed=False)
    teachers = job.requests("id")
    for number, (batch, labels) in enumerate(loader):
        check(batch, labels)
        own = ids(1000 + number)
        check(own, teachers.request(own).labels())
    assert number == 19 and loader.stats()["batches"] == teachers.stats()["batches"] == 20


def test_it_belongs_into_checkpoints_from_its_first_request_on(memory_job, tmp_path):
    memory_job.teacher(version="1")
    teachers = memory_job.requests("id")
    model = torch.nn.Linear(2, 2)
    with edldist.Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(CheckpointError, match=r"lacks the LabelRequests\(teacher='teacher'\)"):
            checkpointer.restore({"model": model})
        state = {"model": model, "teachers": teachers}
        assert checkpointer.restore(state) is None
        checkpointer.save(1, {"model": model}, wait=True)
        checkpointer.save(2, state, wait=True)
        teachers.request(ids(0)).labels()
        with pytest.raises(CheckpointError, match="lacks the LabelRequests"):
            checkpointer.save(3, {"model": model}, wait=True)
        checkpointer.save(3, state, wait=True)
        pending = teachers.request(ids(1))
        assert checkpointer.restore(state) == 3
        with pytest.raises(LoaderClosedError, match="closed or restored since"):
            pending.labels()
        batch = ids(2)
        check(batch, teachers.request(batch).labels())


def test_a_restored_run_takes_labels_of_the_teachers_of_then(memory_job):
    memory_job.teacher(version="1")
    first = memory_job.requests("id")
    first.request(ids(0)).labels()
    state = first.state_dict()
    first.close()
    leave(memory_job, "teacher")
    memory_job.teacher(version="2")
    resumed = memory_job.requests("id")
    resumed.load_state_dict(state)
    pending = resumed.request(ids(0))
    with pytest.raises(UnsuitableTeacherError, match="version 2 instead of 1"):
        pending.labels()
    leave(memory_job, "teacher")
    memory_job.teacher(version="1")
    check(pending.batch, pending.labels())
