"""Random-number state of a rank, and the seeds of ranks that are new."""

import random

import numpy as np
import torch

from edldist.checkpoint.rng import capture_rng, restore_rng, seed_new_rank


def draw():
    return torch.rand(2).tolist(), random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()


def test_every_generator_goes_on_where_it_was():
    draw()  # leaves half of a Gaussian pair waiting in Python's and numpy's generator
    saved = capture_rng()
    expected = draw()
    draw()
    restore_rng(saved)
    assert draw() == expected


def test_new_ranks_get_seeds_of_their_own_that_a_restart_repeats():
    saved = capture_rng()
    draws = {}
    for rank, step in ((4, 10), (5, 10), (4, 11)):
        seed_new_rank(saved, step, rank)
        draws[rank, step] = draw()
        random.seed(0)
        torch.manual_seed(0)
        seed_new_rank(saved, step, rank)
        assert draw() == draws[rank, step]
    assert len({repr(value) for value in draws.values()}) == 3
    torch.manual_seed(1)
    assert seed_new_rank(capture_rng(), 10, 4) != seed_new_rank(saved, 10, 4)
