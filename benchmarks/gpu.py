"""A real pair on one GPU: a ResNet-101 teaches a ResNet-50 on generated images of ImageNet's shape.

``python -m edldist_benchmarks.gpu --tiny`` runs the same code with tiny shapes on any processor, to see
that it works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import edldist
from edldist.labels.places import in_samples
from edldist.teacher.passes.forward import Computed
from edldist.teacher.passes.lane import Flight, lane_for
from edldist_benchmarks import resnet
from edldist_benchmarks.figures import Figure, NotMeasuredError, Result, Settings, interleave, rate
from edldist_benchmarks.job import open_job

Batches = Iterator[tuple[Tensor, dict[str, Tensor]]]

__all__ = ["FULL", "TINY", "Pair", "measure_gpu", "measure_pair"]

UNDER_WAY = 2
"""Steps that are enqueued before the host waits for the first of them."""
LONGER = 5
"""Runs are so many times as long as elsewhere: the queue's buffer has to fill or empty first."""


@dataclass(frozen=True)
class Pair:
    """Teacher and student (factories in ``benchmarks.resnet``), and what they run on."""

    device: str
    teacher: str
    student: str
    batch: int
    side: int
    classes: int

    def model(self, factory: str) -> nn.Module:
        model: nn.Module = getattr(resnet, factory)().to(self.device, memory_format=torch.channels_last)
        return model

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, dtype=torch.bfloat16)

    def images(self) -> Tensor:
        images = torch.randint(0, 256, (self.batch, 3, self.side, self.side), dtype=torch.uint8)
        return images.pin_memory() if self.device == "cuda" else images

    def on_device(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True, memory_format=torch.channels_last)


FULL = Pair("cuda", teacher="resnet101", student="resnet50", batch=128, side=224, classes=1000)
TINY = Pair("cpu", teacher="tiny", student="tiny", batch=4, side=32, classes=10)


def measure_gpu(settings: Settings) -> Result:
    """Teacher, student and both, alone and through the queue, on one card."""
    if not torch.cuda.is_available():
        raise NotMeasuredError("no CUDA device here; where there is one: edldist bench gpu")
    result = measure_pair(FULL, settings)
    result.notes.append(f"on {torch.cuda.get_device_name()}, bf16, channels-last, batches of {FULL.batch}")
    return result


def measure_pair(pair: Pair, settings: Settings) -> Result:
    """All figures of one pair, in images a second."""
    on_card = {"device": pair.device} if pair.device == "cuda" else {}
    with open_job() as job:
        options = ["--device", pair.device, "--autocast", "bf16", "--channels-last"]
        job.teacher(f"edldist_benchmarks.resnet:{pair.teacher}", pair.batch, options=options)
        batches = iter(job.loader(itertools.repeat(pair.images()), workers=1, **on_card))
        figures = [*_teacher_alone(pair, settings, batches), *_student(pair, settings, batches)]
    return Result([*figures, *_overlap(pair, settings)])


def _teacher_alone(pair: Pair, settings: Settings, batches: Batches) -> list[Figure]:
    """A real worker that labels for a loop which does nothing, against bare forward passes."""
    seconds = LONGER * settings.seconds
    label, images, throttle = _labeller(pair), pair.on_device(pair.images()), _Throttle(pair.device)

    def bare() -> None:
        label(images)
        throttle()

    runs = interleave(
        settings.repeats,
        worker=lambda: pair.batch * rate(lambda: next(batches), seconds),
        bare=lambda: pair.batch * rate(bare, seconds),
    )
    return [Figure.median_of("teacher worker", "images/s", runs["worker"], runs["bare"], "bare forward")]


def _student(pair: Pair, settings: Settings, batches: Batches) -> list[Figure]:
    """The student's loop: labels in memory, from a worker on the same card, and from its own process."""
    seconds = LONGER * settings.seconds
    images, label, train = pair.images(), _labeller(pair), _trainer(pair)
    known = label(pair.on_device(images))
    throttle = _Throttle(pair.device)

    def plain() -> None:
        train(pair.on_device(images), known)
        throttle()

    def online() -> None:
        placed = pair.on_device(images)
        train(placed, label(placed))
        throttle()

    def queued() -> None:
        batch, labels = next(batches)
        train(pair.on_device(batch), labels["logits"])
        throttle()

    runs = interleave(
        settings.repeats,
        plain=lambda: pair.batch * rate(plain, seconds),
        queued=lambda: pair.batch * rate(queued, seconds),
        online=lambda: pair.batch * rate(online, seconds),
    )
    unit = "images/s"
    return [
        Figure.median_of("student alone", unit, runs["plain"]),
        Figure.median_of("both, through the queue", unit, runs["queued"], runs["plain"], "student alone"),
        Figure.median_of("both, in one process", unit, runs["online"], runs["plain"], "student alone"),
        Figure.median_of("through the queue", unit, runs["queued"], runs["online"], "in one process"),
    ]


def _overlap(pair: Pair, settings: Settings) -> list[Figure]:
    """The worker's own lane: passes that overlap their copies, against one after another."""
    lane, label, images = lane_for(torch.device(pair.device)), _labeller(pair), pair.images()
    flights: deque[Flight] = deque()

    def compute(inputs: Mapping[str, Tensor]) -> Computed:
        outputs = {"logits": label(inputs["0"])}
        return Computed(outputs, {}, outputs, None, in_samples)

    def one_by_one() -> None:
        lane.launch([{"0": images}], compute).wait()

    def overlapped() -> None:
        flights.append(lane.launch([{"0": images}], compute))
        if len(flights) >= lane.depth:
            flights.popleft().wait()

    runs = interleave(
        settings.repeats,
        overlapped=lambda: pair.batch * rate(overlapped, settings.seconds),
        one_by_one=lambda: pair.batch * rate(one_by_one, settings.seconds),
    )
    name = "one after another"
    return [
        Figure.median_of("copies under compute", "images/s", runs["overlapped"], runs["one_by_one"], name)
    ]


def _labeller(pair: Pair) -> Callable[[Tensor], Tensor]:
    """The teacher in this process, as a worker runs it."""
    model = pair.model(pair.teacher).eval()

    def label(images: Tensor) -> Tensor:
        with torch.inference_mode(), pair.autocast():
            logits: Tensor = model(images.contiguous(memory_format=torch.channels_last))
        return logits.float()

    return label


def _trainer(pair: Pair) -> Callable[[Tensor, Tensor], None]:
    """One step of the student, on images and soft labels that are on the device."""
    model = pair.model(pair.student)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    hard = torch.randint(0, pair.classes, (pair.batch,), device=pair.device)

    def train(images: Tensor, soft: Tensor) -> None:
        soft = soft.to(pair.device, torch.float32, non_blocking=True).clone()
        with pair.autocast():
            logits = model(images)
        loss = edldist.losses.kd(logits.float(), soft, hard, temperature=4.0, alpha=0.9)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return train


class _Throttle:
    """Keeps the host a few steps ahead of the device and no more, so that steps are counted as they end."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._events: deque[torch.cuda.Event] = deque()

    def __call__(self) -> None:
        if not self._cuda:
            return
        self._events.append(torch.cuda.current_stream().record_event())
        if len(self._events) > UNDER_WAY:
            self._events.popleft().synchronize()


def main() -> None:
    from rich.console import Console

    from edldist_benchmarks.catalog import ROWS, Outcome
    from edldist_benchmarks.machine import describe_machine, machine_line
    from edldist_benchmarks.report import print_report

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument("--repeats", type=int, default=Settings.repeats)
    parser.add_argument("--seconds", type=float, default=Settings.seconds)
    options = parser.parse_args()
    settings = Settings(options.repeats, options.seconds)
    result = measure_pair(TINY, settings) if options.tiny else measure_gpu(settings)
    row = next(row for row in ROWS if row.name == "gpu")
    print_report(Console(), [Outcome(row, "measured", 0.0, result)], machine_line(describe_machine()))


if __name__ == "__main__":
    main()
