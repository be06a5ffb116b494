"""What each codec costs, and what it loses: bytes a token, speed of both sides, divergence, and the gradient.

The rows are a mixture that looks like a language model's: each of 128 tokens of a vocabulary of 50,257 is
given ``a`` parts of a Zipf law of its own steepness (1 to 3) over words in an order of its own, and ``1 - a``
parts of the law of all words (steepness 1). ``a`` is between 0 and 1, mostly near 1, so their entropies are
from nearly 0 to 9 nats. The student knows the law of all words, and half of what its context tells.
``hidden`` is measured on rows of its own, of a head of 768 features.

``python -m edldist_benchmarks.codecs`` prints the whole table.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edldist.labels.codec import parse_codec
from edldist.labels.gather import GATHER_IDS
from edldist.labels.typed import GatheredLabels, HiddenLabels, Labels, SampledLabels, TopKLabels
from edldist_benchmarks.figures import Figure, Result, Settings

__all__ = ["CODECS", "Loss", "measure_codecs"]

TOKENS, VOCABULARY, FEATURES = 128, 50_257, 768
CODECS = (
    *("dense:fp16:softmax", "dense:bf16:softmax", "int8", "hidden"),
    *(f"topk:{k}" for k in (8, 16, 32, 64, 128, 256)),
    *("topp:0.95:64", *(f"rs:{n}" for n in (8, 18, 32, 64, 128, 256))),
    *("head+rs:8:14", "head+rs:16:18", "head+rs:32:32", "head+rs:64:64", "head+rs:128:64", "gather"),
)


@dataclass(frozen=True)
class Loss:
    """What a codec costs and loses.

    Attributes:
        codec: as it is written.
        token_bytes: that travel.
        packed, decoded: tokens in a second of one core, the median of some passes.
        divergence: nats, of what the teacher said from what the labels say: the mean over tokens. Of ``topk``
            with all that is not kept as one entry; None where labels are no distribution of their own.
        token_degrees: angle between the gradient of a token's logits and that with the whole distribution:
            the median over tokens; None where there is no such gradient.
        batch_degrees: the same of a head's weights, of all tokens together.
    """

    codec: str
    token_bytes: float
    packed: float
    decoded: float
    divergence: float | None
    token_degrees: float | None
    batch_degrees: float | None


def measure_codecs(settings: Settings) -> Result:
    """Each codec beside ``dense:fp16:softmax``."""
    whole = _measure("dense:fp16:softmax", settings.repeats)
    losses = [_measure(text, settings.repeats) for text in CODECS]
    figures = [
        Figure(_words(loss), loss.packed, "tokens/s of a core", whole.packed, f"as {whole.codec}")
        for loss in losses
    ]
    notes = [f"{TOKENS} rows of {VOCABULARY:,}, float32, a mixture of Zipf laws; hidden on rows of its own"]
    return Result(figures, notes=notes)


def _words(loss: Loss) -> str:
    words = f"{loss.codec}: {loss.token_bytes:,.0f} bytes"
    if loss.divergence is not None:
        words += f", {loss.divergence:.1e} nats"
    if loss.token_degrees is not None and loss.batch_degrees is not None:
        words += f", gradient off by {loss.token_degrees:.2f}° a token, {loss.batch_degrees:.2f}° a batch"
    return f"{words}; decoded at {loss.decoded:,.0f}"


@functools.cache
def rows(tokens: int, vocabulary: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits of teacher and student, float32 [tokens, vocabulary] each."""
    generator = torch.Generator().manual_seed(seed)
    rank = torch.arange(1, vocabulary + 1).log()
    everywhere = (-rank).log_softmax(-1)
    teacher, student = torch.empty(tokens, vocabulary), torch.empty(tokens, vocabulary)
    for row in range(tokens):
        steep = 1 + 2 * torch.rand((), generator=generator)
        # Words near the front of the law of all words stay near the front, as frequent words do.
        order = (rank + torch.randn(vocabulary, generator=generator) * 2).argsort()
        here = torch.empty(vocabulary).scatter_(0, order, (-steep * rank).log_softmax(-1))
        share = torch.rand((), generator=generator) ** 0.25 * 0.999
        teacher[row] = torch.logaddexp(here + share.log(), everywhere + (1 - share).log())
        student[row] = torch.logaddexp(here + (share / 2).log(), everywhere + (1 - share / 2).log())
    return teacher, student + torch.randn(student.shape, generator=generator) * 0.3


def _measure(text: str, repeats: int) -> Loss:
    teacher, student = rows(TOKENS, VOCABULARY)
    codec, outputs = parse_codec(text), {"logits": teacher}
    model = nn.Module()
    if text == "hidden":
        generator = torch.Generator().manual_seed(1)
        model.head = nn.Linear(FEATURES, VOCABULARY, bias=False)
        model.head.weight.data = torch.randn(VOCABULARY, FEATURES, generator=generator) * 3 / FEATURES**0.5
        outputs = {"hidden": torch.randn(TOKENS, FEATURES, generator=generator)}
        teacher = outputs["hidden"] @ model.head.weight.data.T
        codec = codec.serving(model)
    asked = {GATHER_IDS: student.argmax(-1, keepdim=True)}
    packed = codec.pack(outputs, asked).tensors
    (labels,) = codec.decode(packed).values()
    wanted = student.softmax(-1) - teacher.softmax(-1)
    got = _gradient(labels, student, model)
    return Loss(
        codec=text,
        token_bytes=sum(tensor.nbytes for tensor in packed.values()) / TOKENS,
        packed=TOKENS / _seconds(lambda: codec.pack(outputs, asked), repeats),
        decoded=TOKENS / _seconds(lambda: codec.decode(packed), repeats),
        divergence=_divergence(labels, teacher, model),
        token_degrees=None if got is None else _degrees(got, wanted).median().item(),
        batch_degrees=None if got is None else _of_a_head(got, wanted),
    )


def _seconds(call: Callable[[], object], repeats: int) -> float:
    """CPU time on one thread: it is nearly the same whatever else runs on the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        call()
        taken = []
        for _ in range(max(3, repeats)):
            begun = time.process_time()
            call()
            taken.append(max(time.process_time() - begun, 1e-6))
    finally:
        torch.set_num_threads(threads)
    return statistics.median(taken)


def _whole(labels: Labels, model: nn.Module) -> Tensor:
    """The logits of labels that have all of them."""
    if isinstance(labels, HiddenLabels):
        with torch.no_grad():
            return labels.logits(model.head.weight)  # type: ignore[arg-type]
    assert isinstance(labels, Tensor)
    return labels.float()


def _divergence(labels: Labels, teacher: Tensor, model: nn.Module) -> float | None:
    log_p = teacher.double().log_softmax(-1)
    if isinstance(labels, SampledLabels | GatheredLabels):
        return None
    if isinstance(labels, TopKLabels):
        kept = ~labels.log_probs.isneginf()
        there = torch.zeros_like(log_p, dtype=torch.bool).scatter_(-1, labels.ids, kept)
        rest = log_p.masked_fill(there, -math.inf).logsumexp(-1, keepdim=True)
        log_q = torch.cat([labels.log_probs, labels.log_tail.unsqueeze(-1)], dim=-1).double()
        log_p = torch.cat([log_p.gather(-1, labels.ids).masked_fill(~kept, -math.inf), rest], dim=-1)
    else:
        log_q = _whole(labels, model).double().log_softmax(-1)
    p = log_p.exp()
    return (p * (log_p - log_q)).where(p > 0, 0.0).sum(-1).mean().item()


def _gradient(labels: Labels, student: Tensor, model: nn.Module) -> Tensor | None:
    """Of the forward KL divergence to the student's logits; the rest of ``topk`` is one entry."""
    q = student.softmax(-1)
    if isinstance(labels, GatheredLabels):
        return None
    if isinstance(labels, SampledLabels):
        return q - labels.dense()
    if not isinstance(labels, TopKLabels):
        return q - _whole(labels, model).softmax(-1)
    kept = labels.log_probs.exp()
    there = torch.zeros_like(q).scatter_(-1, labels.ids, (kept > 0).float())
    rest = (q * (1 - there)).sum(-1, keepdim=True)
    share = labels.log_tail.exp().unsqueeze(-1) / rest.clamp(min=1e-12)
    return q - torch.where(there > 0, torch.zeros_like(q).scatter_(-1, labels.ids, kept), q * share)


def _degrees(one: Tensor, other: Tensor) -> Tensor:
    return torch.rad2deg(F.cosine_similarity(one.double(), other.double(), dim=-1).clamp(-1, 1).acos())


def _of_a_head(one: Tensor, other: Tensor) -> float:
    """Of the gradients of a head's weights, with random features of 64."""
    features = torch.randn(one.shape[0], 64, generator=torch.Generator().manual_seed(2))
    return _degrees((one.T @ features).flatten(), (other.T @ features).flatten()).item()


def _print_table(losses: Iterable[Loss]) -> None:
    titles = (
        "bytes a token",
        "packed, tokens/s of a core",
        "decoded",
        "KL, nats",
        "off, a token",
        "off, a batch",
    )
    print(f"| codec | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles), sep="\n")
    for loss in losses:
        nats = "" if loss.divergence is None else f"{max(loss.divergence, 0):.1e}"
        angles = ["" if each is None else f"{each:.2f}°" for each in (loss.token_degrees, loss.batch_degrees)]
        cells = [f"`{loss.codec}`", f"{loss.token_bytes:,.0f}", f"{loss.packed:,.0f}", f"{loss.decoded:,.0f}"]
        print(f"| {' | '.join([*cells, nats, *angles])} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("codecs", nargs="*", default=list(CODECS), help="only these")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    _print_table(_measure(text, given.repeats) for text in given.codecs)
