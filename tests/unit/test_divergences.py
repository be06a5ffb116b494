"""Losses of distributions against their definitions in float64, for every kind of labels that can serve
them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from edldist import losses
from edldist.errors import ConfigError, InputError
from edldist.labels.typed import GatheredLabels, HiddenLabels, SampledLabels, TopKLabels
from edldist.losses import rows as rows_module
from tests.unit.loss_cases import randn

V, D, K = 11, 6, 4
T = 2.5

Formula = Callable[[Tensor, Tensor], Tensor]


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return torch.where(p > 0, p * (p / q).log(), 0.0).sum(-1)


def _js(p: Tensor, q: Tensor, beta: float) -> Tensor:
    m = beta * p + (1 - beta) * q
    return beta * _kl(p, m) + (1 - beta) * _kl(q, m)


CASES: dict[str, tuple[Callable[..., Tensor], Formula]] = {
    "kd": (lambda s, x, **o: losses.kd(s, x, alpha=1.0, **o), _kl),
    "forward": (losses.forward_kl, _kl),
    "reverse": (losses.reverse_kl, lambda p, q: _kl(q, p)),
    "js 0": (lambda s, x, **o: losses.jensen_shannon(s, x, beta=0.0, **o), _kl),
    "js 0.3": (lambda s, x, **o: losses.jensen_shannon(s, x, beta=0.3, **o), lambda p, q: _js(p, q, 0.3)),
    "js 1": (lambda s, x, **o: losses.jensen_shannon(s, x, beta=1.0, **o), lambda p, q: _kl(q, p)),
    "skewed": (losses.skewed_kl, lambda p, q: _kl(p, 0.1 * p + 0.9 * q)),
    "skewed reverse": (
        lambda s, x, **o: losses.skewed_kl(s, x, alpha=0.4, reverse=True, **o),
        lambda p, q: _kl(q, 0.4 * q + 0.6 * p),
    ),
}


@pytest.fixture(params=CASES)
def case(request) -> tuple[Callable[..., Tensor], Formula]:
    return CASES[request.param]


@pytest.fixture(params=["at once", "in parts"])
def parts(request, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All rows together, or two at a time."""
    if request.param == "in parts":
        monkeypatch.setattr(rows_module, "_AT_ONCE_CPU", 2 * V)
        monkeypatch.setattr(rows_module, "_AT_ONCE_PRODUCT", 2 * V)
    yield


def _softmax(logits: Tensor, temperature: float = T) -> Tensor:
    return (logits / temperature).softmax(-1)


def _top_k(teacher: Tensor, k: int = K, temperature: float = T) -> TopKLabels:
    p, ids = _softmax(teacher, temperature).topk(k)
    return TopKLabels(ids, p.log(), (1.0 - p.sum(-1)).log(), teacher.shape[-1], temperature)


def _coarse(p: Tensor, ids: Tensor) -> Tensor:
    kept = p.gather(-1, ids)
    return torch.cat([kept, (1.0 - kept.sum(-1)).unsqueeze(-1)], -1)


def _agree(got: Tensor, leaves: list[Tensor], wanted: Tensor) -> None:
    """Both losses, and their gradients for a weighted sum of the positions."""
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)
    weights = torch.linspace(0.5, 2.0, got.numel(), dtype=got.dtype).reshape(got.shape)
    mine = torch.autograd.grad((got * weights).sum(), leaves)
    others = torch.autograd.grad((wanted * weights).sum(), leaves, retain_graph=True)
    for one, other in zip(mine, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


@pytest.mark.usefixtures("parts")
class TestDefinitions:
    def test_logits(self, generator: torch.Generator, case: Any) -> None:
        loss, formula = case
        student, teacher = 2 * randn(generator, 3, 2, V), 2 * randn(generator, 3, 2, V)
        student.requires_grad_()
        wanted = T**2 * formula(_softmax(teacher), _softmax(student))
        _agree(loss(student, teacher, temperature=T, reduction="none"), [student], wanted)

    def test_logits_that_are_made_from_hidden_states(self, generator: torch.Generator, case: Any) -> None:
        loss, formula = case
        hidden, weight, bias = randn(generator, 5, D), randn(generator, V, D), randn(generator, V)
        leaves = [tensor.requires_grad_() for tensor in (hidden, weight, bias)]
        teacher = randn(generator, 5, V)
        wanted = T**2 * formula(_softmax(teacher), _softmax(F.linear(*leaves)))
        got = loss(losses.Projection(*leaves), teacher, temperature=T, reduction="none")
        _agree(got, leaves, wanted)

    def test_the_teachers_hidden_states(self, generator: torch.Generator, case: Any) -> None:
        loss, formula = case
        student = randn(generator, 5, V).requires_grad_()
        hidden = randn(generator, 5, D, dtype=torch.bfloat16)
        head = losses.Head(randn(generator, V, D), randn(generator, V))
        teacher = F.linear(hidden.double(), head.weight, head.bias)
        labels = HiddenLabels(hidden, head.digest)
        wanted = T**2 * formula(_softmax(teacher), _softmax(student))
        got = loss(student, labels, temperature=T, reduction="none", teacher_head=head)
        _agree(got, [student], wanted)

    def test_the_top_classes_and_one_for_all_others(self, generator: torch.Generator, case: Any) -> None:
        loss, formula = case
        student, teacher = (2 * randn(generator, 5, V)).requires_grad_(), 2 * randn(generator, 5, V)
        labels = _top_k(teacher)
        wanted = T**2 * formula(
            _coarse(_softmax(teacher), labels.ids), _coarse(_softmax(student), labels.ids)
        )
        _agree(loss(student, labels, temperature=T, reduction="none"), [student], wanted)

    def test_classes_that_a_nucleus_leaves_out_are_among_the_others(
        self, generator: torch.Generator, case: Any
    ) -> None:
        loss, _ = case
        student, teacher = randn(generator, 5, V).requires_grad_(), randn(generator, 5, V)
        narrow, wide = _top_k(teacher, 2), _top_k(teacher, K)
        out = torch.arange(K) >= 2
        nucleus = TopKLabels(wide.ids, wide.log_probs.masked_fill(out, -torch.inf), narrow.log_tail, V, T)
        mine, theirs = (loss(student, x, temperature=T, reduction="none") for x in (nucleus, narrow))
        _agree(mine, [student], theirs)

    def test_all_classes_kept_are_the_whole_distribution(self, generator: torch.Generator, case: Any) -> None:
        loss, formula = case
        student, teacher = randn(generator, 5, V).requires_grad_(), randn(generator, 5, V)
        p, ids = _softmax(teacher).topk(V)
        labels = TopKLabels(ids, p.log(), torch.full((5,), -torch.inf, dtype=p.dtype), V, T)
        wanted = T**2 * formula(_softmax(teacher), _softmax(student))
        _agree(loss(student, labels, temperature=T, reduction="none"), [student], wanted)

    def test_draws_are_on_average_the_cross_entropy(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 5, V).requires_grad_(), randn(generator, 5, V)
        p = _softmax(teacher)
        drawn = SampledLabels(torch.arange(V).expand(5, V), p, 0, V, T)  # all draws, by their chance
        wanted = -(T**2) * (p * _softmax(student).log()).sum(-1)
        _agree(losses.forward_kl(student, drawn, temperature=T, reduction="none"), [student], wanted)
        _agree(losses.kd(student, drawn, alpha=1.0, temperature=T, reduction="none"), [student], wanted)
        got = losses.jensen_shannon(student, drawn, beta=0.0, reduction="none")
        _agree(got, [student], wanted)

    def test_what_is_cut_off_goes_to_the_true_token(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 5, V).requires_grad_(), randn(generator, 5, V)
        labels, gold = _top_k(teacher), torch.tensor([0, 3, 10, 5, 5])
        p = torch.zeros(5, V, dtype=torch.float64).scatter(-1, labels.ids, labels.log_probs.exp())
        p[torch.arange(5), gold] += labels.log_tail.exp()
        wanted = -(T**2) * (p * _softmax(student).log()).sum(-1)
        _agree(losses.residual_to_gold(student, labels, gold, reduction="none"), [student], wanted)
        some = gold.index_fill(0, torch.tensor([1]), -100)
        ignored = losses.residual_to_gold(student, labels, some, reduction="none")
        torch.testing.assert_close(ignored, wanted.index_fill(0, torch.tensor([1]), 0.0))

    @pytest.mark.parametrize("form", ["logits", "gather", "hidden"])
    def test_drawn_tokens_are_on_average_the_reverse_divergence(
        self, generator: torch.Generator, form: str
    ) -> None:
        hidden = randn(generator, 5, D, dtype=torch.bfloat16)
        head = losses.Head(randn(generator, V, D))
        teacher = F.linear(hidden.double(), head.weight)
        student = randn(generator, 5, V).requires_grad_()
        ids = torch.arange(V).expand(5, V)
        labels: Any = {
            "logits": teacher,
            "gather": GatheredLabels(teacher.log_softmax(-1), torch.full((5,), -torch.inf)),
            "hidden": HiddenLabels(hidden, head.digest),
        }[form]
        options = {"teacher_head": head} if form == "hidden" else {}
        # Each token by itself, then their mean by the student's own chances.
        q = student.detach().softmax(-1)
        each = torch.stack(
            [
                losses.policy_gradient(
                    student,
                    GatheredLabels(labels.log_probs[:, i : i + 1], labels.log_outside)
                    if form == "gather"
                    else labels,
                    ids[:, i],
                    reduction="none",
                    **options,
                )
                for i in range(V)
            ],
            dim=-1,
        )
        _agree((q * each).sum(-1), [student], losses.reverse_kl(student, teacher, reduction="none"))
        together = losses.policy_gradient(student, labels, ids, reduction="none", **options)
        torch.testing.assert_close(together, each.mean(-1))

    def test_tokens_of_an_earlier_student_count_by_the_ratio(self, generator: torch.Generator) -> None:
        student, teacher, earlier = (randn(generator, 5, V) for _ in range(3))
        student.requires_grad_()
        ids = torch.arange(V).expand(5, V)
        then = earlier.log_softmax(-1)
        each = torch.stack(
            [
                losses.policy_gradient(
                    student, teacher, ids[:, i], drawn_log_probs=then[:, i], reduction="none"
                )
                for i in range(V)
            ],
            dim=-1,
        )
        _agree((then.exp() * each).sum(-1), [student], losses.reverse_kl(student, teacher, reduction="none"))


@pytest.mark.usefixtures("parts")
class TestMasks:
    @pytest.mark.parametrize("form", ["logits", "topk", "rs", "hidden", "gold", "gather"])
    def test_what_does_not_count_may_hold_anything(self, generator: torch.Generator, form: str) -> None:
        student = randn(generator, 5, V)
        mask = torch.tensor([True, False, True, False, True])
        teacher, hidden = randn(generator, 5, V), randn(generator, 5, D, dtype=torch.bfloat16)
        head, ids = losses.Head(randn(generator, V, D)), torch.randint(V, (5, 2), generator=generator)
        top, gold = _top_k(teacher), torch.randint(V, (5,), generator=generator)
        nan = torch.nan

        def run(broken: bool) -> tuple[Tensor, Tensor]:
            def spoiled(tensor: Tensor, by: float) -> Tensor:
                tensor = tensor.clone()
                if broken:
                    tensor[~mask] = by
                return tensor

            mine = spoiled(student, nan).requires_grad_()
            if form == "logits":
                loss = losses.reverse_kl(mine, spoiled(teacher, nan), mask=mask)
            elif form == "topk":
                labels = TopKLabels(
                    spoiled(top.ids, 10**6), spoiled(top.log_probs, nan), spoiled(top.log_tail, nan), V, T
                )
                loss = losses.jensen_shannon(mine, labels, mask=mask)
            elif form == "rs":
                drawn = SampledLabels(spoiled(ids, -7), spoiled(torch.full((5, 2), 0.5), nan), 0, V)
                loss = losses.forward_kl(mine, drawn, mask=mask)
            elif form == "hidden":
                states = HiddenLabels(spoiled(hidden, nan), head.digest)
                loss = losses.skewed_kl(mine, states, teacher_head=head, mask=mask)
            elif form == "gold":
                loss = losses.residual_to_gold(mine, top, spoiled(gold, 10**6), mask=mask)
            else:
                told = GatheredLabels(spoiled(teacher[:, :2], nan), teacher[:, 0])
                loss = losses.policy_gradient(mine, told, spoiled(ids, -1), mask=mask)
            (grad,) = torch.autograd.grad(loss, mine)
            return loss, grad

        whole, broken = run(False), run(True)
        torch.testing.assert_close(broken[0], whole[0], rtol=0, atol=0)
        torch.testing.assert_close(broken[1][mask], whole[1][mask], rtol=0, atol=0)
        assert (broken[1][~mask] == 0).all() and (whole[1][~mask] == 0).all()

    def test_nothing_that_counts_is_a_loss_of_0(self) -> None:
        student = torch.randn(4, V, requires_grad=True)
        loss = losses.reverse_kl(student, torch.randn(4, V), mask=torch.zeros(4, dtype=torch.bool))
        loss.backward()
        assert loss == 0 and student.grad is not None and (student.grad == 0).all()
        count = losses.mean_count(torch.zeros(4, dtype=torch.bool))
        assert (
            losses.reverse_kl(student, torch.randn(4, V), mask=torch.zeros(4, dtype=torch.bool), count=count)
            == 0
        )

    def test_an_empty_batch_is_a_loss_of_0(self) -> None:
        student = torch.randn(0, V, requires_grad=True)
        losses.forward_kl(student, _top_k(torch.randn(0, V))).backward()
        assert student.grad is not None and student.grad.shape == (0, V)

    def test_a_count_replaces_the_number_of_positions(self, generator: torch.Generator) -> None:
        student, teacher = randn(generator, 6, V), randn(generator, 6, V)
        mask = torch.arange(6) < 4
        total = losses.forward_kl(student, teacher, mask=mask, reduction="sum")
        for count in (8, torch.tensor(8.0)):
            torch.testing.assert_close(losses.forward_kl(student, teacher, mask=mask, count=count), total / 8)
        assert losses.mean_count(mask) == 4
        assert losses.kd(student, teacher, alpha=1.0, mask=mask, count=4) == losses.kd(
            student, teacher, alpha=1.0, mask=mask
        )


class TestExtremes:
    def test_impossible_classes_add_nothing_where_both_sides_agree(self) -> None:
        student = torch.tensor([[0.0, -torch.inf, 1.0]], requires_grad=True)
        teacher = torch.tensor([[1.0, -torch.inf, 0.0]])
        for loss in (losses.forward_kl, losses.reverse_kl, losses.jensen_shannon, losses.skewed_kl):
            got = loss(student, teacher)
            (grad,) = torch.autograd.grad(got, student)
            two = loss(student.detach()[:, [0, 2]], teacher[:, [0, 2]])
            torch.testing.assert_close(got.detach(), two)
            assert grad.isfinite().all()

    def test_a_nan_of_the_teacher_shows(self) -> None:
        teacher = torch.zeros(2, V)
        teacher[1, 3] = torch.nan
        for loss in (losses.forward_kl, losses.reverse_kl, losses.jensen_shannon, losses.skewed_kl):
            assert loss(torch.zeros(2, V), teacher).isnan()

    def test_a_tail_that_float32_would_lose_is_kept(self) -> None:
        # The student gives the rest 3e-9: 1 - sum would give 0, and a logarithm of -inf.
        student = torch.tensor([[20.0, *(0.0,) * 10]], requires_grad=True)
        labels = TopKLabels(torch.tensor([[0]]), torch.tensor([[0.5]]).log(), torch.tensor([0.5]).log(), V)
        loss = losses.forward_kl(student, labels)
        loss.backward()
        tail = math.log(10) - 20.0
        assert loss.item() == pytest.approx(0.5 * math.log(0.5) + 0.5 * (math.log(0.5) - tail), rel=1e-5)
        assert student.grad is not None and student.grad.isfinite().all()

    def test_half_precision_logits_have_gradients_of_their_dtype(self, monkeypatch) -> None:
        monkeypatch.setattr(rows_module, "_AT_ONCE_CPU", 2 * V)
        student = torch.randn(5, V, dtype=torch.bfloat16, requires_grad=True)
        losses.forward_kl(student, torch.randn(5, V)).backward()
        assert student.grad is not None and student.grad.dtype == torch.bfloat16


def test_a_gradient_that_is_scaled_in_place_is_given_once(monkeypatch) -> None:
    monkeypatch.setattr(rows_module, "_AT_ONCE_CPU", 2 * V)
    student = torch.randn(5, V, requires_grad=True)
    loss = losses.forward_kl(student, torch.randn(5, V))
    torch.autograd.grad(loss, student, retain_graph=True)
    with pytest.raises(RuntimeError, match="asked for twice.*Add up the losses first"):
        torch.autograd.grad(loss, student)


def test_without_a_gradient_none_is_made(monkeypatch) -> None:
    monkeypatch.setattr(rows_module, "_AT_ONCE_CPU", 2 * V)
    student = torch.randn(5, V)
    with _Largest() as largest:
        loss = losses.forward_kl(student, student)
    assert loss == 0 and not loss.requires_grad
    assert "aten.empty_like.default" not in [name for name, _ in largest.made]


class _Largest(TorchDispatchMode):
    """Sizes of the tensors that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        inputs = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.untyped_storage().data_ptr() not in inputs:
            self.made.append((str(func), out.numel()))
        return out


@pytest.mark.parametrize("projected", [False, True])
def test_no_softmax_of_all_rows_is_ever_in_memory(monkeypatch, projected: bool) -> None:
    monkeypatch.setattr(rows_module, "_AT_ONCE_CPU", 4 * 512)
    monkeypatch.setattr(rows_module, "_AT_ONCE_PRODUCT", 4 * 512)
    hidden, weight = torch.randn(64, 16, requires_grad=True), torch.randn(512, 16, requires_grad=True)
    student: Any = losses.Projection(hidden, weight)
    if not projected:
        student = torch.randn(64, 512, requires_grad=True)
    with _Largest() as largest:
        losses.jensen_shannon(student, torch.randn(64, 512)).backward()
    large = [name for name, size in largest.made if size >= 64 * 512 and "randn" not in name]
    # The gradient of logits that were there is as large as they, and the only such tensor.
    assert large == ([] if projected else ["aten.empty_like.default"])
    assert (
        max(size for name, size in largest.made if name != "aten.empty_like.default" and "randn" not in name)
        <= 8192
    )


class TestRefusals:
    def test_labels_that_would_be_biased_are_refused_with_the_reason(self) -> None:
        student = torch.zeros(2, V)
        drawn = SampledLabels(torch.zeros(2, 3, dtype=torch.int64), torch.full((2, 3), 1 / 3), 0, V)
        gathered = GatheredLabels(torch.zeros(2, 1), torch.zeros(2))
        for loss in (losses.reverse_kl, losses.jensen_shannon, losses.skewed_kl):
            with pytest.raises(ConfigError, match="rs or head.rs cannot serve it: it needs"):
                loss(student, drawn)
        for loss in (losses.forward_kl, losses.reverse_kl, losses.jensen_shannon, losses.skewed_kl):
            with pytest.raises(ConfigError, match="gather tell .* biased"):
                loss(student, gathered)
        with pytest.raises(ConfigError, match="gather tell"):
            losses.kd(student, gathered, alpha=1.0)
        for labels in (drawn, _top_k(torch.zeros(2, V))):
            with pytest.raises(ConfigError, match="the student may draw others.*gather"):
                losses.policy_gradient(student, labels, torch.zeros(2, dtype=torch.int64))
        other: Any
        for other in (drawn, gathered, student):
            with pytest.raises(ConfigError, match="of which nothing was cut off"):
                losses.residual_to_gold(student, other, torch.zeros(2, dtype=torch.int64))

    def test_another_temperature_than_that_of_the_labels_is_refused(self) -> None:
        labels = _top_k(torch.zeros(2, V), temperature=2.0)
        with pytest.raises(ConfigError, match=r"temperature=4, and .* probabilities at 2.*topk:K:4"):
            losses.kd(torch.zeros(2, V), labels, alpha=1.0, temperature=4.0)
        student = torch.randn(2, V)
        assert losses.kd(student, labels, alpha=1.0) == losses.kd(student, labels, alpha=1.0, temperature=2.0)
        told = GatheredLabels(torch.zeros(2, 1), torch.zeros(2), temperature=2.0)
        with pytest.raises(ConfigError, match="at temperature 2, and the student draws at 1"):
            losses.policy_gradient(torch.zeros(2, V), told, torch.zeros(2, dtype=torch.int64))

    def test_another_vocabulary_is_refused_with_both_sizes(self) -> None:
        with pytest.raises(InputError, match="12 entries, and the labels are of a vocabulary of 11"):
            losses.forward_kl(torch.zeros(2, 12), _top_k(torch.zeros(2, V)))
        with pytest.raises(InputError, match=r"shape \[3, 11\], and there are labels of positions \[2\]"):
            losses.forward_kl(torch.zeros(3, V), _top_k(torch.zeros(2, V)))

    def test_heads_that_are_missing_or_do_not_fit_are_refused(self) -> None:
        hidden, student = HiddenLabels(torch.zeros(2, D), ""), torch.zeros(2, V)
        with pytest.raises(ConfigError, match="give the teacher's head"):
            losses.forward_kl(student, hidden)
        with pytest.raises(ConfigError, match="no hidden states: leave it out"):
            losses.forward_kl(student, student, teacher_head=losses.Head(torch.zeros(V, D)))
        with pytest.raises(InputError, match=r"head of shape \[11, 7\].*hidden states of 6"):
            losses.forward_kl(student, hidden, teacher_head=losses.Head(torch.zeros(V, D + 1)))
        with pytest.raises(InputError, match="teacher_head is a Tensor: give losses.Head"):
            losses.forward_kl(student, hidden, teacher_head=torch.zeros(V, D))  # type: ignore[arg-type]
        with pytest.raises(InputError, match="is not the head of the teacher.*theirs another"):
            head = losses.Head(torch.zeros(V, D))
            losses.forward_kl(student, HiddenLabels(torch.zeros(2, D), "another"), teacher_head=head)
        with pytest.raises(InputError, match="last dimension must be 7"):
            losses.Projection(torch.zeros(2, D), torch.zeros(V, D + 1))
        with pytest.raises(InputError, match=r"bias has shape \[3\]"):
            losses.Head(torch.zeros(V, D), torch.zeros(3))
        with pytest.raises(InputError, match=r"weight is \[11\]"):
            losses.Head(torch.zeros(V))

    @pytest.mark.parametrize(
        ("call", "error", "says"),
        [
            (
                lambda s: losses.jensen_shannon(s, s, beta=1.5),
                ConfigError,
                "beta=1.5 must be a number from 0 to 1",
            ),
            (lambda s: losses.skewed_kl(s, s, alpha=1.0), ConfigError, "compares a distribution with itself"),
            (lambda s: losses.skewed_kl(s, s, alpha=-1), ConfigError, "alpha=-1"),
            (lambda s: losses.forward_kl(s, s, temperature=0.0), ConfigError, "temperature=0.0"),
            (lambda s: losses.forward_kl(s, s, reduction="max"), ConfigError, "reduction='max'"),
            (lambda s: losses.forward_kl(s, s, reduction="sum", count=3), ConfigError, "count has no use"),
            (
                lambda s: losses.forward_kl(s, s, count=0),
                ConfigError,
                "count=0 must be a finite number above 0",
            ),
            (lambda s: losses.forward_kl(s, s, count=torch.ones(2)), InputError, r"count has shape \[2\]"),
            (lambda s: losses.forward_kl(s, s, mask=torch.ones(2)), InputError, "the mask is torch.float32"),
            (lambda s: losses.forward_kl(s, s[:1]), InputError, "must agree"),
            (lambda s: losses.forward_kl(s, "x"), InputError, "the teacher's logits are str"),
            (lambda s: losses.forward_kl("x", s), InputError, "the student's logits are str"),
            (lambda s: losses.forward_kl("x", _top_k(s)), InputError, "the student's logits are str"),
            (lambda s: losses.forward_kl(s.long(), _top_k(s)), InputError, "must be floating point"),
            (lambda s: losses.mean_count(s), InputError, "the mask is torch.float32"),
            (
                lambda s: losses.policy_gradient(s, s, torch.zeros(3, dtype=torch.int64)),
                InputError,
                "ids has shape",
            ),
            (lambda s: losses.policy_gradient(s, s, s[:, 0]), InputError, "ids are torch.float32"),
            (lambda s: losses.policy_gradient(s, s, None), InputError, "ids is NoneType"),
            (
                lambda s: losses.policy_gradient(s, s, s[:, 0].long(), drawn_log_probs=s[:, :2]),
                InputError,
                r"drawn_log_probs has shape \[2, 2\], ids \[2, 1\]",
            ),
            (
                lambda s: losses.policy_gradient(s, GatheredLabels(s[:, :3], s[:, 0]), s[:, :2].long()),
                InputError,
                "give the ids that the teacher was sent",
            ),
            (
                lambda s: losses.residual_to_gold(s, _top_k(s), s),
                ConfigError,
                "must be the indices of true tokens",
            ),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, call: Any, error: type[Exception], says: str) -> None:
        with pytest.raises(error, match=says):
            call(torch.zeros(2, V))
