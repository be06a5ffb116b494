"""The data loader's random numbers are its own: the loop's do not notice, and a place has always the same."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from edldist.sampling import draws as module
from edldist.sampling.draws import DataDraws, splitmix64


def draws(seed: int = 5) -> DataDraws:
    torch.manual_seed(seed)
    made = DataDraws()
    made.begin()
    return made


def draw() -> list[float]:
    """An odd number of normal numbers of each kind, which are made in pairs, and a uniform one."""
    drawn = [torch.randn(1).item(), random.gauss(0, 1), np.random.normal(), np.random.standard_normal()]
    return [*drawn, np.random.normal(), torch.rand(1).item(), random.random(), np.random.rand()]


@pytest.fixture
def seeded():
    """Let every global generator start at a known state, and leave it as it was."""
    kept = torch.get_rng_state(), random.getstate(), np.random.get_state(), np.random.get_bit_generator()
    torch.manual_seed(1)
    random.seed(2)
    np.random.seed(3)
    yield
    np.random.set_bit_generator(kept[3])
    np.random.set_state(kept[2])
    random.setstate(kept[1])
    torch.set_rng_state(kept[0])


def reading(own: DataDraws, epoch: int, place: int, numbers: int = 1) -> list[float]:
    with own.apart():
        own.reseed(epoch, place)
        return [number for _ in range(numbers) for number in draw()]


def test_the_loop_draws_what_it_would_have_drawn_alone(seeded):
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    alone = [draw() for _ in range(6)]
    own = draws()
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])
    together = []
    for place in range(6):
        reading(own, 0, place, numbers=place % 3)
        together.append(draw())
        reading(own, 0, place, numbers=1)
    assert together == alone


@pytest.mark.parametrize("failing", [False, True])
def test_the_loops_numbers_come_back_after_an_error_too(seeded, failing):
    own = draws()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    expected = draw()
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])
    try:
        with own.apart():
            own.reseed(0, 0)
            draw()
            if failing:
                raise FileNotFoundError
    except FileNotFoundError:
        pass
    assert draw() == expected


def test_a_pair_of_normal_numbers_that_a_restore_brought_back_is_kept(seeded):
    own = draws()
    np.random.normal()
    half = np.random.get_state()
    second = np.random.normal()
    reading(own, 0, 0)  # now it is known that nothing is left
    np.random.set_state(half)
    own.begin()
    reading(own, 0, 0)
    assert np.random.normal() == second


def test_a_place_has_its_own_numbers_whenever_it_is_read(seeded):
    own = draws()
    first = {(epoch, place): reading(own, epoch, place) for epoch in range(3) for place in range(4)}
    assert len({tuple(numbers) for numbers in first.values()}) == len(first)
    draw()
    other = draws()
    assert {key: reading(other, *key) for key in reversed(first)} == first
    assert reading(draws(seed=6), 0, 0) != first[0, 0]


def test_torch_and_numpy_do_not_draw_the_same(seeded):
    own = draws()
    with own.apart():
        own.reseed(0, 0)
        assert (torch.rand(8, dtype=torch.float64).numpy() != np.random.random_sample(8)).all()


def test_the_seed_is_that_of_the_first_epoch_and_taking_it_draws_nothing(seeded):
    own = draws(seed=7)
    first = reading(own, 0, 0)
    torch.manual_seed(8)
    before = torch.get_rng_state()
    own.begin()
    assert torch.equal(before, torch.get_rng_state())
    assert reading(own, 0, 0) == first


def test_a_replaced_bit_generator_of_numpy_stays_in_place(seeded):
    own = draws()
    np.random.set_bit_generator(np.random.PCG64(1))
    expected = [np.random.normal() for _ in range(5)]
    mine = np.random.PCG64(1)
    np.random.set_bit_generator(mine)
    got = []
    for place in range(5):
        reading(own, 0, place)
        got.append(np.random.normal())
    assert got == expected
    assert np.random.get_bit_generator() is mine


@pytest.mark.parametrize("found", [True, False], ids=["by its memory", "by asking"])
def test_pythons_generator_comes_back_whether_or_not_its_memory_is_found(seeded, monkeypatch, found):
    assert module._words_of(random.getstate.__self__) is not None  # or small batches cost twice as much here
    if not found:
        monkeypatch.setattr(module, "_words_of", lambda generator: None)
    own = draws()
    for drawn in range(3):
        random.setstate((3, tuple([*range(1, 625), 624 - drawn]), None))
        for _ in range(drawn):
            random.gauss(0, 1)
        before = random.getstate()
        reading(own, 0, drawn, numbers=700)
        assert random.getstate() == before


@pytest.mark.parametrize("generator", [random.SystemRandom(), object(), None])
def test_memory_of_another_kind_of_generator_is_left_alone(generator):
    assert module._words_of(generator) is None


def test_numbers_are_mixed_as_the_paper_does() -> None:
    golden = 0x9E37_79B9_7F4A_7C15
    assert [splitmix64(golden * turn % 2**64) for turn in range(3)] == [
        0xE220_A839_7B1D_CDAF,
        0x6E78_9E6A_A1B9_65F4,
        0x06C4_5D18_8009_454F,
    ]


def test_a_place_has_the_numbers_of_its_seed_in_every_version(seeded):
    bits = splitmix64(splitmix64(splitmix64(5) + 1) + 2)
    own = draws(seed=5)
    with own.apart():
        own.reseed(1, 2)
        assert torch.initial_seed() == bits % 2**32
        assert np.random.random_sample() == np.random.RandomState(bits >> 32).random_sample()
        assert random.random() == random.Random(bits).random()


def test_bits_are_read_of_the_kind_of_generator_whose_memory_is_known():
    assert module._raw(np.random.PCG64(1)) is None
    bits = np.random.MT19937(1)
    words = np.frombuffer(module._raw(bits), np.uint32)
    assert words[:624].tolist() == bits.state["state"]["key"].tolist()
