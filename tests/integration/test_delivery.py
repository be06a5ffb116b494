"""Every batch reaches the loop once, in order, each sample with its own label, whatever happens around.

A job in this process: coordinator, teacher workers and students in threads, over real sockets and
over queues.
"""

from __future__ import annotations

import gc
import itertools
import random
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils.data import DataLoader

from edldist import ElasticSampler
from edldist.errors import ConfigError, LoaderClosedError
from tests import models

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def gate():
    """Closed until a test opens it; the teacher ``waits_at_gate`` labels nothing before."""
    models.GATE.clear()
    yield models.GATE
    models.GATE.set()


def batches(count: int, largest: int = 40, seed: int = 0, smallest: int = 1) -> list[dict]:
    """Batches of random sizes; ids count up over all of them."""
    rng, ids = random.Random(seed), itertools.count()
    sizes = [rng.randint(smallest, largest) for _ in range(count)]
    return [{"id": torch.tensor([next(ids) for _ in range(size)], dtype=torch.int64)} for size in sizes]


def check(ids: torch.Tensor, labels: torch.Tensor) -> None:
    """What ``identify`` says of these samples."""
    value = ids.to(torch.float64)
    assert torch.equal(labels, torch.stack([value, value * 2 + 1], dim=1))


def consume(loader, key: str = "logits") -> list[int]:
    """Run one epoch; the ids in the order of their arrival."""
    seen: list[int] = []
    for batch, labels in loader:
        check(batch["id"], labels[key])
        seen += batch["id"].tolist()
    return seen


def test_thousands_of_random_batches_arrive_exactly_once_in_order(job):
    rng = random.Random(1)
    data = batches(2000)
    for _ in range(4):
        job.teacher(batch_size=rng.randint(1, 50))
    loader = job.loader(data, inputs="id")
    assert consume(loader) == list(range(sum(len(batch["id"]) for batch in data)))
    stats = loader.stats()
    assert stats["batches"] == 2000
    assert (stats["requeued"], stats["failed"], stats["open"], stats["queue_bytes"]) == (0, 0, 0, 0)


@pytest.mark.parametrize("options", [{"task_size": 7}, {"deterministic": True}, {"high_watermark": 1}])
def test_any_way_of_cutting_delivers_exactly(memory_job, options):
    for size in (5, 16):
        memory_job.teacher(batch_size=size)
    data = batches(300, seed=2)
    options = {"low_watermark": 0, **options}
    assert consume(memory_job.loader(data, inputs="id", **options)) == list(
        range(int(data[-1]["id"][-1]) + 1)
    )


@pytest.mark.parametrize("finder", ["the I/O thread", "the loop's thread"])
def test_a_loop_that_is_found_as_garbage_stops_nothing(memory_job, finder):
    """Python collects where it happens to be: here while the state of the queue is being changed."""
    memory_job.teacher()
    loader = memory_job.loader(batches(20), inputs="id")
    cycle = [iter(loader)]
    cycle.append(cycle)
    next(cycle[0])
    del cycle

    def collect() -> None:
        with loader._service.delivery._lock:
            gc.collect()

    thread = threading.Thread(target=collect, daemon=True)
    if finder == "the I/O thread":
        thread.start()
        thread.join(10)
    else:
        collect()
    assert not thread.is_alive()
    assert len(consume(loader)) == sum(len(batch["id"]) for batch in loader._data_loader)


def test_fixed_cuts_run_alone_and_whole(memory_job):
    memory_job.teacher("pass_size", batch_size=64)
    data = batches(100, largest=10)
    for batch, labels in memory_job.loader(data, inputs="id", deterministic=True):
        assert labels["logits"].tolist() == [[len(batch["id"])]] * len(batch["id"])
    for batch, labels in memory_job.loader(data, inputs="id", deterministic=True, task_size=4):
        sizes = [min(4, len(batch["id"]) - start // 4 * 4) for start in range(len(batch["id"]))]
        assert labels["logits"].flatten().tolist() == sizes


def test_two_teachers_label_every_sample_under_their_names(job):
    for size in (3, 20):
        job.teacher("identify", name="a", batch_size=size)
        job.teacher("negative", name="b", batch_size=size + 4)
    loader = job.loader(batches(400), inputs="id", teacher=("a", "b"))
    following = 0
    for batch, labels in loader:
        assert set(labels) == {"a/logits", "b/logits"}
        check(batch["id"], labels["a/logits"])
        assert torch.equal(labels["b/logits"], -batch["id"])
        assert int(batch["id"][0]) == following
        following += len(batch["id"])
    assert loader.stats()["batches"] == 400


def test_one_name_in_a_sequence_prefixes_too(memory_job):
    memory_job.teacher(name="a")
    ((_, labels),) = memory_job.loader(batches(1), inputs="id", teacher=["a"])
    assert set(labels) == {"a/logits"}


def test_workers_join_and_drain_in_mid_run(job):
    first = job.teacher(batch_size=9)
    loader = job.loader(batches(600), inputs="id")
    seen = []
    for number, (batch, labels) in enumerate(loader):
        check(batch["id"], labels["logits"])
        seen += batch["id"].tolist()
        if number == 100:
            job.teacher(batch_size=5)
        elif number == 200:
            first.drain()
        elif number == 300:
            job.teacher(batch_size=30)
    assert number == 599
    assert seen == list(range(len(seen)))
    assert loader.stats()["failed"] == 0


def test_two_students_share_one_fleet(job):
    for size in (4, 11, 30):
        job.teacher(batch_size=size)
    data = batches(300, seed=3), batches(300, seed=4)
    loaders = [job.loader(each, inputs="id") for each in data]
    with ThreadPoolExecutor(2) as pool:
        for each, seen in zip(data, pool.map(consume, loaders), strict=True):
            assert seen == list(range(int(each[-1]["id"][-1]) + 1))


Pair = namedtuple("Pair", "id label")
IDS = torch.arange(5)


def same_parts(out, batch) -> bool:
    """Whether two batches are of the same types all through, with the very same tensors in them."""
    if isinstance(batch, torch.Tensor):
        return out is batch
    if type(out) is not type(batch):
        return False
    if isinstance(batch, dict):
        return out.keys() == batch.keys() and all(same_parts(out[key], batch[key]) for key in batch)
    if isinstance(batch, (tuple, list)):
        return len(out) == len(batch) and all(map(same_parts, out, batch))
    return out == batch


@pytest.mark.parametrize(
    ("batch", "inputs", "model"),
    [
        ({"id": IDS, "label": IDS}, "id", "identify"),
        (Pair(IDS, IDS), "id", "identify"),
        ((IDS * 0, IDS), 1, "identify_any"),
        ([IDS, IDS * 0], 0, "identify_any"),
        (IDS, None, "identify_any"),
        ((IDS, IDS * 3), (1, 0), "difference"),
        ({"deep": [{"er": IDS}], "name": "text"}, lambda batch: {"id": batch["deep"][0]["er"]}, "identify"),
    ],
    ids=["dict", "namedtuple", "tuple", "list", "tensor", "positions", "nested"],
)
def test_any_shape_of_batch_is_labelled_and_yielded_with_its_own_tensors(memory_job, batch, inputs, model):
    memory_job.teacher(model)
    ((out, labels),) = memory_job.loader([batch], inputs=inputs)
    assert same_parts(out, batch)
    check(IDS * 2 if model == "difference" else IDS, labels["logits"])


@pytest.mark.parametrize("codec", ["dense", "dense:fp16", "dense:bf16"])
def test_several_outputs_of_several_types_arrive_together(job, codec):
    job.teacher("several_outputs", batch_size=7, codec=codec)
    floats = {"dense:fp16": torch.float16, "dense:bf16": torch.bfloat16}.get(codec)
    for batch, labels in job.loader(batches(20, largest=12), inputs="id"):
        ids = batch["id"]
        assert list(labels) == ["feature", "index", "logits"], "by name, whatever the model calls first"
        assert labels["logits"].dtype == (floats or torch.float32)
        assert labels["feature"].dtype == (floats or torch.bfloat16)
        assert torch.equal(labels["index"], ids.to(torch.int32))
        assert torch.equal(labels["logits"].float(), ids.float().unsqueeze(1).expand(-1, 3))
        assert torch.equal(labels["feature"].float(), ids.float().reshape(-1, 1, 1))


def test_a_module_teacher_labels_what_it_would_label_in_one_piece(memory_job):
    worker = memory_job.teacher("Linear", batch_size=5)
    x = torch.randn(23, 4)
    ((_, labels),) = memory_job.loader([{"x": x}], inputs="x")
    model = worker._teacher._model
    torch.testing.assert_close(labels["logits"], model.layer(x).detach())


def test_an_endless_iterable_is_left_and_taken_up_again(memory_job):
    memory_job.teacher(batch_size=6)
    source = ({"id": torch.arange(n, n + 5)} for n in itertools.count(0, 5))
    loader = memory_job.loader(source, inputs="id")
    for _ in range(3):
        for number, (batch, labels) in enumerate(loader):
            check(batch["id"], labels["logits"])
            if number == 20:
                break
    assert loader.stats()["batches"] == 63


def test_leaving_early_drops_what_was_ahead_and_the_next_epoch_is_right(job):
    for size in (3, 10):
        job.teacher(batch_size=size)
    data = batches(60)
    loader = job.loader(data, inputs="id")
    for epoch in range(8):
        for number, (batch, labels) in enumerate(loader):
            assert loader.epoch == epoch
            assert torch.equal(batch["id"], data[number]["id"])
            check(batch["id"], labels["logits"])
            if number == epoch:
                break
    assert len(consume(loader)) == int(data[-1]["id"][-1]) + 1
    assert loader.epoch == 9


def test_an_empty_data_loader_ends_at_once_and_needs_no_teacher(memory_job):
    loader = memory_job.loader([], inputs="id")
    assert list(loader) == []
    assert (len(loader), loader.epoch) == (0, 1)


def test_a_batch_of_no_samples_keeps_its_place(memory_job):
    memory_job.teacher()
    ids = [torch.arange(3), torch.arange(0), torch.arange(3, 5)]
    out = [
        (batch.tolist(), list(labels))
        for batch, labels in memory_job.loader(ids, inputs=0, teacher="teacher")
    ]
    assert out == [([0, 1, 2], ["logits"]), ([], ["logits"]), ([3, 4], ["logits"])]


def test_len_is_the_data_loaders(memory_job):
    assert len(memory_job.loader(batches(7), inputs="id")) == 7
    with pytest.raises(TypeError):
        len(memory_job.loader(iter([]), inputs="id"))


def test_an_error_of_the_data_loader_comes_after_the_batches_before_it(memory_job):
    memory_job.teacher()

    def broken():
        yield from batches(5)
        raise FileNotFoundError("sample 77 is not on this disk")

    loader, seen = memory_job.loader(broken(), inputs="id"), []
    with pytest.raises(FileNotFoundError, match="sample 77") as caught:
        for batch, labels in loader:
            check(batch["id"], labels["logits"])
            seen.append(batch)
    assert len(seen) == 5
    assert any(entry.name == "broken" for entry in caught.traceback)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_torch_data_loader_with_worker_processes(job):
    job.teacher(batch_size=10)
    data = DataLoader(torch.arange(50), batch_size=8, num_workers=2)
    loader = job.loader(data)
    job.teacher("identify_any", name="any")
    loader = job.loader(data, teacher="any")
    for _ in range(2):
        seen = []
        for batch, labels in loader:
            check(batch, labels["logits"])
            seen += batch.tolist()
        assert seen == list(range(50))


def test_a_closed_loader_refuses_to_go_on(memory_job):
    memory_job.teacher()
    loader = memory_job.loader(batches(5), inputs="id")
    running = iter(loader)
    next(running)
    loader.close()
    loader.close()
    for use in (lambda: next(running), lambda: iter(loader)):
        with pytest.raises(LoaderClosedError, match="closed"):
            use()
    with memory_job.loader([], inputs="id") as other:
        pass
    with pytest.raises(LoaderClosedError):
        iter(other)


def test_a_second_iteration_ends_the_first(memory_job):
    memory_job.teacher()
    loader = memory_job.loader(batches(20), inputs="id")
    first, unstarted = iter(loader), iter(loader)
    second = iter(loader)
    next(second)
    for old in (first, unstarted):
        with pytest.raises(LoaderClosedError, match="another iteration"):
            next(old)
    assert len(list(second)) == 19


def test_a_loop_over_a_loader_twice_at_a_time_says_that_it_takes_two(memory_job):
    memory_job.teacher()
    loader = memory_job.loader(batches(4), inputs="id")
    with pytest.raises(LoaderClosedError, match=r"It has one position: make a second one .* zip\(a, b\)"):
        next(zip(loader, loader, strict=True))


def test_a_restore_resumes_behind_the_consumed_batch(memory_job):
    memory_job.teacher(batch_size=3)
    made = []

    def resumable():
        sampler = ElasticSampler(40, 6, seed=5)
        data = DataLoader([{"id": n} for n in range(40)], batch_sampler=sampler)
        made.append(memory_job.loader(data, inputs="id"))
        return made[-1]

    whole = resumable()
    expected = [consume(whole) for _ in range(2)]
    interrupted = resumable()
    consume(interrupted)
    seen = []
    for number, (batch, _) in enumerate(interrupted):
        seen += batch["id"].tolist()
        if number == 2:
            state = interrupted.state_dict()
            break
    restored = resumable()
    restored.load_state_dict(state)
    assert (restored.epoch, len(restored)) == (1, 4)
    assert seen + consume(restored) == expected[1]


def test_the_loss_weight_is_that_of_the_batch_in_hand(memory_job):
    memory_job.teacher()
    sampler = ElasticSampler(9, 4, shuffle=False, rank=0, world_size=3)
    loader = memory_job.loader(DataLoader([{"id": n} for n in range(9)], batch_sampler=sampler), inputs="id")
    weights = [loader.loss_weight for _ in loader]
    assert weights == [3 * 2 / 4, 3 * 2 / 4, 3.0]
    assert loader.stats()["samples"] == 5


def test_waiting_for_labels_counts_as_starved_and_is_told_apart_from_startup(memory_job, gate):
    memory_job.teacher("waits_at_gate", batch_size=4)
    loader = memory_job.loader(batches(30, largest=4, smallest=4), inputs="id")
    opener = threading.Timer(0.3, gate.set)
    opener.start()
    running = iter(loader)
    next(running)
    stats = loader.stats()
    assert stats["startup_s"] > 0.2 and stats["starved_s"] == 0.0

    gate.clear()
    threading.Timer(0.3, gate.set).start()
    assert len(list(running)) == 29
    assert 0.2 < loader.stats()["starved_s"] < 5.0
    assert loader.stats()["startup_s"] == stats["startup_s"]
    assert stats["loop_s"] == 0.0 < loader.stats()["loop_s"]


def test_a_slow_data_loader_is_not_starvation(memory_job):
    memory_job.teacher(batch_size=64)
    pause = threading.Event()

    def slow():
        for batch in batches(10):
            pause.wait(0.05)
            yield batch

    loader = memory_job.loader(slow(), inputs="id", low_watermark=0, high_watermark=1)
    consume(loader)
    assert loader.stats()["starved_s"] + loader.stats()["startup_s"] < 0.25


def test_a_slow_loop_counts_as_backpressure_and_the_queue_stays_bounded(memory_job):
    memory_job.teacher(batch_size=8)
    loader = memory_job.loader(
        batches(40, largest=8, smallest=8), inputs="id", high_watermark=5, deterministic=True
    )
    pause = threading.Event()
    for number, _ in enumerate(loader):
        stats = loader.stats()
        assert stats["open"] <= 5 and stats["buffered"] <= 5
        if number == 10:
            before = stats["backpressure_s"]
            pause.wait(0.4)
            assert loader.stats()["backpressure_s"] - before > 0.2
    assert loader.stats()["buffered"] == 0


def test_reading_ahead_is_bounded_by_bytes(memory_job, gate):
    memory_job.teacher("waits_at_gate", batch_size=4)
    read = []

    def counted():
        for batch in batches(50, largest=8, smallest=8):
            read.append(batch)
            yield batch

    loader = memory_job.loader(counted(), inputs="id", max_bytes=200)
    opener = threading.Timer(0.2, gate.set)
    opener.start()
    next(iter(loader))
    assert len(read) <= 4  # 64 bytes each: the fourth is the first one too many


def test_stats_name_what_there_is(memory_job):
    memory_job.teacher()
    loader = memory_job.loader(batches(4), inputs="id", agreement={"every_s": 60})
    consume(loader)
    stats = loader.stats()
    assert {
        *("batches", "samples", "skipped", "epoch", "starved_s", "startup_s", "backpressure_s", "requeued"),
        *("duplicates", "hedged", "failed", "done", "buffered", "open", "queue_bytes", "teachers", "garbage"),
        *("discarded", "epoch_samples", "waiting_s", "loop_s", "left_out"),
        *("late", "leased", "reading_s", "sent_socket_bytes", "sent_shared_bytes"),
        *("received_socket_bytes", "received_shared_bytes"),
        *("missed", "stale", "retracted", "doubtful", "aside", "differs_nats", "differs_relative"),
        "coalesced",
    } == set(stats)
    assert (stats["batches"], stats["teachers"], stats["epoch"], stats["epoch_samples"]) == (4, 1, 1, 0)
    assert stats["samples"] == sum(len(batch["id"]) for batch in batches(4))


def test_stats_say_where_the_loop_is_whatever_it_was_given_before(memory_job):
    """A supervisor judges restarts by this position."""
    memory_job.teacher()
    loader = memory_job.loader(batches(4), inputs="id")
    sizes = [len(batch["id"]) for batch in batches(4)]
    seen = [(loader.stats()["epoch"], loader.stats()["epoch_samples"]) for _ in loader]
    assert seen == [(0, sum(sizes[: k + 1])) for k in range(4)]


@pytest.mark.parametrize(
    "options",
    [{"teacher": ()}, {"teacher": ""}, {"teacher": ["a", "a"]}, {"teacher": [3]}, {"high_watermark": 0}],
)
def test_impossible_arguments_are_refused(memory_job, options):
    with pytest.raises(ConfigError):
        memory_job.loader([], **options)
