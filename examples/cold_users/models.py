"""The teacher, who knows users by name, and the student, who knows ten of their ratings.

Shape legend: B users, S ratings of each that are known, Q items that are asked for, F features of an item,
L hidden layers, W their width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from examples.cold_users.data import FEATURES, ITEMS, MATURE, World
from examples.cold_users.structure import LAYERS, OPERATIONS, PLACES

__all__ = ["Student", "Teacher", "student", "teacher"]

WIDTH = 16
_READ = 64  # width of what reads the support


class Teacher(nn.Module):
    """What a mature user would say of items: an embedding of the user beside the item's features."""

    def __init__(self, width: int = 128, embedding: int = 16) -> None:
        super().__init__()
        self.users = nn.Embedding(MATURE, embedding)
        self.register_buffer("features", World.made().features, persistent=False)
        self.layers = nn.Sequential(
            *(nn.Linear(FEATURES + embedding, width), nn.ReLU()),
            *(nn.Linear(width, width), nn.ReLU()),
            *(nn.Linear(width, width), nn.ReLU()),
            nn.Linear(width, 1),
        )

    def forward(self, user: Tensor, asked: Tensor) -> dict[str, Tensor]:
        """``ratings`` float32 [B, Q] of int64 ``user`` [B] and ``asked`` [B, Q].

        Raises:
            ValueError: it knows no such user or item.
        """
        for what, numbers, count in (("user", user, MATURE), ("item", asked, ITEMS)):
            if bool(((numbers < 0) | (numbers >= count)).any()):
                wrong = numbers[(numbers < 0) | (numbers >= count)][0].item()
                raise ValueError(f"{what} {wrong}: the teacher knows {what}s 0 to {count - 1}")
        of_user = self.users(user)[:, None].expand(-1, asked.shape[1], -1)
        ratings: Tensor = self.layers(torch.cat([self.features[asked], of_user], dim=-1)).squeeze(-1)
        return {"ratings": ratings}


class Student(nn.Module):
    """A recommender whose hidden layers are modulated by what is known of the user.

    An encoder reads the known ratings, in any order, and gives four vectors for each hidden layer. Behind
    the layer's activation they are applied as ``max``, ``min``, ``mul`` and ``add``, each by its gate g::

        h <- h + g * (max(h, v) - h)        h <- h * (1 + g * v)
        h <- h + g * (min(h, v) - h)        h <- h + g * v

    While it searches a gate is ``sigmoid`` of its own weight, which learns along with all others. Later it is
    1 for those that are kept, and 0 for all others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(len(PLACES)))
        self.register_buffer("kept", torch.zeros(len(PLACES)))
        self.register_buffer("searching", torch.ones(()))
        self.reads = nn.Sequential(
            nn.Linear(FEATURES + 1, _READ), nn.ReLU(), nn.Linear(_READ, _READ), nn.ReLU()
        )
        self.tells = nn.Sequential(
            nn.Linear(_READ, _READ), nn.ReLU(), nn.Linear(_READ, LAYERS * len(OPERATIONS) * WIDTH)
        )
        self.layers = nn.ModuleList(
            nn.Linear(FEATURES if layer == 0 else WIDTH, WIDTH) for layer in range(LAYERS)
        )
        self.rates = nn.Linear(WIDTH, 1)
        with torch.no_grad():  # floors at first below what most units say, ceilings above
            self.tells[-1].weight.mul_(0.5)
            self.tells[-1].bias.view(LAYERS, len(OPERATIONS), WIDTH)[:] = torch.tensor([0.0, 1.0, 0.0, 0.0])[
                :, None
            ]

    def forward(self, support: Tensor, ratings: Tensor, query: Tensor) -> Tensor:
        """How users would rate items, float32 [B, Q].

        Args:
            support: float32 [B, S, F], items that they have rated.
            ratings: float32 [B, S], how.
            query: float32 [B, Q, F], items that are asked for.
        """
        read = self.reads(torch.cat([support, ratings[..., None]], dim=-1)).mean(dim=1)
        vectors = self.tells(read).view(-1, LAYERS, len(OPERATIONS), 1, WIDTH)
        gates = self.gates().view(LAYERS, len(OPERATIONS))
        hidden = query
        for number, layer in enumerate(self.layers):
            floor, ceiling, scale, shift = vectors[:, number].unbind(dim=1)
            by_max, by_min, by_mul, by_add = gates[number]
            hidden = torch.relu(layer(hidden))
            hidden = hidden + by_max * (hidden.maximum(floor) - hidden)
            hidden = hidden + by_min * (hidden.minimum(ceiling) - hidden)
            hidden = hidden * (1 + by_mul * scale) + by_add * shift
        found: Tensor = self.rates(hidden).squeeze(-1)
        return found

    def gates(self) -> Tensor:
        """Float32 [len(PLACES)], from 0 to 1."""
        return self.searching * self.weights.sigmoid() + (1 - self.searching) * self.kept

    @property
    def places(self) -> tuple[str, ...]:
        """The modulations that are kept; none while it searches."""
        return tuple(place for place, kept in zip(PLACES, self.kept.tolist(), strict=True) if kept)

    @torch.no_grad()
    def keep(self, places: tuple[str, ...], seed: int) -> None:
        """Search no more: begin anew with these modulations, from the weights that a seed gives."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = Student()
        fresh.searching.zero_()
        fresh.kept.copy_(torch.tensor([float(place in places) for place in PLACES]))
        fresh.weights.copy_(self.weights)  # what the search has found stays to be seen
        self.load_state_dict(fresh.state_dict())


def teacher() -> nn.Module:
    """Its weights come from the job's ``weights:``."""
    return Teacher()


def student(seed: int) -> Student:
    torch.manual_seed(seed)
    return Student()
