"""Candidates drawn by Plackett and Luce: against definitions in float64, and over all sets there are."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from edldist import losses
from edldist.errors import ConfigError, InputError
from edldist.losses import candidate_gradient, draw_candidates, inclusion_log_probs

ITEMS, SIZE = 5, 3
DRAWS = list(itertools.permutations(range(ITEMS), SIZE))


def logits_of(seed: int, items: int = ITEMS, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(items, generator=generator, dtype=torch.float64)


def chance_of(logits: Tensor, draw: tuple[int, ...]) -> Tensor:
    """The definition: each item's share of the weight that is left."""
    weights, left, chance = logits.exp(), logits.exp().sum(), torch.ones((), dtype=torch.float64)
    for item in draw:
        chance = chance * weights[item] / left
        left = left - weights[item]
    return chance


def included(logits: Tensor, item: int, others: tuple[int, ...], size: int = SIZE) -> Tensor:
    """The definition: 1 - prod_k (1 - p_k), where the others come in this order."""
    weights, left, missed = logits.exp(), logits.exp().sum(), torch.ones((), dtype=torch.float64)
    for place in range(size):
        missed = missed * (1 - weights[item] / left)
        if place + 1 < size:
            left = left - weights[others[place]]
    return 1 - missed


def marginal(logits: Tensor, item: int) -> Tensor:
    return torch.stack([chance_of(logits, draw) for draw in DRAWS if item in draw]).sum()


@pytest.mark.parametrize("seed", range(5))
def test_a_candidate_is_included_as_defined_wherever_it_was_drawn(seed):
    logits = logits_of(seed)
    for draw in DRAWS:
        told = inclusion_log_probs(logits, torch.tensor(draw))
        for place, item in enumerate(draw):
            others = draw[:place] + draw[place + 1 :]
            expected = included(logits, item, others).log()
            torch.testing.assert_close(told[place], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_over_all_orders_of_the_others_it_is_the_probability_to_be_in_a_set(seed):
    logits = logits_of(seed)
    for item in range(ITEMS):
        rest = [other for other in range(ITEMS) if other != item]
        among = logits.clone()
        among[item] = -torch.inf
        mean = torch.zeros((), dtype=torch.float64)
        for others in itertools.permutations(rest, SIZE - 1):
            told = inclusion_log_probs(logits, torch.tensor((*others, item)))[-1]
            mean = mean + chance_of(among, others) * told.exp()
        torch.testing.assert_close(mean, marginal(logits, item), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_by_a_candidates_own_logit_is_unbiased(seed):
    """Of rewards that each candidate brings whoever the others are; over all draws there are."""
    logits = logits_of(seed).requires_grad_()
    rewards = logits_of(100 + seed).abs()
    for item in range(ITEMS):
        (expected,) = torch.autograd.grad(rewards[item] * marginal(logits, item), logits)
        found = torch.zeros((), dtype=torch.float64)
        for draw in DRAWS:
            brought = torch.tensor([rewards[each] if each == item else 0.0 for each in draw])
            loss = candidate_gradient(logits, torch.tensor(draw), brought.double(), reduction="sum")
            (gradient,) = torch.autograd.grad(loss, logits)
            found -= chance_of(logits.detach(), draw) * gradient[item]
        torch.testing.assert_close(found, expected[item], rtol=1e-10, atol=1e-12)


def test_the_gradient_of_whole_sets_is_unbiased_whatever_the_reward_is():
    logits = logits_of(7).requires_grad_()
    rewards = {draw: logits_of(sum(place * item for place, item in enumerate(draw)), SIZE) for draw in DRAWS}
    value = torch.stack([chance_of(logits, draw) * rewards[draw].sum() for draw in DRAWS]).sum()
    (expected,) = torch.autograd.grad(value, logits)
    found = torch.zeros(ITEMS, dtype=torch.float64)
    for draw in DRAWS:
        loss = candidate_gradient(logits, torch.tensor(draw), rewards[draw], credit="set", reduction="sum")
        (gradient,) = torch.autograd.grad(loss, logits)
        found -= chance_of(logits.detach(), draw) * gradient
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_set_is_as_likely_as_defined():
    logits = logits_of(3)
    told = -candidate_gradient(
        logits.expand(len(DRAWS), -1),
        torch.tensor(DRAWS),
        torch.ones(len(DRAWS), SIZE, dtype=torch.float64) / SIZE,
        credit="set",
        reduction="none",
    )
    expected = torch.stack([chance_of(logits, draw) for draw in DRAWS]).log()
    torch.testing.assert_close(told, expected, rtol=1e-12, atol=1e-12)
    assert told.exp().sum().item() == pytest.approx(1.0)


def test_candidates_are_drawn_as_often_as_they_are_likely():
    logits = logits_of(1)
    generator = torch.Generator().manual_seed(5)
    drawn = draw_candidates(logits.expand(60_000, -1), SIZE, generator)
    assert drawn.shape == (60_000, SIZE) and drawn.dtype == torch.int64
    codes = (drawn * torch.tensor([25, 5, 1])).sum(-1).bincount(minlength=125)
    for draw in DRAWS:
        chance = chance_of(logits, draw).item()
        error = math.sqrt(chance * (1 - chance) / 60_000)
        assert abs(codes[draw[0] * 25 + draw[1] * 5 + draw[2]] / 60_000 - chance) < 5 * error
    again = draw_candidates(logits.expand(60_000, -1), SIZE, torch.Generator().manual_seed(5))
    assert torch.equal(drawn, again)


def test_gradients_are_those_of_finite_differences():
    logits = torch.stack([logits_of(1, 7), logits_of(2, 7, 4.0)]).requires_grad_()
    candidates = torch.tensor([[3, 0, 6, 1], [2, 5, 4, 0]])
    rewards = logits_of(4, 8).view(2, 4)
    for credit in ("inclusion", "set"):
        assert torch.autograd.gradcheck(
            lambda x, credit=credit: candidate_gradient(x, candidates, rewards, credit=credit), logits
        )


@pytest.mark.parametrize("credit", ["inclusion", "set"])
@pytest.mark.parametrize("spread", [1.0, 30.0, 500.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_they_are_finite_whatever_the_logits_are(credit, spread, dtype):
    logits = (spread * torch.randn(8, 40, generator=torch.Generator().manual_seed(2))).to(dtype)
    candidates = draw_candidates(logits, 10, torch.Generator().manual_seed(3))
    leaf = logits.clone().requires_grad_()
    loss = candidate_gradient(leaf, candidates, torch.ones(8, 10), credit=credit)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and leaf.grad.isfinite().all()
    wide = logits.double().requires_grad_()
    exact = candidate_gradient(wide, candidates, torch.ones(8, 10), credit=credit)
    exact.backward()
    torch.testing.assert_close(loss.double(), exact.detach(), rtol=1e-4, atol=1e-4 + 1e-6 * spread)
    torch.testing.assert_close(leaf.grad.double(), wide.grad, rtol=1e-2, atol=1e-3)


def test_a_set_of_all_items_is_certain_and_teaches_nothing():
    logits = logits_of(1).requires_grad_()
    everything = torch.tensor([3, 1, 0, 4, 2])
    assert inclusion_log_probs(logits, everything).tolist() == [0.0] * ITEMS
    candidate_gradient(logits, everything, torch.ones(ITEMS, dtype=torch.float64)).backward()
    assert logits.grad.tolist() == [0.0] * ITEMS
    whole = candidate_gradient(logits, everything, torch.ones(ITEMS).double() / ITEMS, credit="set")
    torch.testing.assert_close(-whole, chance_of(logits, (3, 1, 0, 4, 2)).log())


@pytest.mark.parametrize("credit", ["inclusion", "set"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_items_that_may_not_be_drawn_are_as_good_as_not_there(credit, dtype):
    some = logits_of(4, 7).to(dtype)
    forbidden = torch.full((4,), -torch.inf, dtype=dtype)
    with_them = torch.cat([some, forbidden]).requires_grad_()
    without = some.clone().requires_grad_()
    for size in (1, 4, 7):  # the last one leaves nothing but such items
        torch.manual_seed(size)
        candidates = draw_candidates(with_them, size)
        assert candidates.max() < 7
        rewards = torch.rand(size, dtype=torch.float64)
        losses_of = [
            candidate_gradient(each, candidates, rewards, credit=credit) for each in (with_them, without)
        ]
        torch.testing.assert_close(losses_of[0], losses_of[1], rtol=1e-9, atol=1e-9)
        gradient, expected = (
            torch.autograd.grad(loss, each)[0]
            for loss, each in zip(losses_of, (with_them, without), strict=True)
        )
        assert gradient[7:].tolist() == [0.0] * 4
        torch.testing.assert_close(gradient[:7], expected, rtol=1e-6, atol=1e-9)


def test_sets_that_logits_do_not_allow_are_refused():
    logits = torch.tensor([[0.0, 1.0, 2.0], [0.0, -torch.inf, -torch.inf]])
    with pytest.raises(InputError, match=r"from list \[1\]: 1 of its 3 items have a logit above -inf"):
        draw_candidates(logits, 2)
    assert draw_candidates(logits, 1)[1].item() == 0
    with pytest.raises(InputError, match=r"the logit at position \[0, 2\] is NaN \(so are 1 of 3\)"):
        draw_candidates(torch.tensor([[0.0, 1.0, torch.nan]]), 1)
    with pytest.raises(InputError, match=r"candidate 2 at position \[1, 1\] has a logit of -inf"):
        candidate_gradient(logits, torch.tensor([[0, 1], [0, 2]]), torch.ones(2, 2))
    assert draw_candidates(torch.zeros(0, 3), 2).shape == (0, 2)


def test_one_candidate_is_a_plain_policy_gradient():
    logits = logits_of(6).requires_grad_()
    for credit in ("inclusion", "set"):
        loss = candidate_gradient(logits, torch.tensor([2]), torch.tensor([1.5]).double(), credit=credit)
        torch.testing.assert_close(loss, -1.5 * logits.log_softmax(-1)[2])


def test_no_lists_have_no_loss():
    loss = candidate_gradient(torch.zeros(0, 4), torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 2))
    assert loss.item() == 0.0


def test_what_cannot_be_is_refused():
    logits, candidates, rewards = torch.zeros(2, 4), torch.tensor([[0, 1], [2, 3]]), torch.ones(2, 2)
    for count in (0, 5, 2.0, True):
        with pytest.raises(InputError, match=r"a set of .* cannot be drawn from 4 items without replacement"):
            draw_candidates(logits, count)
    with pytest.raises(InputError, match=r"a set of 5 candidates cannot be drawn from 4 items"):
        candidate_gradient(logits, torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 5))
    wrong = {
        r"item 2 is twice among the candidates of list \[1\]": (
            logits,
            torch.tensor([[0, 1], [2, 2]]),
            rewards,
        ),
        r"candidate 4 at position \[1, 0\] is none of the 4 items, 0 to 3 .*what draw_candidates drew": (
            logits,
            torch.tensor([[0, 1], [4, 2]]),
            rewards,
        ),
        "must agree but in the last": (logits, candidates[:1], rewards[:1]),
        "for logits of shape": (logits, candidates[0], rewards[0]),
        "a tensor of integers": (logits, candidates.float(), rewards),
        "the logits are torch.int64": (logits.long(), candidates, rewards),
        "have no items": (torch.zeros(2, 0), candidates, rewards),
        "one for each": (logits, candidates, rewards[:, :1]),
        "a tensor of floats": (logits, candidates, rewards.long()),
    }
    for says, inputs in wrong.items():
        with pytest.raises(InputError, match=says):
            candidate_gradient(*inputs)
    with pytest.raises(ConfigError, match="credit='all' is unknown"):
        candidate_gradient(logits, candidates, rewards, credit="all")
    with pytest.raises(ConfigError, match="reduction='max'"):
        losses.candidate_gradient(logits, candidates, rewards, reduction="max")
