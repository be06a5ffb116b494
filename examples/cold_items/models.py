"""A teacher for each category of mature items, and students that pass messages along a graph of fields.

``item`` is int64 [B], ``context`` int64 [B, 8]. Teachers and students give the logit of a click, float32 [B].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from examples.cold_items.data import BRANDS, FIELDS, KINDS, VALUES

__all__ = ["GRAPHS", "GraphNetwork", "Teacher", "teacher"]

GRAPHS = ("own", "global")
LAYERS, WIDTH = 2, 16
NODES = FIELDS + 3  # kind, brand, and the item itself


class Teacher(nn.Module):
    """A wide network that knows mature items by their numbers, and nothing else of them."""

    def __init__(self, items: int, width: int = 16, hidden: int = 128) -> None:
        super().__init__()
        self.item = nn.Embedding(items, 2 * width)
        self.context = nn.Embedding(FIELDS * VALUES, width)
        self.register_buffer("offsets", torch.arange(FIELDS) * VALUES, persistent=False)
        self.layers = nn.Sequential(
            *(nn.Linear((FIELDS + 2) * width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, 1),
        )

    def forward(self, item: Tensor, context: Tensor) -> Tensor:
        fields = self.context(context + self.offsets).flatten(1)
        return self.layers(torch.cat([self.item(item), fields], dim=1)).squeeze(1)


def teacher(items: int = 160) -> nn.Module:
    """A category's; its weights come from the job's ``weights:``."""
    return Teacher(items)


class GraphNetwork(nn.Module):
    """``h_l = act(A_l h_0 W_l) * h_{l-1}``: fields interact with those that the graph A joins them to.

    After EmerG (arXiv 2407.10112). A node is a field: eight of the context, the item's kind and brand, and
    the item itself. Layer l holds interactions of l + 1 fields; attention over layers says which count.

    Args:
        items: for how many an embedding is learnt.
        graph: ``own``: a network makes each item's graphs out of its attributes. ``global``: one for all.
    """

    def __init__(self, items: int, graph: str = "own", hidden: int = 64) -> None:
        super().__init__()
        if graph not in GRAPHS:
            raise ValueError(f"graph {graph!r}: there are {', '.join(GRAPHS)}")
        self.item = nn.Embedding(items, WIDTH)
        self.fields = nn.Embedding(FIELDS * VALUES + KINDS + BRANDS, WIDTH)
        starts = [*range(0, FIELDS * VALUES, VALUES), FIELDS * VALUES, FIELDS * VALUES + KINDS]
        self.register_buffer("starts", torch.tensor(starts), persistent=False)
        self.maps = nn.Parameter(torch.randn(LAYERS, WIDTH, WIDTH) / WIDTH**0.5)
        self.readout = nn.Parameter(torch.randn(LAYERS + 1, WIDTH) / WIDTH**0.5)
        self.attention = nn.Parameter(torch.zeros(LAYERS + 1, WIDTH))
        self.bias = nn.Parameter(torch.zeros(()))
        first = torch.full((LAYERS, NODES, NODES), 1 / NODES) + 0.1 * torch.randn(LAYERS, NODES, NODES)
        self.graph = nn.Parameter(first)
        self.make_graph: nn.Module | None = None
        if graph == "own":
            self.make_graph = nn.Sequential(
                nn.Linear(2 * WIDTH, hidden), nn.SiLU(), nn.Linear(hidden, LAYERS * NODES * NODES)
            )

    def forward(self, item: Tensor, context: Tensor, attributes: Tensor) -> Tensor:
        """Of items that have an embedding; ``attributes`` int64 [B, 2]: kind and brand."""
        return self.score(context, attributes, self.item(item), self.graphs(attributes))

    def graphs(self, attributes: Tensor) -> Tensor:
        """A graph for each layer, [B, LAYERS, NODES, NODES], of items with these attributes [B, 2]."""
        if self.make_graph is None:
            return self.graph.expand(len(attributes), -1, -1, -1)
        known = self.fields(attributes + self.starts[FIELDS:]).flatten(1)
        return self.graph + self.make_graph(known).view(-1, LAYERS, NODES, NODES)

    def score(self, context: Tensor, attributes: Tensor, item: Tensor, graphs: Tensor) -> Tensor:
        """Logits [B] with given embeddings [B, WIDTH] and graphs [B, LAYERS, NODES, NODES] of the items."""
        fields = self.fields(torch.cat([context, attributes], dim=1) + self.starts)
        first = torch.cat([fields, item.unsqueeze(1)], dim=1)
        layers = [first]
        for number in range(LAYERS):
            message = torch.tanh(graphs[:, number] @ first @ self.maps[number])
            layers.append(message * layers[-1])
        found = torch.stack([layer.sum(1) for layer in layers], dim=1)  # [B, LAYERS + 1, WIDTH]
        share = (torch.tanh(found) * self.attention).sum(-1).softmax(-1)
        return (share * (found * self.readout).sum(-1)).sum(-1) + self.bias
