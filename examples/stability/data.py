"""A click stream: generated, since no public one has a known shock at a known place.

A *world* of users and items, the same for every seed, says how likely a click is::

    logit = 10 * (weights · context) + 3 * (liking of the user + appeal of the item) + engagement

with eight numbers of context, and an engagement that nobody sees but through one feature, ``watched``:
minutes, in raw counts, ``exp(4.2 + engagement)``, from a few to some hundred. A click is drawn with that
probability. A stream of events is drawn from a seed; the student's, the teacher's and the test's seeds share
no event.

Two shocks, each at the middle of the stream:

* ``feature``: until then ``watched`` is not logged, and 0; from then on it is there, to the end and in the
  test.
* ``batches``: ``watched`` is never logged, and three batches come in which a broken job divided by 0: the
  first number of their context is infinite.

Shapes: N events; ``user`` and ``item`` int64 [N], ``context`` float32 [N, 8], ``watched`` float32 [N, 1],
``click`` int64 [N].
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from examples.common.rows import Rows

__all__ = ["CONTEXT", "ITEMS", "SHOCKS", "USERS", "events", "stream"]

USERS, ITEMS, CONTEXT = 50, 30, 8
SHOCKS = ("feature", "batches")
BROKEN_BATCHES = 3
_WORLD_SEED = 7


def events(seed: int, count: int) -> dict[str, Tensor]:
    """Events of the world, all features in place.

    Raises:
        ValueError: no event is asked for.
    """
    if count < 1:
        raise ValueError(f"events(count={count}): ask for 1 or more")
    world = np.random.default_rng(_WORLD_SEED)
    likings, appeals = world.normal(size=USERS), world.normal(size=ITEMS)
    weights = world.normal(size=CONTEXT)
    weights /= np.linalg.norm(weights)
    chance = np.random.default_rng([seed, count])
    user, item = chance.integers(USERS, size=count), chance.integers(ITEMS, size=count)
    context, engagement = chance.normal(size=(count, CONTEXT)), chance.normal(size=count)
    logit = 10 * context @ weights + 3 * (likings[user] + appeals[item]) + engagement
    click = chance.random(count) < 1 / (1 + np.exp(-logit))
    return {
        "user": torch.from_numpy(user),
        "item": torch.from_numpy(item),
        "context": torch.from_numpy(context.astype(np.float32)),
        "watched": torch.from_numpy(np.exp(4.2 + engagement).astype(np.float32)).unsqueeze(1),
        "click": torch.from_numpy(click.astype(np.int64)),
    }


def stream(seed: int, steps: int, batch: int, shock: str) -> Rows:
    """The events that a student meets, one after the other.

    Args:
        seed: of the events.
        steps, batch: how many there are.
        shock: one of ``SHOCKS``, at the middle.
    """
    columns = events(seed, steps * batch)
    half = steps // 2 * batch
    if shock == "feature":
        columns["watched"][:half] = 0
    else:
        columns["watched"][:] = 0
        columns["context"][half : half + BROKEN_BATCHES * batch, 0] = torch.inf
    return Rows(columns)
