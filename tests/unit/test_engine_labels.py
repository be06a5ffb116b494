"""Labels of an HTTP engine are those of its model; what is missing of them is an error, and never a label."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from edldist.errors import ContractError, EngineLostError, ModelError
from edldist.labels.codec import parse_codec
from edldist.labels.typed import TopKLabels
from edldist.teacher.engines.engine import Engine
from edldist.teacher.engines.forward import EngineForward
from edldist.teacher.engines.lane import EngineLane
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.passes.forward import Forward, PassTerms
from edldist.wire.sequences import ASKED, FIRST, MARKS, WHOLE
from tests.engines import CONTEXT, VOCABULARY, engine

pytestmark = pytest.mark.timeout(60)

K = 8
KINDS = ["vllm", "sglang"]


@pytest.fixture(params=KINDS)
def server(request) -> Iterator:
    with engine(request.param) as made:
        yield made


@contextlib.contextmanager
def opened(server, codec: str = f"topk:{K}", **settings) -> Iterator[EngineForward]:
    settings = {"vocabulary": VOCABULARY, "retry_s": 0.01, "wait_s": 5} | settings
    kept = parse_codec(codec).top_entries()
    made = Engine(server.reference, settings, kept)
    try:
        yield EngineForward(made, parse_codec(codec))
    finally:
        made.close()


def packed(lengths: list[int], seed: int = 0, asked: float = 0.6) -> dict[str, Tensor]:
    """Sequences back to back; of each the last token is asked for or not, one token at least."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (sum(lengths),), generator=generator)
    marks = (torch.rand(sum(lengths), generator=generator) < asked).to(torch.uint8) * ASKED
    first = torch.tensor([0, *lengths]).cumsum(0)[:-1]
    marks[first] |= ASKED | FIRST
    return {"input_ids": ids, MARKS: marks}


def by_model(inputs: dict[str, Tensor], codec: str = f"topk:{K}") -> dict[str, Tensor]:
    teacher = Teacher("tests.models:tiny_lm", torch.device("cpu"))
    return Forward(teacher, parse_codec(codec))(inputs, PassTerms()).packed


def agree(theirs: dict[str, Tensor], ours: dict[str, Tensor], codec: str = f"topk:{K}") -> None:
    assert list(theirs) == list(ours)
    assert all(ours[name].dtype == theirs[name].dtype for name in ours)
    one, other = (parse_codec(codec).decode(each)["logits"] for each in (theirs, ours))
    assert isinstance(one, TopKLabels) and one.log_probs.shape == other.log_probs.shape
    kept = ~other.log_probs.isneginf()
    assert torch.equal(one.log_probs.isneginf(), ~kept)
    assert torch.equal(one.ids[kept], other.ids[kept])
    # A value at the border of two steps of eight bits may be told as either.
    torch.testing.assert_close(one.log_probs[kept], other.log_probs[kept], atol=0.03, rtol=0)
    torch.testing.assert_close(one.log_tail.exp(), other.log_tail.exp(), atol=2e-3, rtol=0)
    assert (one.log_probs[kept] - other.log_probs[kept]).abs().mean() < 1e-3


@pytest.mark.parametrize("codec", [f"topk:{K}", "topk:1", f"topk:{VOCABULARY}", "topp:0.8:20"])
def test_packed_sequences_get_the_labels_of_the_model(server, codec):
    for seed, lengths in enumerate(([1], [5, 1, 30, 12], [CONTEXT - 2, 3])):
        inputs = packed(lengths, seed)
        with opened(server, codec) as forward:
            agree(forward(inputs, PassTerms(4096)).packed, by_model(inputs, codec), codec)


def test_padded_sequences_do_and_padding_is_nan(server):
    ids = torch.randint(0, VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(4, 9, dtype=torch.int64)
    mask[0, 6:] = mask[1, :4] = mask[3] = 0  # on the right, on the left, all of it
    with opened(server) as forward:
        labels = forward({"input_ids": ids, "attention_mask": mask}, PassTerms()).packed
        whole = forward({"0": ids}, PassTerms(fixed=True)).packed
    real = mask.bool()
    decoded = parse_codec(f"topk:{K}").decode(labels)["logits"]
    assert decoded.log_probs.shape == (4, 9, K) and decoded.log_tail.shape == (4, 9)
    assert decoded.log_probs[~real].isnan().all() and decoded.log_tail[~real].isnan().all()
    name = f"logits.topk@{VOCABULARY}"
    model = torch.stack(
        [by_model({"input_ids": ids[:1]})[name][0], by_model({"input_ids": ids[2:3]})[name][0]]
    )
    agree({name: labels[name][:1, :6]}, {name: model[:1, :6]})
    agree({name: labels[name][2:3]}, {name: model[1:]})
    agree({name: labels[name][1:2, 4:]}, by_model({"input_ids": ids[1:2, 4:]}))
    agree(whole, by_model({"input_ids": ids}))


def test_a_rest_within_rounding_is_small_and_not_nothing(server):
    model = server.model
    server.model = lambda ids: model(ids) * 40  # one entry has it all
    inputs = packed([9], asked=1)
    with opened(server) as forward:
        labels = parse_codec(f"topk:{K}").decode(forward(inputs, PassTerms()).packed)["logits"]
    assert (labels.log_tail.exp() <= 1.01e-6).all() and not labels.log_tail.isneginf().any()


def test_what_vllm_says_of_an_impossible_token_is_no_probability():
    with engine("vllm") as server, opened(server) as forward:
        model, possible = server.model, torch.arange(VOCABULARY) % 150 == 7
        server.model = lambda ids: model(ids).masked_fill(~possible, -math.inf)
        labels = forward(packed([9], asked=1), PassTerms()).packed
    decoded = parse_codec(f"topk:{K}").decode(labels)["logits"]
    assert decoded.log_probs[:, 2:].isneginf().all()  # the server wrote -9999
    torch.testing.assert_close(decoded.log_probs[:, :2].exp().sum(-1), torch.ones(9))
    assert decoded.log_tail.isneginf().all() and set(decoded.ids[:, :2].unique().tolist()) == {7, 157}


def test_entries_that_are_filled_up_with_impossible_ones_are_missing():
    """As an engine does that tells 20 entries and is asked for more."""
    with engine("vllm") as server, opened(server) as forward:
        server.faults.change = lambda told: [*told[:5], *((token, -math.inf) for token, _ in told[5:])]
        with pytest.raises(ModelError, match="position 0 is not all: 8 entries have 0.*no more than 0"):
            forward(packed([9], asked=1), PassTerms())


def test_requests_are_under_way_together_on_connections_that_are_kept(server):
    inputs = packed([4] * 40)
    with opened(server, concurrency=6) as forward:
        gate = threading.Barrier(6, timeout=20)
        before = len(server.requests)
        server.on_request = lambda number: gate.wait() if number <= before + 36 else None
        for _ in range(2):
            forward(inputs, PassTerms())
            server.on_request = lambda number: None
        assert server.busiest == 6
        assert server.connected <= 7  # one of the preflight


def test_what_is_asked_of_sglang_begins_at_the_first_asked_position():
    with engine("sglang") as server, opened(server) as forward:
        inputs = packed([20], asked=0)
        inputs[MARKS] = torch.tensor([FIRST, *[0] * 11, ASKED, *[0] * 7], dtype=torch.uint8)
        agree(forward(inputs, PassTerms()).packed, by_model(inputs))
        assert server.requests[-1]["logprob_start_len"] == 12
        assert len(server.requests[-1]["input_ids"]) == 20  # no token more, as the last is not asked for


def swap(entries, at, entry):
    return [*entries[:at], entry, *entries[at + 1 :]]


NO_NUMBER = r"no number \(null or NaN\) came as the log-probability of id \d+ at position 0, where a finite"


FAULTS = {
    "fewer positions": ({"forget_positions": 1}, r"logprobs of \d+ tokens came"),
    "fewer entries": ({"silent_cap": K - 1}, "7 entries came for position 0, and 8 were asked for"),
    "no entry": ({"change": lambda e: []}, "0 entries came for position 0"),
    "none": ({"change": lambda e: swap(e, 2, (e[2][0], None))}, NO_NUMBER),
    "not a number": ({"change": lambda e: swap(e, 2, (e[2][0], float("nan")))}, NO_NUMBER),
    "infinite": (
        {"change": lambda e: swap(e, 2, (e[2][0], float("inf")))},
        r"inf came as the log-probability of id \d+ at position 0",
    ),
    "positive": ({"change": lambda e: swap(e, 0, (e[0][0], 0.5))}, "0.5 came as the log-probability"),
    "outside": ({"change": lambda e: swap(e, 3, (VOCABULARY, e[3][1]))}, "outside of a vocabulary of 300"),
    "twice": ({"change": lambda e: swap(e, 3, e[0])}, "an id came twice for position"),
    "no distribution": (
        {"change": lambda e: [(token, -0.1) for token, _ in e]},
        "are no log-probabilities: 8 of them sum up to 7.2",
    ),
    "refused": ({"statuses": [400]}, r"HTTP 400\): not now"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_missing_value_is_a_failed_task_that_says_where(server, fault):
    faults, words = FAULTS[fault]
    if fault in ("no entry", "twice") and server.kind == "vllm":
        words = "entries came for position"  # the prompt's own may be there; its JSON has no id twice
    with opened(server) as forward:
        for name, value in faults.items():
            setattr(server.faults, name, list(value) if isinstance(value, list) else value)
        with pytest.raises(ModelError, match=f"sample 0 of the task: .*{words}"):
            forward(packed([6]), PassTerms())
        server.faults.__init__()
        agree(forward(packed([6]), PassTerms()).packed, by_model(packed([6])))  # the engine is none the worse


BAD_INPUTS = {
    "a token too many": (packed([CONTEXT], asked=1), ContractError, "context of 64 .* of 64, needs 6"),
    "outside": ({"input_ids": torch.tensor([[300]])}, ContractError, "token 300, outside of the vocabulary"),
    "floats": (
        {"input_ids": torch.rand(2, 3)},
        ContractError,
        r"token ids, integers .* 'input_ids' float32\[2, 3\]",
    ),
    "another name": (
        {"tokens": torch.ones(2, 3, dtype=torch.int64)},
        ContractError,
        r"'tokens' int64\[2, 3\]",
    ),
    "one more": (packed([3]) | {"extra": torch.ones(3)}, ContractError, "'extra' "),
    "a hole": (
        {"input_ids": torch.ones(1, 3, dtype=torch.int64), "attention_mask": torch.tensor([[1, 0, 1]])},
        ContractError,
        "padding between tokens",
    ),
    "a mask of another shape": (
        {"input_ids": torch.ones(1, 3, dtype=torch.int64), "attention_mask": torch.ones(1, 4)},
        ContractError,
        "'attention_mask' is ",
    ),
    "whole": (
        {"input_ids": torch.ones(2, dtype=torch.int64), MARKS: torch.tensor([5, 0], dtype=torch.uint8)},
        ContractError,
        "leave whole=True out",
    ),
}
assert FIRST | WHOLE == 5


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_inputs_that_no_engine_takes_are_refused_before_it_is_asked(server, case):
    inputs, error, words = BAD_INPUTS[case]
    with opened(server) as forward:
        asked = len(server.requests)
        with pytest.raises(error, match=words):
            forward(inputs, PassTerms())
        assert len(server.requests) == asked


def test_a_busy_engine_is_asked_again(server):
    with opened(server, retries=4) as forward:
        server.faults.statuses = [503, 429, 500, 504]
        agree(forward(packed([6]), PassTerms()).packed, by_model(packed([6])))
        server.faults.statuses = [503] * 5
        with pytest.raises(EngineLostError, match=r"lost: HTTP 503: not now \(asked 5 times\)"):
            forward(packed([6]), PassTerms())
        asked = len(server.requests)
        with pytest.raises(EngineLostError):  # for good, and without being asked again
            forward(packed([6]), PassTerms())
        assert len(server.requests) == asked


def test_a_connection_that_was_closed_meanwhile_is_no_failure(server):
    with opened(server, retries=0, concurrency=1) as forward:
        server.faults.hangs_up = True
        for seed in range(5):
            agree(forward(packed([6], seed), PassTerms()).packed, by_model(packed([6], seed)))


def test_an_answer_that_is_cut_short_is_none(server):
    with opened(server, retries=2) as forward:
        server.faults.cut_short = 2
        agree(forward(packed([6]), PassTerms()).packed, by_model(packed([6])))
        server.faults.cut_short = 3
        with pytest.raises(EngineLostError, match="is lost: IncompleteRead"):
            forward(packed([6]), PassTerms())


def test_a_pass_that_is_meant_to_be_small_is_warned_of_once(server, caplog):
    with opened(server) as forward:
        forward(packed([6]), PassTerms(64))
        assert "batch_size" not in caplog.text
        for _ in range(2):
            forward(packed([6]), PassTerms(5, fixed=True))
    assert caplog.text.count("6 tokens of sequences came, and batch_size, 5, counts tokens") == 1
    assert caplog.text.count("a deterministic job asks an engine") == 1


def test_an_engine_that_is_well_and_fails_one_request_fails_one_task(server):
    with opened(server, retries=1) as forward:
        server.faults.statuses = [500, 500]
        with pytest.raises(ModelError, match="says it is well, and this request failed: HTTP 500: not now"):
            forward(packed([6]), PassTerms())
        agree(forward(packed([6]), PassTerms()).packed, by_model(packed([6])))
        server.faults.statuses, server.faults.unwell = [500, 500], True
        with pytest.raises(EngineLostError):
            forward(packed([6]), PassTerms())


@pytest.mark.parametrize("unwell", [False, True])
def test_a_request_has_a_time_limit(server, unwell):
    with opened(server, retries=1) as forward:
        server.faults.hung, server.faults.unwell = True, unwell
        forward._engine._client._settings = forward._engine._client._settings.__class__(
            timeout_s=0.2, retries=1, retry_s=0.0
        )
        asked = len(server.requests)
        with pytest.raises(EngineLostError if unwell else ModelError, match="no answer within 0.2 s"):
            forward(packed([6]), PassTerms())
        assert len(server.requests) - asked == (1 if unwell else 2)  # again where that may help
        server.unblocked.set()


def test_an_engine_that_dies_is_lost_to_all_that_wait_for_it(server):
    with opened(server, concurrency=4, retries=2) as forward:
        server.faults.hung = True
        lane = EngineLane(forward._engine)
        begun = threading.Semaphore(0)
        server.on_request = lambda number: begun.release()
        flights = [
            lane.launch([packed([5] * 2)], lambda inputs: forward(inputs, PassTerms())) for _ in range(2)
        ]
        for _ in range(4):
            assert begun.acquire(timeout=20)
        assert not flights[0].done() and lane.recover()
        server.die()
        for flight in flights:
            flight.wait()
            with pytest.raises(EngineLostError, match="is lost: "):
                flight.done()
        assert not lane.recover()
        server.unblocked.set()
        lane.close()


def test_a_worker_that_ends_does_not_wait_for_the_engine(server):
    with opened(server) as forward:
        server.faults.hung = True
        lane = EngineLane(forward._engine)
        begun = threading.Event()
        server.on_request = lambda number: begun.set()
        flight = lane.launch([packed([5])], lambda inputs: forward(inputs, PassTerms()))
        assert begun.wait(20)
        lane.close()
        flight.wait()
        with pytest.raises(EngineLostError):
            flight.done()
        server.unblocked.set()


def test_weights_that_changed_meanwhile_are_no_labels_of_this_worker():
    with engine("sglang") as server, opened(server) as forward:
        server.version = "v4"
        with pytest.raises(EngineLostError, match="weights are of version 'v4' now, and were of 'v3'"):
            forward(packed([6]), PassTerms())
    with engine("sglang") as server:  # an old one, that does not say
        server.version = None
        with opened(server) as forward:
            agree(forward(packed([6]), PassTerms()).packed, by_model(packed([6])))


def test_a_model_that_is_gone_is_no_fault_of_the_samples(server):
    with opened(server) as forward:
        server.faults.statuses = [404]
        with pytest.raises(EngineLostError, match="HTTP 404"):
            forward(packed([6]), PassTerms())
