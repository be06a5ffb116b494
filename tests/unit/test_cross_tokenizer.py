"""One text, cut by two tokenizers, and losses that need no common tokens."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edldist import losses
from edldist.errors import ConfigError, InputError
from edldist.labels.codec import parse_codec
from edldist.labels.typed import GatheredLabels
from edldist.vocabulary import align

LENGTH = 8


@st.composite
def tokenized(draw) -> list[tuple[int, int]]:
    """A text of LENGTH characters in tokens, some of which are special and empty."""
    inner = sorted(draw(st.sets(st.integers(1, LENGTH - 1))))
    tokens = list(pairwise([0, *inner, LENGTH]))
    for at in sorted(draw(st.lists(st.integers(0, len(tokens)), max_size=2)), reverse=True):
        tokens.insert(at, (0, 0))
    return tokens


def offsets(*rows: list[tuple[int, int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[(0, 0)] * (longest - len(row))] for row in rows])


def text_of(row: list[tuple[int, int]], spans: Tensor, number: int) -> list[tuple[int, int]]:
    return [row[i] for i in range(len(row)) if spans[i] == number]


@settings(deadline=None, max_examples=50)
@given(tokenized(), tokenized())
def test_tokens_meet_where_they_end_alike_and_spans_are_the_same_text(ours, theirs) -> None:
    found = align(offsets(ours), offsets(theirs))
    common = {end for start, end in ours if end > start} & {end for start, end in theirs if end > start}
    met = {(ours[i][1], theirs[int(at)][1]) for i, at in enumerate(found.teacher_at[0]) if at >= 0}
    assert met == {(end, end) for end in common} and int(found.mask.sum()) == len(common)
    for number in range(found.spans):
        sides = [
            text_of(ours, found.student_spans[0], number),
            text_of(theirs, found.teacher_spans[0], number),
        ]
        assert sides[0][0][0] == sides[1][0][0] and sides[0][-1][1] == sides[1][-1][1], "the same text"
        assert sides[0][-1][1] in common
    begun = ours[0][1] == 0 and theirs[0][1] == 0  # something stands before the text on either side
    assert found.spans == len(common) - (0 if begun else 1)
    assert found.student_spans.max() == found.teacher_spans.max() == found.spans - 1


def test_several_texts_are_numbered_through_and_may_have_nothing_in_common() -> None:
    ours = offsets([(0, 0), (0, 2), (2, 4)], [(0, 1), (1, 3)], [(0, 0)])
    theirs = offsets([(0, 0), (0, 1), (1, 4)], [(0, 3)], [(0, 2)])
    found = align(ours, theirs)
    assert found.teacher_at.tolist() == [[-1, -1, 2], [-1, 0, -1], [-1, -1, -1]]
    assert found.student_spans.tolist() == [[-1, 0, 0], [-1, -1, -1], [-1, -1, -1]]
    assert found.teacher_spans.tolist() == [[-1, 0, 0], [-1, -1, -1], [-1, -1, -1]]
    assert found.spans == 1


def test_a_character_of_several_tokens_ends_with_the_last_of_them() -> None:
    found = align(offsets([(0, 1), (0, 1), (1, 2)]), offsets([(0, 1), (1, 2)]))
    assert found.teacher_at.tolist() == [[-1, 0, 1]]


def test_labels_are_brought_to_the_student_s_positions() -> None:
    ours, theirs = offsets([(0, 2), (2, 3), (3, 4)]), offsets([(0, 1), (1, 2), (2, 4)])
    found = align(ours, theirs)
    logits = torch.arange(12.0).reshape(1, 3, 4)
    codec = parse_codec("topk:2")
    labels = codec.decode(codec.encode({"logits": logits}))
    brought = found.bring(labels | {"mask": torch.tensor([[True, True, False]])})
    assert brought["mask"].tolist() == [[True, False, False]]
    torch.testing.assert_close(brought["logits"].log_probs[0, 0], labels["logits"].log_probs[0, 1])
    torch.testing.assert_close(found.bring({"x": logits})["x"][0, 2], logits[0, 2])
    with pytest.raises(InputError, match=r"labels 'x' are \[1, 2, 4\], and the teacher's tokens \[1, 3\]"):
        found.bring({"x": logits[:, :2]})


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (torch.zeros(1, 2), torch.zeros(1, 2, 2, dtype=torch.int64), "the student's offsets are"),
        (offsets([(0, 1)]), offsets([(0, 1)], [(0, 1)]), "1 texts of the student, and 2 of the teacher"),
        (offsets([(0, 3), (0, 2)]), offsets([(0, 1)]), "text 0 of the student: token 1 ends at character 2"),
    ],
)
def test_what_cannot_be_aligned_is_named(ours, theirs, words) -> None:
    with pytest.raises(InputError, match=words):
        align(ours, theirs)


# --- losses ---------------------------------------------------------------------------------------------


def uld_by_hand(student: Tensor, teacher: Tensor, t: float) -> Tensor:
    p = F.softmax(teacher / t, -1).sort(-1, descending=True).values
    q = F.softmax(student / t, -1).sort(-1, descending=True).values
    longest = max(p.shape[-1], q.shape[-1])
    p, q = F.pad(p, (0, longest - p.shape[-1])), F.pad(q, (0, longest - q.shape[-1]))
    return (p - q).abs().sum(-1)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("ours", "theirs"), [(5, 9), (9, 5), (6, 6)])
@pytest.mark.parametrize("t", [1.0, 3.0])
def test_uld_and_its_gradient_are_those_of_the_definition(ours: int, theirs: int, t: float) -> None:
    student, teacher = randn(2, 3, ours).requires_grad_(), randn(2, 3, theirs, seed=1)
    mask = torch.tensor([[True, True, False], [True, False, True]])
    got = losses.uld(student, teacher, temperature=t, mask=mask)
    (grad,) = torch.autograd.grad(got, student)
    wanted = uld_by_hand(student, teacher, t)[mask].mean()
    (wanted_grad,) = torch.autograd.grad(wanted, student)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(grad, wanted_grad)
    assert torch.autograd.gradcheck(lambda x: losses.uld(x, teacher, temperature=t), student, fast_mode=True)


def test_uld_in_parts_is_that_at_once(monkeypatch) -> None:
    from edldist.losses import rows

    student, teacher = randn(7, 5).requires_grad_(), randn(7, 6, seed=1)
    wanted = losses.uld(student, teacher)
    (wanted_grad,) = torch.autograd.grad(wanted, student)
    monkeypatch.setattr(rows, "_AT_ONCE_CPU", 10)
    got = losses.uld(student, teacher)
    (grad,) = torch.autograd.grad(got, student)
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(grad, wanted_grad)


@pytest.mark.parametrize(("kept", "ours"), [(3, 8), (9, 8), (9, 5)])
def test_uld_of_kept_entries_is_over_these_and_the_rest(kept: int, ours: int) -> None:
    codec = parse_codec(f"topk:{kept}")
    labels = codec.decode(codec.encode({"logits": randn(4, 9, seed=1)}))["logits"]
    student = randn(4, ours).requires_grad_()
    got = losses.uld(student, labels, reduction="none")
    q = F.softmax(student, -1).sort(-1, descending=True).values[:, :kept]
    q = F.pad(q, (0, kept - q.shape[-1]))
    p, tail = labels.log_probs.double().exp(), labels.log_tail.double().exp()
    wanted = (p - q).abs().sum(-1) + (tail - (1 - q.sum(-1))).abs()
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-7)
    (grad,) = torch.autograd.grad(got.sum(), student)
    (wanted_grad,) = torch.autograd.grad(wanted.sum(), student)
    torch.testing.assert_close(grad, wanted_grad, rtol=1e-5, atol=1e-7)


def test_uld_is_nothing_between_models_that_hesitate_alike() -> None:
    logits = randn(4, 6)
    assert losses.uld(logits[:, [3, 1, 5, 0, 2, 4]], logits).item() < 1e-12


def spans_case(seed: int = 0) -> tuple[Tensor, Tensor, GatheredLabels, Tensor, Tensor, int]:
    ours = offsets([(0, 0), (0, 2), (2, 3), (3, 4)], [(0, 1), (1, 2), (2, 3), (3, 4)])
    theirs = offsets([(0, 0), (0, 1), (1, 3), (3, 4)], [(0, 0), (0, 2), (2, 4)])
    found = align(ours, theirs)
    told = -randn(2, 4, 1, seed=seed + 1).abs()
    logits, ids = randn(2, 4, 7, seed=seed), torch.tensor([[1, 2, 3, 4], [6, 5, 4, 3]])
    labels = GatheredLabels(told, torch.zeros(2, 4))
    return logits, ids, labels, found.student_spans, found.teacher_spans, found.spans


@pytest.mark.parametrize("tau", [1.0, 10.0])
def test_span_likelihood_and_its_gradient_are_those_of_the_definition(tau: float) -> None:
    logits, ids, labels, ours, theirs, spans = spans_case()
    logits.requires_grad_()
    assert spans == 3
    log_q = F.log_softmax(logits, -1)
    q, p = [], []
    for number in range(spans):
        q.append(sum(log_q[b, s - 1, ids[b, s]] for b, s in (ours == number).nonzero().tolist()))
        p.append(sum(labels.log_probs[b, s - 1, 0] for b, s in (theirs == number).nonzero().tolist()))
    p, q = (torch.stack(each).div(tau).exp() for each in (p, q))
    wanted = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    got = losses.span_likelihood(logits, ids, labels, ours, theirs, spans, tau=tau, reduction="none")
    torch.testing.assert_close(got, wanted)
    (grad,) = torch.autograd.grad(got.mean(), logits)
    (wanted_grad,) = torch.autograd.grad(wanted.mean(), logits)
    torch.testing.assert_close(grad, wanted_grad)
    torch.testing.assert_close(
        losses.span_likelihood(logits, ids, labels, ours, theirs, spans, tau=tau), wanted.mean()
    )
    assert torch.autograd.gradcheck(
        lambda x: losses.span_likelihood(x, ids, labels, ours, theirs, spans, tau=tau), logits, fast_mode=True
    )


def test_a_span_of_which_the_teacher_told_a_part_does_not_count() -> None:
    logits, ids, labels, ours, theirs, spans = spans_case()
    each = losses.span_likelihood(logits, ids, labels, ours, theirs, spans, reduction="none")
    labels.log_probs[0, 2, 0] = torch.nan  # of token 3, alone in span 1
    got = losses.span_likelihood(logits, ids, labels, ours, theirs, spans, reduction="none")
    assert got.tolist() == [each[0], 0.0, each[2]]
    mean = losses.span_likelihood(logits, ids, labels, ours, theirs, spans)
    torch.testing.assert_close(mean, (each[0] + each[2]) / 2)


def test_a_text_that_is_certain_is_finite() -> None:
    logits, ids, labels, ours, theirs, spans = spans_case()
    sure = F.one_hot(torch.roll(ids, -1, 1), 7).double() * 200
    sure.requires_grad_()
    loss = losses.span_likelihood(
        sure, ids, GatheredLabels(labels.log_probs * 0, labels.log_outside), ours, theirs, spans
    )
    (grad,) = torch.autograd.grad(loss, sure)
    assert loss.isfinite() and grad.isfinite().all()


def test_labels_that_cannot_serve_are_refused() -> None:
    logits, ids, labels, ours, theirs, spans = spans_case()
    with pytest.raises(ConfigError, match="which do not tell the largest probabilities"):
        losses.uld(logits, labels)
    with pytest.raises(ConfigError, match="take codec gather"):
        losses.span_likelihood(logits, ids, logits, ours, theirs, spans)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tau=0"):
        losses.span_likelihood(logits, ids, labels, ours, theirs, spans, tau=0)
    with pytest.raises(InputError, match="one for each token"):
        losses.span_likelihood(logits, ids, labels, ours, theirs[:, :2], spans)
    with pytest.raises(InputError, match="bring them to the student's first"):
        losses.uld(logits, logits[:, :2])
    with pytest.raises(InputError, match=r"id 9 at position \[0, 0\]"):
        wrong = ids.clone()
        wrong[0, 1] = 9
        losses.span_likelihood(logits, wrong, labels, ours, theirs, spans)
