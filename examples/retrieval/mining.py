"""What the student finds for the queries that it learns from: the passages that its lists are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from examples.retrieval.data import NOBODY, Collection
from examples.retrieval.encoders import DualEncoder

__all__ = ["Lists", "Mined", "Texts", "nearest"]


class Texts:
    """A collection as the student reads it.

    Attributes:
        queries: Q rows, of what the student makes of a text.
        passages: N rows.
    """

    def __init__(self, collection: Collection, read: Callable[[Sequence[str]], Tensor]) -> None:
        self.queries, self.passages = read(collection.queries), read(collection.passages)


@torch.no_grad()
def nearest(model: DualEncoder, texts: Texts, queries: Tensor, count: int) -> Tensor:
    """The passages that are nearest to these queries, int64 [len(queries), count], the nearest first.

    Raises:
        ValueError: there are fewer passages.
    """
    if count > len(texts.passages):
        raise ValueError(f"{count} passages for each query, of {len(texts.passages)} in all: ask for fewer")
    was = model.training
    model.eval()
    index = torch.cat([model.embed(part) for part in texts.passages.split(1024)])
    found = [(model.embed(texts.queries[part]) @ index.T).topk(count).indices for part in queries.split(1024)]
    model.train(was)
    return torch.cat(found)


class Mined:
    """Of each query to learn from, the passages that the student found nearest when it last looked.

    Belongs into the checkpoint: a restored run goes on with the lists of the same look.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.looks = 0
        self.found = torch.empty(0, depth, dtype=torch.int64)

    def look(self, model: DualEncoder, texts: Texts, queries: Tensor) -> None:
        self.found = nearest(model, texts, queries, self.depth)
        self.looks += 1

    def state_dict(self) -> dict[str, Any]:
        return {"looks": self.looks, "found": self.found}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.looks, self.found = state["looks"], state["found"]


class Lists(Dataset[dict[str, Tensor]]):
    """Each query with a list of passages: the annotated one, and others drawn from what was mined for it.

    ``query`` int64 []; ``passages`` int64 [L], numbers in the collection, of which the first is the annotated
    one if ``annotated``, bool [], says that there is one.
    """

    def __init__(self, collection: Collection, queries: Tensor, mined: Mined, length: int, seed: int) -> None:
        if not 1 <= length <= mined.depth:
            raise ValueError(
                f"lists of {length} passages cannot be drawn from the {mined.depth} that are mined for each "
                f"query: use a length from 1 to {mined.depth}, or mine more"
            )
        self._annotated, self._queries, self._mined = collection.annotated, queries, mined
        self._length, self._seed = length, seed

    def __len__(self) -> int:
        return len(self._queries)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        query = self._queries[place]
        marked = self._annotated[query]
        others = self._mined.found[place]
        others = others[others != marked]
        seed = (self._seed * 1_009 + self._mined.looks) * 1_000_003 + place
        chance = torch.Generator().manual_seed(seed)
        first = marked.view(1) if marked != NOBODY else others[:1]
        others = others[others != first]
        drawn = others[torch.randperm(len(others), generator=chance)[: self._length - 1]]
        return {"query": query, "passages": torch.cat([first, drawn]), "annotated": marked != NOBODY}
