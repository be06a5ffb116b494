"""What a student has learnt from labels of each codec: its loss on text that nobody has read.

The text is ``pydoc_data.topics``, part of every CPython, in words: a vocabulary of 4,096. The teacher
reads seven eighths of it, the student an eighth of that, and learns what the teacher says of it: the same
windows, from the same first weights, with every codec. Both are causal convolutions over four words, twice,
before a head that is the embedding: quick, and with a vocabulary of which 256 are few.

``python -m edldist_benchmarks.held_out`` prints the whole table.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edldist import losses
from edldist.labels.codec import parse_codec
from edldist_benchmarks.codecs import CODECS as ALL_CODECS
from edldist_benchmarks.figures import Figure, Result, Settings

__all__ = ["CODECS", "Learning", "measure_held_out"]

CODECS = tuple(codec for codec in ALL_CODECS if codec != "gather")  # which serves sampled tokens alone
WHOLE = "dense:fp16:softmax"
BRIEFLY = (WHOLE, "topk:8", "topk:64", "rs:18", "head+rs:8:14")
VOCABULARY, WINDOW, BATCH, SEEN = 4_096, 64, 8, 4
STEPS = 200
HELD_OUT, STUDENTS_PART = 8, 8  # every eighth topic; an eighth of the rest


@dataclass(frozen=True)
class Settled:
    """Text as tokens, int64 [n] each, and a trained teacher."""

    given: Tensor
    test: Tensor
    teacher: WordModel


@dataclass(frozen=True)
class Learning:
    """Held-out loss of students, in nats a word, by seed, and the bytes of a token's labels."""

    codec: str
    token_bytes: float
    nats: list[float]


class WordModel(nn.Module):
    """Says at each of ``tokens`` int64 [B, S] what comes next, from that and the six words before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.mixes = nn.ModuleList(nn.Conv1d(width, width, SEEN) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """``logits`` [B, S, 4096] and ``hidden`` [B, S, width]."""
        x = self.embedding(tokens).mT
        for mix in self.mixes:
            x = x + F.gelu(mix(F.pad(x, (SEEN - 1, 0))))
        hidden = self.norm(x.mT)
        return {"logits": self.head(hidden), "hidden": hidden}


def measure_held_out(settings: Settings) -> Result:
    """A few codecs beside all of the distribution, for as many seeds as there are repeats."""
    found = list(learnt(settle(3 * STEPS), BRIEFLY, range(settings.repeats), STEPS))
    figures = [
        Figure(
            f"{each.codec}: {each.token_bytes:,.0f} bytes a token",
            statistics.mean(each.nats),
            "nats a word",
            statistics.mean(found[0].nats),
            f"as {WHOLE}",
        )
        for each in found
    ]
    return Result(figures, notes=[f"{settings.repeats} seeds; loss on held-out text, less is better"])


def learnt(settled: Settled, codecs: Sequence[str], seeds: Sequence[int], steps: int) -> Iterable[Learning]:
    """Train a student with each codec and seed."""
    for codec in codecs:
        token_bytes, nats = 0.0, []
        for seed in seeds:
            token_bytes, loss = distil(settled, codec, seed, steps)
            nats.append(loss)
        yield Learning(codec, token_bytes, nats)


def settle(teacher_steps: int) -> Settled:
    names = sorted(topics)
    parts: tuple[list[str], list[str]] = ([], [])
    for at, name in enumerate(names):
        parts[at % HELD_OUT == 0].extend(re.findall(r" ?\w+|[^\w\s]|\s+", topics[name]))
    number = {word: at for at, (word, _) in enumerate(Counter(parts[0]).most_common(VOCABULARY - 1), 1)}
    read, test = (torch.tensor([number.get(word, 0) for word in words]) for words in parts)
    torch.manual_seed(1_000)
    teacher = WordModel(192)
    _train(teacher, read, 1_000, teacher_steps)
    return Settled(read[: len(read) // STUDENTS_PART], test, teacher.eval())


def plainly(settled: Settled, seed: int, steps: int) -> float:
    """Held-out loss of a student that learns from the text alone."""
    torch.manual_seed(seed)
    student = WordModel(64)
    _train(student, settled.given, seed, steps)
    return held_out_loss(student, settled.test)


def distil(settled: Settled, codec_text: str, seed: int, steps: int) -> tuple[float, float]:
    """Bytes of a token's labels, and the student's held-out loss in nats a word."""
    codec = parse_codec(codec_text)
    if codec_text == "hidden":
        codec = codec.serving(settled.teacher)
    head = losses.Head(settled.teacher.head.weight.detach(), settled.teacher.head.bias.detach())
    output = "hidden" if codec_text == "hidden" else "logits"
    token_bytes = 0.0

    def labels_of(batch: Tensor) -> Any:
        nonlocal token_bytes
        with torch.no_grad():
            outputs = {output: settled.teacher(batch)[output]}
        packed = codec.pack(outputs, {}).tensors
        token_bytes = sum(tensor.nbytes for tensor in packed.values()) / batch.numel()
        return codec.decode(packed)[output]

    torch.manual_seed(seed)
    student = WordModel(64)
    _train(student, settled.given, seed, steps, labels_of, head if output == "hidden" else None)
    return token_bytes, held_out_loss(student, settled.test)


@torch.no_grad()
def held_out_loss(model: WordModel, test: Tensor) -> float:
    model.eval()
    windows = test.unfold(0, WINDOW + 1, WINDOW)
    nats = [
        F.cross_entropy(model(part[:, :-1])["logits"].flatten(0, 1), part[:, 1:].flatten()).item() * len(part)
        for part in windows.split(64)
    ]
    return sum(nats) / len(windows)


def _train(
    model: WordModel,
    text: Tensor,
    seed: int,
    steps: int,
    labels_of: Callable[[Tensor], Any] | None = None,
    head: losses.Head | None = None,
) -> None:
    """On what ``labels_of`` says of each batch, or else on the text itself."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        starts = torch.randint(len(text) - WINDOW, (BATCH, 1), generator=generator)
        windows = text[starts + torch.arange(WINDOW + 1)]
        logits = model(windows[:, :-1])["logits"]
        if labels_of is None:
            loss = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        else:
            loss = losses.forward_kl(logits, labels_of(windows[:, :-1]), teacher_head=head)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _print_table(settled: Settled, codecs: Sequence[str], seeds: Sequence[int], steps: int) -> None:
    said = held_out_loss(settled.teacher, settled.test)
    print(f"the teacher {said:.3f} nats a word; {len(seeds)} seeds, mean ± standard error\n")
    print("| codec | bytes a token | held-out loss | more than the whole |\n|---|---:|---:|---:|", flush=True)
    whole: list[float] = []
    for each in learnt(settled, (WHOLE, *(codec for codec in codecs if codec != WHOLE)), seeds, steps):
        whole = whole or each.nats
        more = [nats - other for nats, other in zip(each.nats, whole, strict=True)]
        cells = (f"`{each.codec}`", f"{each.token_bytes:,.0f}", _mean(each.nats), _mean(more))
        print(f"| {' | '.join(cells)} |", flush=True)
    plain = [plainly(settled, seed, steps) for seed in seeds]
    more = [nats - other for nats, other in zip(plain, whole, strict=True)]
    print(f"| none, the text alone | | {_mean(plain)} | {_mean(more)} |")


def _mean(values: Sequence[float]) -> str:
    error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{error}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("codecs", nargs="*", default=list(CODECS), help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    _print_table(settle(3 * given.steps), given.codecs, given.seeds, given.steps)
