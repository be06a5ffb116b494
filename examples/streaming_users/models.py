"""The teacher, who has seen 64 clicks of a user, and the student, who adapts to eight.

Shape legend: B users, H items of a user that the teacher knows, S of these that the student knows, Q items
that are asked for, F features of an item, D of what the student makes of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.streaming_users.data import FEATURES, SUPPORT

__all__ = ["Student", "Teacher", "student", "teacher"]

WIDTH = 16


class Teacher(nn.Module):
    """Reads a long history, and says how likely a user clicks on other items."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.night = nn.Buffer(torch.zeros((), dtype=torch.int64))
        """Until the end of which day the log went that it has learnt from."""
        self.sees = nn.Sequential(
            nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 32)
        )
        self.reads = nn.Sequential(nn.Linear(33, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.tells = nn.Linear(2 * width, 33)
        self.width = width

    def forward(self, items: Tensor, clicks: Tensor, query: Tensor) -> dict[str, Tensor]:
        """``logits`` float32 [B, Q] of clicks on ``query`` [B, Q, F], and ``night`` int64 [B].

        Args:
            items: float32 [B, H, F], the user's history.
            clicks: float32 [B, H], 0 or 1.

        Raises:
            ValueError: something else than 0 or 1 among the clicks.
        """
        if bool(((clicks != 0) & (clicks != 1)).any()):
            wrong = clicks[(clicks != 0) & (clicks != 1)][0].item()
            raise ValueError(f"a history with a click of {wrong:g}: clicks are 0 or 1")
        read = self.reads(torch.cat([self.sees(items), clicks[..., None]], dim=-1))
        clicked = clicks[..., None]
        hits = (read * clicked).sum(1) / clicked.sum(1).clamp(min=1)
        misses = (read * (1 - clicked)).sum(1) / (1 - clicked).sum(1).clamp(min=1)
        taste = self.tells(torch.cat([hits, misses], dim=-1))
        logits = (self.sees(query) @ taste[:, :-1, None]).squeeze(-1) + taste[:, -1:]
        return {"logits": logits, "night": self.night.repeat(len(query))}


class Student(nn.Module):
    """A fixed part that sees items, and an adaptive one that each user gets a copy of.

    Fixed: a network from features to D aspects of its own, and how fast each adaptive parameter adapts.
    Adaptive: a weight for each aspect and a bias, of which those in here are where every new user begins. A
    user's own are some steps of gradient descent further, on the clicks that are known (MAML restricted to
    the last layer; the partition of arXiv 1912.04108 with all of the last layer adaptive).

    Args:
        steps: of adaptation. 0: everybody gets the same, and nobody is adapted to.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.fixed = nn.ModuleDict(
            {
                "sees": nn.Sequential(
                    *(nn.Linear(FEATURES, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, WIDTH))
                ),
                "adapts": nn.ParameterList([nn.Parameter(torch.full((WIDTH + 1,), -0.7), steps > 0)]),
            }
        )
        self.adaptive = nn.Parameter(torch.zeros(WIDTH + 1))

    def forward(self, items: Tensor, clicks: Tensor, query: Tensor) -> Tensor:
        """Logits of clicks on ``query``, float32 [B, Q].

        Args:
            items, clicks: [B, S or more, F] and [B, S or more]: the first S are read.
        """
        known, wanted = clicks[:, :SUPPORT], self.seen(query)
        own = self.adaptive.expand(len(query), -1)
        if self.steps:
            support = self.seen(items[:, :SUPPORT])
            rate = F.softplus(self.fixed["adapts"][0])
            for _ in range(self.steps):
                error = torch.sigmoid((support @ own[..., None]).squeeze(-1)) - known
                own = own - rate * (error[:, None] @ support).squeeze(1) / SUPPORT
        found: Tensor = (wanted @ own[..., None]).squeeze(-1)
        return found

    def seen(self, items: Tensor) -> Tensor:
        """Float32 [B, N, D + 1] of items [B, N, F]: the last one is 1, for the bias."""
        return F.pad(self.fixed["sees"](items), (0, 1), value=1.0)


def teacher() -> nn.Module:
    """Its weights come from where the student's job publishes them."""
    return Teacher()


def student(seed: int, steps: int) -> Student:
    torch.manual_seed(seed)
    return Student(steps)
