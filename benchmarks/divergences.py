"""Losses of a language model beside the same ones written plainly: time, and memory at its highest.

``python -m edldist_benchmarks.divergences CASE`` takes one step's loss, forwards and backwards, for each line
of its input, and answers with its seconds and with how many bytes it took beyond what was there before.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edldist_benchmarks.figures import Figure, Result, Settings
from edldist_benchmarks.processes import ROOT

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["measure_divergences"]

TOKENS, VOCABULARY, WIDTH, KEPT, DRAWN = 512, 50_257, 256, 64, 18

PAIRS = {
    "forward KL, all classes": ("kl", "plain kl"),
    "generalised Jensen-Shannon, all classes": ("js", "plain js"),
    "forward KL, topk:64": ("topk", "plain kl"),
    "forward KL, rs:18": ("drawn", "plain kl"),
    "forward KL, student's logits made a few rows at a time": ("projected", "plain projected"),
}
"""What is measured, and what it is compared with."""


def measure_divergences(settings: Settings) -> Result:
    """Each loss against a plain one that holds all softmaxes at once, in processes of their own."""
    figures = []
    for what, pair in PAIRS.items():
        ours, plain = (_steps(case, settings.repeats) for case in pair)
        for index, unit in enumerate(("s", "MB")):
            scale = 1.0 if unit == "s" else 1e6
            figures.append(
                Figure.median_of(
                    f"{what}: {'time of a step' if unit == 's' else 'memory'}",
                    unit,
                    [run[index] / scale for run in ours],
                    [run[index] / scale for run in plain],
                    f"{unit} {pair[1]}",
                )
            )
    notes = [f"{TOKENS:,} tokens, a vocabulary of {VOCABULARY:,}, float32"]
    return Result(figures, notes=notes)


def _steps(case: str, repeats: int) -> list[tuple[float, float]]:
    """Seconds and bytes of some steps, after one that warms up."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edldist_benchmarks.divergences", case],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    said, _ = process.communicate("\n" * (repeats + 1))
    if process.returncode:
        raise RuntimeError(f"the loss {case} failed")
    runs = [line.split() for line in said.splitlines()]
    return [(float(seconds), float(nbytes)) for seconds, nbytes in runs[1:]]


def _cases() -> dict[str, Callable[[], tuple[list[Tensor], Callable[..., Tensor]]]]:
    import torch
    import torch.nn.functional as F

    from edldist import losses
    from edldist.labels.typed import SampledLabels, TopKLabels

    generator = torch.Generator().manual_seed(0)

    def rows(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def plain_kl(student: Tensor, teacher: Tensor) -> Tensor:
        log_p, log_q = (F.log_softmax(x, -1) for x in (teacher, student))
        return F.kl_div(log_q, log_p, log_target=True, reduction="sum") / TOKENS

    def plain_js(student: Tensor, teacher: Tensor) -> Tensor:
        log_p, log_q = (F.log_softmax(x, -1) for x in (teacher, student))
        log_m = torch.logsumexp(torch.stack([log_p, log_q]), dim=0) - 0.6931471805599453
        two = (F.kl_div(log_m, x, log_target=True, reduction="sum") for x in (log_p, log_q))
        return sum(two) / (2 * TOKENS)  # type: ignore[return-value]

    def of_logits(loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[list[Tensor], Callable[..., Tensor]]:
        teacher = rows(TOKENS, VOCABULARY)
        return [rows(TOKENS, VOCABULARY)], lambda student: loss(student, teacher)

    def of_hidden(loss: Callable[..., Tensor]) -> tuple[list[Tensor], Callable[..., Tensor]]:
        teacher = rows(TOKENS, VOCABULARY)
        return [rows(TOKENS, WIDTH), rows(VOCABULARY, WIDTH)], lambda h, w: loss(h, w, teacher)

    def topk() -> tuple[list[Tensor], Callable[..., Tensor]]:
        values, ids = rows(TOKENS, VOCABULARY).mul_(3).log_softmax(-1).topk(KEPT)
        labels = TopKLabels(ids, values, (1 - values.exp().sum(-1)).log(), VOCABULARY)
        return [rows(TOKENS, VOCABULARY)], lambda student: losses.forward_kl(student, labels)

    def drawn() -> tuple[list[Tensor], Callable[..., Tensor]]:
        ids = torch.randint(VOCABULARY, (TOKENS, DRAWN), generator=generator)
        labels = SampledLabels(ids, torch.full((TOKENS, DRAWN), 1 / DRAWN), 0, VOCABULARY)
        return [rows(TOKENS, VOCABULARY)], lambda student: losses.forward_kl(student, labels)

    return {
        "kl": lambda: of_logits(losses.forward_kl),
        "plain kl": lambda: of_logits(plain_kl),
        "js": lambda: of_logits(losses.jensen_shannon),
        "plain js": lambda: of_logits(plain_js),
        "topk": topk,
        "drawn": drawn,
        "projected": lambda: of_hidden(lambda h, w, t: losses.forward_kl(losses.Projection(h, w), t)),
        "plain projected": lambda: of_hidden(lambda h, w, t: plain_kl(F.linear(h, w), t)),
    }


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class _Highest:
    """The most resident memory in a while, looked at every millisecond."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self.nbytes = _resident()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(0.001):
            self.nbytes = max(self.nbytes, _resident())

    def __enter__(self) -> _Highest:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()


def _serve(case: str) -> None:
    leaves, loss = _cases()[case]()
    for leaf in leaves:
        leaf.requires_grad_()
    for _ in sys.stdin:
        for leaf in leaves:
            leaf.grad = None
        before, began = _resident(), time.perf_counter()
        with _Highest() as highest:
            loss(*leaves).backward()  # type: ignore[no-untyped-call]
        print(time.perf_counter() - began, highest.nbytes - before, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
