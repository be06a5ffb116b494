"""Headers: every message survives the wire, and nothing else gets past ``decode``."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import typing

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edldist.errors import ProtocolVersionError, WireError
from edldist.labels.fingerprint import VocabularyMark
from edldist.labels.grammar import CodecSpec
from edldist.wire import messages as wire
from edldist.wire.messages import MAGIC, PROTOCOL, PROTOCOL_VERSION, decode, encode
from tests.greetings import FINGERPRINT

SPEC = wire.TensorSpec(name="image", dtype="bfloat16", shape=[2, 0, 3])
EVENT = wire.Event(event="scaled", t=1.5, fields={"to": 3, "why": None, "up": True, "load": 0.5})
NODE = wire.GroupNode(process="p-12", host="10.0.0.5", port=65_535, ranks=8)
GENERATION = wire.Generation(number=2, token="abc.1", nodes=[NODE])
REPORT = wire.Report(reporter="r0", seq=7, rank=1, t=2.5, values={"loss": 0.25, "note": "ü", "step": 2**63})
GROUP = wire.GroupStatus(
    name="big",
    workers=3,
    draining=1,
    wanted=2,
    least=1,
    most=8,
    held=None,
    demand=150.5,
    capacity=70.0,
    by_device={"cpu": 70.0},
    starved=0.0,
    leaving=["t-1", "t-2", "t-3"],
    why="students could take 150.5 samples/s",
)
SAMPLES = [
    wire.Register(
        id="t-1",
        role="teacher",
        group="big",
        address="tcp://h:1",
        teachers=["a", "b"],
        links=["s-0"],
        process="p-12",
        host="h",
        pid=12,
        wall_s=3.5,
        info={"device": "cpu", "gpus": 0},
    ),
    wire.Registered(incarnation="abc", heartbeat_interval_s=1.0, heartbeat_ttl_s=3.0),
    wire.Heartbeat(
        id="t-1",
        stats={"rate": 1e9, "device": "cpu"},
        capacity=12.5,
        needs=[wire.Need(group="big", hunger=40.0, lacking=64, buffered=2)],
        starved=0.25,
    ),
    wire.Unknown(),
    wire.Vouch(id="t-0", process="9f"),
    wire.Refused(reason="no"),
    wire.KeyRetired(),
    wire.Goodbye(id="t-1", reason="drained"),
    wire.Links(students=[wire.Peer(id="s-0", address="tcp://h:2")], complete=False),
    wire.NodeQuery(processes=["p-1", "p-2"], since=3),
    wire.NodeStatus(
        incarnation="i", ranks=[wire.RankStatus(process="p-1", stats={"batches": 2})], lost=["p-2"], seq=9
    ),
    wire.TeachersHere(groups=["bert"]),
    wire.Regroup(generation="job@h:1", lost="s-1", reason="silent for 3.4 s"),
    wire.NodeReport(
        run="digits-1",
        job="train.py --lr 1",
        node=NODE,
        least=1,
        most=4,
        state="member",
        seq=3,
        generation=GENERATION,
        values={"key": b"\x00\xff"},
        counts={"here": 1},
    ),
    wire.RunView(
        run="digits-1",
        seq=3,
        generation=GENERATION,
        gone=["p-13"],
        whole=False,
        waiting=1,
        values={"key": b"value"},
        counts={"here": 2},
    ),
    EVENT,
    REPORT,
    wire.Ack(seq=7),
    wire.StatusQuery(since=9),
    wire.HistoryQuery(since=1.5),
    wire.TraceQuery(seconds=5.0, sample=10),
    wire.TraceBegun(
        trace="t",
        clock="boot",
        members=[wire.TracedMember(id="s", role="student", group="", host="h", pid=1, rank=0)],
    ),
    wire.TraceOrder(trace="t", seconds=5.0, sample=1, records=100, ordered_s=1.5),
    wire.TraceRecords(trace="t", member="s", thread="I/O", records=b"x" * 40, names={1: "w"}, lost=3),
    wire.History(
        incarnation="abc",
        wall_s=12.5,
        began_s=2.5,
        since=0.0,
        recent=wire.Course(
            step_s=1.0,
            t=[12.0],
            samples_per_s=[40.0],
            students=[1.0],
            buffered=[None],
            starved=[0.25],
            backpressure=[0.0],
            groups={"big": wire.GroupCourse(samples_per_s=[40.0], workers=[2.0], wanted=[None])},
        ),
        whole=None,
        figures=[
            wire.Figure(
                job="j", name="loss", kind="loss", every=1, t=[12.0], step=[3.0], value=[None], last=0.5
            ),
        ],
        progress=[wire.Progress(job="j", step=3.0)],
        happenings=[wire.Happening(t=12.0, event="remark", tone="quiet", text="t", fields={"text": "t"})],
    ),
    wire.Scale(group="big", workers=8),
    wire.Scaled(group=GROUP),
    wire.Status(
        incarnation="abc",
        uptime_s=12.5,
        members=[
            wire.MemberStatus(
                id="t-1",
                role="teacher",
                group="big",
                address="",
                process="p-12",
                host="h",
                pid=12,
                joined_s=4.5,
                silent_s=0.5,
                links=["s-0"],
                info={"device": "cpu"},
                stats={"rate": 1.5},
            )
        ],
        records=[EVENT, REPORT],
        seq=2,
        groups=[GROUP],
    ),
    wire.Hello(worker="t-1", teacher="big", fingerprint=FINGERPRINT, process="p-1"),
    wire.Welcome(student="s-0", ping_interval_s=0.1, heartbeat_ttl_s=3.0, max_frame_bytes=1 << 30),
    wire.Welcome(
        student="s-0",
        ping_interval_s=0.1,
        heartbeat_ttl_s=3.0,
        max_frame_bytes=1 << 30,
        codecs=[CodecSpec("topk", {"kept": 16})],
    ),
    wire.Shed(step=4, retry_after_s=5.0, degrade=1, waits="others take all"),
    wire.TokensWanted(),
    wire.TokensTold(mark=VocabularyMark(50_257, "ab12")),
    wire.Pull(seq=3, room=64),
    wire.Tasks(
        seq=3,
        groups=[wire.LeaseGroup(leases=[wire.Lease(id=1, samples=2, cost=2, own_pass=True)], tensors=[SPEC])],
        buffered=4,
    ),
    wire.Idle(seq=3, buffered=8),
    wire.Wake(buffered=2),
    wire.Labels(
        results=[
            wire.Result(
                rows=[wire.LeaseRows(lease=1, count=2)], version="", compute_s=0.25, tensors=[SPEC, SPEC]
            )
        ],
        pull=wire.Pull(seq=4, room=64),
    ),
    wire.Failure(leases=[1, 2], error="Traceback ..."),
    wire.Return(leases=[]),
    wire.Ping(seq=1, buffered=2),
    wire.Pong(seq=1, held=[3], pulled=2, asleep=False),
]
KINDS = typing.get_args(wire.Message)


def _header(value: object) -> bytes:
    return PROTOCOL.preface + msgspec.msgpack.encode(value)


def test_every_message_has_a_sample_here() -> None:
    assert {type(sample) for sample in SAMPLES} == set(KINDS)


def test_every_message_has_its_own_tag() -> None:
    tags = [kind.__struct_config__.tag for kind in KINDS]
    assert len(set(tags)) == len(KINDS)
    assert all(isinstance(tag, str) for tag in tags)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_a_message_comes_back_as_it_went(sample: wire.Message) -> None:
    back = decode(encode(sample))
    assert type(back) is type(sample)
    assert back == sample


@pytest.mark.parametrize(
    "sample", [s for s in SAMPLES if type(s).__struct_fields__], ids=lambda sample: type(sample).__name__
)
def test_text_that_is_no_unicode_travels_with_question_marks(sample: wire.Message) -> None:
    """The name of a file that is not UTF-8, in an error's text, must not end whoever reports it."""
    odd = _with_text(sample, "/data/\udcff.jpg")
    assert decode(encode(odd)) == _with_text(sample, "/data/?.jpg")


def _with_text(value: typing.Any, text: str) -> typing.Any:
    """The same with ``text`` behind each text in it whose form is free."""
    if isinstance(value, msgspec.Struct):
        kept = {"role", "state"}  # one of a few words
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        return type(value)(**{k: v if k in kept else _with_text(v, text) for k, v in fields.items()})
    if isinstance(value, str):
        return value + text
    if isinstance(value, list):
        return [_with_text(item, text) for item in value]
    if isinstance(value, dict):
        return {_with_text(key, text): _with_text(item, text) for key, item in value.items()}
    return value


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_decoded(kind: type) -> None:
    assert decode(kind(encode(wire.Ack(seq=3)))) == wire.Ack(seq=3)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_every_truncation_is_an_error(sample: wire.Message) -> None:
    header = encode(sample)
    for length in range(len(header)):
        with pytest.raises(WireError):
            decode(header[:length])


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_a_field_too_many_is_an_error(sample: wire.Message) -> None:
    fields = msgspec.msgpack.decode(encode(sample)[len(PROTOCOL.preface) :])
    with pytest.raises(WireError, match="unknown field"):
        decode(_header({**fields, "extra": 1}))


@pytest.mark.parametrize(
    "value",
    [
        {"type": "shutdown"},
        {"type": 3},
        {"seq": 3},
        {},
        [],
        None,
        "pong",
        {"type": "ack"},
        {"type": "ack", "seq": -1},
        {"type": "ack", "seq": 1.5},
        {"type": "ack", "seq": "1"},
        {"type": "pull", "seq": 0, "samples": 0},
        {"type": "register", "id": "a", "role": "root"},
        {"type": "register", "id": "a" * 257, "role": "teacher"},
        {"type": "register", "id": "a", "role": "teacher", "teachers": ["x"] * 65},
        {"type": "heartbeat", "id": "a", "stats": {"x": [1]}},
        {"type": "heartbeat", "id": "a", "stats": {"x": b"bytes"}},
        {"type": "heartbeat", "id": "a", "stats": {"k" * 257: 1}},
        {"type": "heartbeat", "id": "a", "stats": {1: 1}},
        {"type": "heartbeat", "id": "a", "capacity": -1.0},
        {"type": "heartbeat", "id": "a", "capacity": 1e13},
        {"type": "heartbeat", "id": "a", "starved": 1.5},
        {"type": "heartbeat", "id": "a", "needs": [["big", -1.0, 1, 1]]},
        {"type": "heartbeat", "id": "a", "needs": [["big", 1.0, -1, 1]]},
        {"type": "heartbeat", "id": "a", "needs": [["g", 1.0, 1, 1]] * 65},
        {"type": "scale", "group": "big", "workers": -1},
        {"type": "failure", "leases": [1], "error": "e" * 65_537},
        {"type": "tasks", "seq": 1, "tasks": [[1, 2, True]], "buffered": 0},
        {"type": "tasks", "seq": 1, "tasks": [[1, 2, True, [["x", "int8", [-1]]]]], "buffered": 0},
        {"type": "tasks", "seq": 1, "tasks": [[1, 2, True, [["x", "int8", [1] * 17]]]], "buffered": 0},
        {"type": "status", "incarnation": "a", "uptime_s": 0.0, "members": [], "records": [{"type": "pong"}]},
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_no_message_is_an_error(value: object) -> None:
    with pytest.raises(WireError) as caught:
        decode(_header(value))
    assert not isinstance(caught.value, ProtocolVersionError)


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"\x91" * 200_000, id="deep lists"),
        pytest.param(b"\x81\xa1a" * 200_000, id="deep maps"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="four billion items announced"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="four billion keys announced"),
        pytest.param(b"\xdb\xff\xff\xff\xff", id="four gigabytes of text announced"),
        pytest.param(b"\xd6\xff\x00\x00\x00\x00", id="extension type"),
        pytest.param(b"\xa2\xff\xfe", id="no utf-8"),
        pytest.param(b"\xc1", id="reserved byte"),
    ],
)
@pytest.mark.parametrize("field", [b"", b"\xa5links", b"\xa4info", b"\xa2id", b"\xa4type"])
def test_hostile_values_are_errors_wherever_they_stand(field: bytes, tail: bytes) -> None:
    start = b"\x82\xa4type\xa8register" if field else b""
    with pytest.raises(WireError):
        decode(PROTOCOL.preface + start + field + tail)
    with pytest.raises(WireError):
        decode(PROTOCOL.preface + b"\x82" + field + tail)


def test_bytes_after_a_message_are_an_error() -> None:
    with pytest.raises(WireError):
        decode(encode(wire.Unknown()) + b"\x00")


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION + 1, 255])
def test_another_version_is_named_whatever_follows(version: int) -> None:
    with pytest.raises(ProtocolVersionError, match=f"{version}.*{PROTOCOL_VERSION}") as caught:
        decode(MAGIC + bytes([version]) + b"not even msgpack")
    assert (caught.value.theirs, caught.value.ours) == (str(version), PROTOCOL.name)


@given(st.binary(max_size=200))
@example(b"")
@example(MAGIC)
def test_random_bytes_raise_nothing_else(header: bytes) -> None:
    with contextlib.suppress(WireError):
        decode(header)


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_random_bodies_raise_nothing_else(body: bytes) -> None:
    try:
        decode(PROTOCOL.preface + body)
    except ProtocolVersionError:
        raise AssertionError("this is our version") from None
    except WireError:
        pass


@given(st.sampled_from(SAMPLES), st.data())
@settings(max_examples=300)
def test_flipped_bytes_raise_nothing_else(sample: wire.Message, data: st.DataObject) -> None:
    header = bytearray(encode(sample))
    for _ in range(data.draw(st.integers(1, 4))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    try:
        again = decode(bytes(header))
    except WireError:
        return
    assert isinstance(again, KINDS)


def test_decoding_needs_no_torch() -> None:
    script = (
        "import json, sys\n"
        "from edldist.wire.messages import Ack, decode, encode\n"
        "assert decode(encode(Ack(seq=1))) == Ack(seq=1)\n"
        "print(json.dumps('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False


def test_a_header_over_its_limit_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr("edldist.wire.messages.coding._decoder", None)
    raw = encode(wire.Failure(leases=[1], error="x" * 1000))
    with pytest.raises(WireError, match="a header of 10.. bytes; 1000 are allowed"):
        decode(raw, 1000)


def test_a_message_that_nobody_would_take_is_refused_where_it_is_made():
    values = {f"m{number}": "x" * 60_000 for number in range(20)}
    with pytest.raises(WireError, match="a Report of .* bytes; 1048576 can be sent"):
        encode(wire.Report(reporter="r", seq=1, rank=0, t=0.0, values=values))


@pytest.mark.parametrize("text", ["/data/\udcff.jpg", "\ud800", "a" * 200_000, "\U0001f600" * 70_000])
def test_a_text_that_cannot_travel_is_made_to(text):
    message = decode(encode(wire.Failure(leases=[3], error=f"start {text} ValueError: the end")))
    assert message.leases == [3]
    assert message.error.startswith("start ") and message.error.endswith(" ValueError: the end")
    assert len(message.error) <= wire.MAX_TEXT
    event = decode(encode(wire.Event(event="e", t=0.0, fields={"error": text, "n": 1})))
    assert event.fields["n"] == 1 and len(event.fields["error"]) == min(len(text), wire.MAX_TEXT)


@pytest.mark.parametrize(
    "message",
    [
        wire.Heartbeat(id="t", stats={f"f{number}": 1 for number in range(wire.MAX_FIELDS + 1)}),
        wire.Links(students=[], complete=True, released=["s"] * 20_000),
        wire.Return(leases=[1] * 70_000),
        wire.Pong(seq=1, held=[1] * 70_000, pulled=0, asleep=False),
        wire.Labels(
            results=[
                wire.Result(
                    rows=[wire.LeaseRows(lease=1, count=1)],
                    version="",
                    compute_s=0.0,
                    tensors=[SPEC] * (wire.MAX_FRAMES + 1),
                )
            ]
        ),
    ],
    ids=lambda message: type(message).__name__,
)
def test_lists_and_dictionaries_have_a_length(message):
    with pytest.raises(WireError, match="length <="):
        decode(encode(message))
