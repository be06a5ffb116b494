"""Small teachers for tests. Each labels a sample in a way that tells whose label it is."""

from __future__ import annotations

import itertools
import threading
import time

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from tests.fault import pictures


def identify():
    """Labels that identify the sample: its id, and a function of it."""

    def label(id: Tensor) -> Tensor:  # noqa: A002
        value = id.to(torch.float64)
        return torch.stack([value, value * 2 + 1], dim=1)

    return label


def spoiler():
    """Labels made in place of the inputs: whoever lent them must not notice."""
    return pictures.teacher()


def positional():
    return lambda x: x.to(torch.float32).reshape(x.shape[0], -1).sum(1, keepdim=True)


def several_outputs():
    def label(id: Tensor) -> dict[str, Tensor]:  # noqa: A002
        return {
            "logits": id.float().unsqueeze(1).expand(-1, 3),
            "feature": id.to(torch.bfloat16).reshape(-1, 1, 1),
            "index": id.to(torch.int32),
        }

    return label


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        assert torch.is_inference_mode_enabled()
        return self.drop(self.layer(x))


def raises_on_load():
    raise RuntimeError("the factory is broken on purpose")


def returns_no_callable():
    return 3


def raises_on_13():
    def label(id: Tensor) -> Tensor:  # noqa: A002
        if (id == 13).any():
            raise ValueError("sample 13 is poison on purpose")
        return id.unsqueeze(1)

    return label


def nan_on_13():
    return lambda id: torch.where(id == 13, torch.nan, id.float()).unsqueeze(1)  # noqa: A006


def wrong_first_dimension():
    return lambda id: id[:-1].unsqueeze(1)  # noqa: A006


def no_tensor():
    return lambda id: "labels"  # noqa: A006


def cached():
    """Labels, with what language models return beside them."""
    return lambda id: {  # noqa: A006
        "logits": id.unsqueeze(1),
        "cache": ((id,),),
        "extra": id.unsqueeze(1),
    }


def looks_for_image():
    return lambda **inputs: inputs["image"]


class WantsMask(nn.Module):
    """Says by itself that an input is missing."""

    def forward(self, id: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: A002
        if mask is None:
            raise ValueError("you have to specify a mask")
        return id.unsqueeze(1)


class RaisesOn13(nn.Module):
    def forward(self, id: Tensor) -> Tensor:  # noqa: A002
        return raises_on_13()(id)


def numbers():
    return list(range(40))


NOT_CALLABLE = 7


GATE = threading.Event()
"""``waits_at_gate`` labels nothing while this is clear."""


def waits_at_gate():
    def label(id: Tensor) -> Tensor:  # noqa: A002
        GATE.wait(20)
        return id.unsqueeze(1)

    return label


def identify_any():
    """``identify`` by position, whatever the input is called."""
    return lambda x: torch.stack([x.double(), x.double() * 2 + 1], dim=1)


def difference():
    return lambda a, b: identify_any()(a - b)


def negative():
    return lambda id: -id  # noqa: A006


class Doubled(nn.Module):
    """A linear layer in float64, with the same weights in every process."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.layer = nn.Linear(4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.double())


class Bigrams(nn.Module):
    """A language model of 64 tokens in float64, with the same weights in every process."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.table = nn.Embedding(64, 64).double()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.table(input_ids)


def pass_size():
    """Labels that say how many samples shared the forward pass."""
    return lambda id: torch.full((id.shape[0], 1), id.shape[0])  # noqa: A006


def complex_labels():
    return lambda id: id.to(torch.complex64)  # noqa: A006


def large():
    return lambda id: id + 1e6  # noqa: A006


_MADE = itertools.count()


def either_order():
    """Every second model that this process makes names its outputs in the other order."""
    backwards = next(_MADE) % 2

    def label(id: Tensor) -> dict[str, Tensor]:  # noqa: A002
        outputs = {"left": id.unsqueeze(1), "right": -id.unsqueeze(1)}
        return dict(reversed(outputs.items())) if backwards else outputs

    return label


def random_weights():
    """Other weights each time: what a factory does that forgets to load any."""
    return nn.Linear(4, 3)


def takes_its_time():
    """Labels as ``identify_any`` does, a twentieth of a second a pass."""
    labels = identify_any()

    def forward(**inputs):
        time.sleep(0.05)
        return labels(**inputs)

    return forward


_PACES_S = itertools.cycle((0.05, 0.01))


def takes_its_time_or_not():
    """Labels as ``identify`` does: every second model that this process makes is five times as fast."""
    labels, pass_s = identify(), next(_PACES_S)

    def forward(id):  # noqa: A002
        time.sleep(pass_s)
        return labels(id)

    return forward


def token_sums():
    """Of each token: its id, and the sum of its sequence, which padding must not change."""

    def label(ids, attention_mask):
        sums = (ids * attention_mask).sum(1, keepdim=True)
        return torch.stack([ids, sums.expand_as(ids)], dim=-1).float()

    return label


def sequence_sums():
    return lambda ids, attention_mask: (ids * attention_mask).sum(1, keepdim=True).float()


def raises_on_token_13():
    def label(ids, attention_mask):
        if (ids == 13).any():
            raise ValueError("thirteen")
        return token_sums()(ids, attention_mask)

    return label


class Words(nn.Module):
    """A language model of 300 tokens that knows no context, with the same weights in every process."""

    vocabulary = 300

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(6)
            self.embedding = nn.Embedding(50, 8)
            self.head = nn.Linear(8, self.vocabulary)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        hidden = self.embedding(ids)
        return {"logits": self.head(hidden), "hidden": hidden}


class TinyLM(nn.Module):
    """A causal language model that knows what came before, with the same weights in every process."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(8)
            self.embedding = nn.Embedding(vocabulary, 16)
            self.state = nn.GRU(16, 16, batch_first=True)
            self.head = nn.Linear(16, vocabulary)
            nn.init.normal_(self.head.weight, std=1.5)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.head(self.state(self.embedding(input_ids))[0])


def tiny_lm(vocabulary: int = 300):
    return TinyLM(vocabulary).eval()


class Speaks(nn.Module):
    """A language model with a vocabulary of its own, padded, that expects what it has just read."""

    def __init__(self, words: str, padding: int = 0) -> None:
        super().__init__()
        self.vocabulary = list(words)
        self.entries = len(words) + padding
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, input_ids: Tensor) -> Tensor:
        entries = torch.arange(self.entries, dtype=torch.float32)
        return -(entries - input_ids.unsqueeze(-1)).abs() / 2 + self.bias


def spoilt_scores():
    """As ``scores``, but for token 49, of which it has no idea."""
    label = scores()
    return lambda ids: label(ids).masked_fill(ids.unsqueeze(-1) == 49, torch.nan)


def scores(vocabulary: int = 300):
    """Logits of a function: nobody can tell by its weights what it is."""
    return lambda ids: -(torch.arange(vocabulary) - ids.unsqueeze(-1)).abs().float()


def shifted(by: float = 0.0):
    """Labels that tell the sample, and which of several teachers labelled it."""
    return lambda id: torch.stack([id.double(), id.double() + by], dim=1)  # noqa: A006


def shifted_tokens(by: float = 0.0):
    """The same of each token."""

    def label(ids, attention_mask):
        sums = (ids * attention_mask).sum(1, keepdim=True)
        return torch.stack([ids, sums.expand_as(ids) + by], dim=-1).float()

    return label


def says_mask():
    return lambda id: {"mask": id.unsqueeze(1)}  # noqa: A006


def says_version():
    return lambda id: {"version": id.unsqueeze(1)}  # noqa: A006


class Minded:
    """Labels that are right, or, from when ``mind`` says so, another model's, NaN, constant or wavering."""

    def __init__(self, mind: str = "") -> None:
        self.mind = mind

    def __call__(self, id: Tensor) -> Tensor:  # noqa: A002
        value = id.to(torch.float64)
        labels = torch.stack([value, value * 2 + 1], dim=1)
        if self.mind == "other":
            return labels.flip(-1)
        if self.mind == "nan":
            return labels * torch.nan
        if self.mind == "constant":
            return torch.ones_like(labels)
        return labels * torch.rand_like(labels) if self.mind == "wavering" else labels


def minded(mind: str = "") -> Minded:
    return Minded(mind)


class Following(nn.Module):
    """``shifted`` by a weight, which tells the version of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, id: Tensor) -> Tensor:  # noqa: A002
        return torch.stack([id.double(), id.double() + self.by], dim=1)


def text_lengths():
    """Of each text, how long it is."""
    return lambda text: torch.tensor([[len(one)] for one in text])


class Numbers(Dataset[dict[str, Tensor]]):
    """Samples that are their own numbers, for teachers that label a sample by its ``id``."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitems__(self, numbers: list[int]) -> list[dict[str, Tensor]]:
        return [{"id": torch.tensor(number)} for number in numbers]

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return {"id": torch.tensor(number)}
