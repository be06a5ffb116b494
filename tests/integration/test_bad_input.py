"""What is wrong is said in the training loop, costs no other batch, and never hangs."""

from __future__ import annotations

import logging
import threading

import pytest
import torch

import edldist
from edldist.errors import (
    ConfigError,
    ContractError,
    CoordinatorUnreachableError,
    InputError,
    PoisonTaskError,
    ProtocolVersionError,
)
from edldist.wire.enrolment import Enrolment
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import (
    MAGIC,
    PROTOCOL,
    Failure,
    Goodbye,
    Heartbeat,
    Hello,
    Idle,
    Labels,
    LeaseRows,
    Pull,
    Refused,
    Register,
    Result,
    Return,
    Tasks,
    TensorSpec,
    Unknown,
    Welcome,
)
from edldist.wire.zmq.transport import ZmqTransport
from tests.greetings import FINGERPRINT, fingerprint
from tests.harness import local_job

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def job():
    with local_job(MemoryTransport()) as made:
        yield made
        assert made.errors == []


def fives(count: int) -> list[dict]:
    return [{"id": torch.arange(5 * n, 5 * n + 5)} for n in range(count)]


def run_into(error, loader) -> tuple[int, pytest.ExceptionInfo]:
    """Batches that were delivered before the error."""
    delivered = 0
    with pytest.raises(error) as caught:
        for batch, _ in loader:
            assert int(batch["id"][0]) == 5 * delivered
            delivered += 1
    return delivered, caught


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_no_attempt_can_label_raises_with_its_samples_and_the_models_traceback(job, workers):
    for _ in range(workers):
        job.teacher("raises_on_13", batch_size=64)
    loader = job.loader(fives(6), inputs="id", task_size=2)
    delivered, caught = run_into(PoisonTaskError, loader)
    assert delivered == 2
    error = caught.value
    assert (error.teacher, error.batch, error.samples, len(error.attempts)) == ("teacher", 2, range(2, 4), 3)
    assert 'raise ValueError("sample 13 is poison on purpose")' in str(error)
    assert loader.stats()["failed"] == 3


def test_the_next_epoch_after_poison_starts_afresh(job):
    job.teacher("raises_on_13")
    data = fives(6)
    loader = job.loader(data, inputs="id")
    run_into(PoisonTaskError, loader)
    data[2] = {"id": torch.arange(5)}
    assert len(list(loader)) == 6


def test_poison_waits_until_the_batches_before_it_are_delivered(job):
    """Batch 2 is poison for good while batch 0 is still being computed elsewhere."""
    loader = job.loader(fives(6), inputs="id", deterministic=True)
    seen = []
    reader = threading.Thread(target=lambda: seen.extend(_until_poison(loader)))
    with _hostile(job, loader) as slow:
        slow.greet("raises_on_13")
        reader.start()
        _wait(lambda: loader.stats()["open"] > 0)
        slow.link.send(Pull(seq=1, room=5))
        lease = slow.await_message(Tasks).groups[0].leases[0].id
        ids = slow.frames[0].tobytes()
        for _ in range(3):
            job.teacher("raises_on_13", batch_size=5)
        _wait(lambda: loader.stats()["failed"] == 3)
        assert seen == []
        slow.link.send(Labels(results=[_result(lease, [5, 1], "int64")]), [ids])
        reader.join(20)
    assert seen == [0, 5, "poison"]


def _until_poison(loader):
    try:
        for batch, labels in loader:
            assert torch.equal(labels["logits"].squeeze(1), batch["id"])
            yield int(batch["id"][0])
    except PoisonTaskError as error:
        assert error.batch == 2
        yield "poison"


def test_labels_that_are_not_finite_end_in_the_loop_with_the_reason(job):
    job.teacher("nan_on_13")
    loader = job.loader(fives(4), inputs="id", task_size=5)
    delivered, caught = run_into(PoisonTaskError, loader)
    assert delivered == 2
    caught.match(r"'logits' has non-finite values in 1 of 5 rows .*sample 3 of.*allow_nonfinite")


@pytest.mark.parametrize("on_poison", ["raise", "skip"])
@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("wrong_first_dimension", {}, r"'logits' of model .*:wrong_first_dimension .*\[4, 1\] for 5"),
        ("no_tensor", {}, "returned a str"),
        ("complex_labels", {}, "labels cannot be sent: tensors of torch.complex64"),
        ("cached", {}, r"'cache': tuple; .*outputs: \[logits, extra\] .*--outputs logits,extra"),
        ("identify", {"outputs": "features"}, "returned a dict without 'features': logits. Choose others"),
        ("difference", {}, r"cannot be called with .*\('id'\): missing .* 'a'; it takes \(a, b\)"),
        ("looks_for_image", {}, r"\('id'\): it has no 'image', for which the model looks"),
        (
            "WantsMask",
            {},
            r"\('id'\): it refuses them whatever they hold.*\n[\s\S]*you have to specify a mask",
        ),
        ("identify", {"dataset": "tests.models:numbers"}, "must bring 'index'"),
    ],
)
def test_what_no_attempt_could_label_ends_at_once_with_one_message(job, model, options, message, on_poison):
    for _ in range(2):
        job.teacher(model, **options)
    loader = job.loader(fives(4), inputs="id", task_size=5, on_poison=on_poison)
    delivered, caught = run_into(ContractError, loader)
    assert delivered == 0
    caught.match(
        r"teacher 'teacher' cannot label what this student sends \(samples 0..4 of batch 0\); no other"
    )
    caught.match(message)
    assert caught.value.final
    assert loader.stats()["requeued"] == 0


def test_a_first_sample_that_a_module_refuses_for_what_it_holds_is_poison_and_no_more(job):
    job.teacher("RaisesOn13")
    data = [{"id": torch.arange(13, 14)}, *fives(2)]
    loader = job.loader(data, inputs="id", on_poison="skip", deterministic=True)
    assert [batch["id"].tolist() for batch, _ in loader] == [list(range(5)), list(range(5, 10))]
    assert loader.stats()["failed"] == 3


def test_chosen_outputs_are_sent_and_no_others(job):
    worker = job.teacher("cached", outputs="logits")
    labels = [labels for _, labels in job.loader(fives(2), inputs="id")]
    assert [set(each) for each in labels] == [{"logits"}] * 2
    assert torch.equal(torch.cat([each["logits"] for each in labels]).flatten(), torch.arange(10))
    assert worker.service._job.fingerprint.outputs == ["logits"]


def test_non_finite_labels_pass_when_they_are_allowed(job):
    job.teacher("nan_on_13", allow_nonfinite=True)
    labels = torch.cat([labels["logits"] for _, labels in job.loader(fives(4), inputs="id")])
    assert labels.isnan().flatten().nonzero().tolist() == [[13]]


def test_a_codec_that_cannot_hold_the_labels_says_so(job):
    job.teacher("large", codec="dense:fp16")
    _, caught = run_into(PoisonTaskError, job.loader(fives(1), inputs="id"))
    caught.match("beyond fp16's 65504")


def test_inputs_that_name_a_missing_key_list_the_keys_there_are(job):
    job.teacher()
    data = [*fives(3), {"image": torch.zeros(5), "label": torch.zeros(5)}]
    delivered, caught = run_into(InputError, job.loader(data, inputs="id"))
    assert delivered == 3
    caught.match("inputs='id'.*keys 'image', 'label'")


def test_inputs_that_the_model_does_not_take_are_named_beside_those_that_it_does(job):
    job.teacher()
    loader = job.loader([{"picture": torch.zeros(5)}], inputs="picture")
    with pytest.raises(ContractError, match=r"\('picture'\): missing .* 'id'; it takes \(id\)"):
        list(loader)


@pytest.mark.parametrize("transport", [MemoryTransport, ZmqTransport])
def test_an_unreachable_coordinator_is_given_up_after_the_stated_time(monkeypatch, transport):
    monkeypatch.setenv("EDLDIST_CONNECT_TIMEOUT_S", "1")
    with (
        edldist.DistillLoader(
            fives(3), "id", coordinator="tcp://127.0.0.1:9", transport=transport()
        ) as loader,
        pytest.raises(CoordinatorUnreachableError, match=r"tcp://127.0.0.1:9 .*EDLDIST_CONNECT_TIMEOUT_S=1"),
    ):
        next(iter(loader))


def test_the_wait_for_a_coordinator_is_announced(caplog):
    enrolment = Enrolment(
        "s",
        lambda _: Register(id="s", role="student", process="p"),
        lambda: Heartbeat(id="s"),
        "tcp://h:1",
        60.0,
        0.0,
    )
    with caplog.at_level(logging.WARNING):
        enrolment.due(1.0)
        assert caplog.messages == []
        enrolment.due(4.0)
    assert caplog.messages == ["waiting for a coordinator at tcp://h:1; giving up in 56 s"]


def test_no_coordinator_at_all_is_a_configuration_error(monkeypatch):
    monkeypatch.delenv("EDLDIST_COORDINATOR", raising=False)
    with pytest.raises(ConfigError, match="EDLDIST_COORDINATOR"):
        edldist.DistillLoader(fives(3), "id")
    with pytest.raises(ConfigError, match="coordinator: 'somewhere'"):
        edldist.DistillLoader(fives(3), "id", coordinator="somewhere")


def test_a_worker_of_a_teacher_that_nobody_wants_harms_nobody(job):
    stranger = job.teacher("raises_on_13", name="other")
    job.teacher()
    loader = job.loader(fives(10), inputs="id")
    assert len(list(loader)) == 10
    with _hostile(job, loader) as peer:
        peer.link.send(Hello(worker="w", teacher="other", fingerprint=FINGERPRINT, process="p"))
        assert "not of 'other'" in peer.await_message(Refused).reason
        peer.link.send(Hello(worker="w", teacher="teacher", fingerprint=fingerprint("zip"), process="p"))
        assert "no such codec 'zip'" in peer.await_message(Refused).reason
    assert loader.stats()["teachers"] == 1
    assert stranger.service._ledger.tasks == 0


class _Peer:
    """Someone at the student's port who says whatever a test wants."""

    def __init__(self, transport, address: str) -> None:
        self.poller = transport.poller()
        self.link = self.poller.connect(address, "hostile")
        self.frames: list[memoryview] = []

    def raw(self, *frames: bytes) -> None:
        """Send frames that need not be a message."""
        if hasattr(self.link, "send_raw"):
            self.link.send_raw(frames)
        else:
            self.link._socket.send_multipart(frames)

    def await_message(self, kind, timeout_s: float = 10.0):
        """The next message of a kind; pings are answered meanwhile."""
        clock = edldist.clock.SystemClock()
        until = clock.monotonic() + timeout_s
        while clock.monotonic() < until:
            self.poller.wait(0.1)
            while (received := self.link.receive()) is not None:
                self.link.send(Unknown())
                if isinstance(received.message, kind):
                    self.frames = received.frames
                    return received.message
        raise AssertionError(f"no {kind.__name__} came")

    def await_preface(self) -> None:
        """The student tells its protocol, which is this side's, too, and no message of it."""
        _wait(lambda: self.link.receive() is None and self.link.garbage == 1)

    def greet(self, model: str = "identify") -> None:
        """As a worker that serves a model of ``tests.models``."""
        self.link.send(
            Hello(
                worker="hostile",
                teacher="teacher",
                fingerprint=fingerprint(model=f"tests.models:{model}"),
                process="p",
            )
        )
        self.await_message(Welcome)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.poller.close()


def _hostile(job, loader) -> _Peer:
    return _Peer(job.transport, loader._service.address)


def _wait(condition, timeout_s: float = 20.0) -> None:
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never happened")


def _result(lease: int, shape: list[int], dtype: str = "float64", name: str = "logits") -> Result:
    specs = [TensorSpec(name=name, dtype=dtype, shape=shape)]
    rows = [LeaseRows(lease=lease, count=shape[0] if shape else 5)]
    return Result(rows=rows, version="", compute_s=0.0, tensors=specs)


@pytest.mark.parametrize("transport", [MemoryTransport, ZmqTransport])
def test_a_hostile_peer_at_the_students_port_harms_no_batch_and_is_counted(transport):
    with local_job(transport()) as job:
        loader = job.loader([{"id": batch["id"]} for batch in fives(200)], inputs="id")
        with _hostile(job, loader) as peer:
            huge = (1 << 64) - 1
            peer.link.send(Pull(seq=huge, room=huge))
            peer.await_message(Unknown)
            ours = PROTOCOL.preface
            for garbage in (b"", b"garbage", MAGIC, ours, ours + b"\xc1" * 9, b"\x00" * 5000):
                peer.raw(garbage, b"frame")
            peer.raw(MAGIC + bytes([99]) + b"later")
            peer.await_preface()
            _wait(lambda: loader.stats()["garbage"] == 7)

            for message in (
                Labels(results=[_result(huge, [5, 2])]),
                Failure(leases=[1], error="x"),
                Unknown(),
            ):
                peer.link.send(message)
                peer.await_message(Unknown)
            assert loader.stats()["duplicates"] == 1

            running = iter(loader)
            job.teacher(batch_size=16)
            seen = [next(running)]
            peer.greet()
            foreign = list(range(50)) + [huge]
            peer.link.send(Labels(results=[_result(lease, [5, 2]) for lease in foreign]), [b"\0" * 80] * 51)
            peer.link.send(Failure(leases=foreign, error="x" * 60_000))
            peer.link.send(Return(leases=foreign))
            peer.link.send(Heartbeat(id="none of yours"))
            _wait(lambda: loader.stats()["duplicates"] >= 1 + 51 + 51)

            # With a lease of its own: labels that lie, and the lease given back twice.
            for seq in range(1, 40):
                peer.link.send(Pull(seq=seq, room=3))
                answer = peer.await_message((Tasks, Idle))
                if isinstance(answer, Tasks):
                    break
                seen.append(next(running))
            assert isinstance(answer, Tasks) and answer.seq == seq
            task = answer.groups[0].leases[0]
            lease, samples = task.id, task.samples
            peer.link.send(Labels(results=[_result(lease, [samples, 0, 1 << 63])]), [b""])
            _wait(lambda: loader.stats()["failed"] == 1)
            peer.link.send(Pull(seq=huge, room=2))
            answer = peer.await_message((Tasks, Idle))
            if isinstance(answer, Tasks):
                peer.link.send(Return(leases=[answer.groups[0].leases[0].id] * 3))
            peer.link.send(Goodbye(id="hostile"))
            seen += running
        assert [int(batch["id"][0]) for batch, _ in seen] == list(range(0, 1000, 5))
        for batch, labels in seen:
            assert torch.equal(labels["logits"][:, 1], batch["id"].double() * 2 + 1)
        assert job.errors == []


@pytest.mark.parametrize(
    ("shape", "dtype", "frames"),
    [
        ([5, 9], "float64", [b"\0" * 80]),
        ([4, 2], "float64", [b"\0" * 64]),
        ([5, 2], "float7", [b"\0" * 80]),
        ([5, 2], "float64", []),
        ([5, 0, 1 << 63], "float64", [b""]),
        ([], "float64", [b"\0" * 8]),
    ],
)
def test_lying_labels_fail_their_own_task_only(job, shape, dtype, frames):
    loader = job.loader(fives(2), inputs="id", deterministic=True)
    running = iter(loader)
    with _hostile(job, loader) as peer:
        peer.greet()
        delivered = []
        reader = threading.Thread(target=lambda: delivered.extend(running))
        reader.start()
        _wait(lambda: loader.stats()["open"] == 2)
        peer.link.send(Pull(seq=1, room=5))
        lease = peer.await_message(Tasks).groups[0].leases[0].id
        peer.link.send(Labels(results=[_result(lease, shape, dtype)]), frames)
        _wait(lambda: loader.stats()["failed"] == 1)
        job.teacher(batch_size=5)
        reader.join(20)
    assert [batch["id"].tolist() for batch, _ in delivered] == [list(range(5)), list(range(5, 10))]


def test_a_lease_returned_several_times_in_one_message_is_returned_once(job):
    loader = job.loader(fives(2), inputs="id")
    delivered = []
    reader = threading.Thread(target=lambda: delivered.extend(loader))
    with _hostile(job, loader) as peer:
        peer.greet()
        reader.start()
        _wait(lambda: loader.stats()["open"] == 2)
        peer.link.send(Pull(seq=1, room=5))
        lease = peer.await_message(Tasks).groups[0].leases[0].id
        peer.link.send(Return(leases=[lease] * 3))
        _wait(lambda: loader.stats()["requeued"] == 1)
        job.teacher()
        reader.join(20)
    assert len(delivered) == 2


def test_a_student_of_another_version_does_not_stop_a_worker(job):
    """The coordinator may list a student that speaks another protocol: the others are served on."""
    worker = job.teacher()
    poller = job.transport.poller()
    hub = poller.bind("tcp://127.0.0.1:0")
    control = poller.connect(job.address, "odd")
    control.send(Register(id="odd", role="student", process="p", address=hub.address, teachers=["teacher"]))

    heard = []

    def worker_greeted() -> bool:
        control.send(Heartbeat(id="odd"))  # or the coordinator would take it for lost on a slow machine
        if (received := hub.receive()) is not None:
            heard.append(received.sender.route)
        return bool(heard) and "odd" in worker.service._students

    _wait(worker_greeted)
    job.transport._to_link(hub.address, heard[0], [MAGIC + bytes([99]) + b"later"])
    _wait(lambda: worker_greeted() and worker.service._students["odd"].refused)
    assert len(list(job.loader(fives(20), inputs="id"))) == 20
    poller.close()


def test_the_version_error_names_both_sides():
    said = str(ProtocolVersionError("99", "2-ab"))
    assert "99" in said and "2-ab" in said and "Install the same" in said
