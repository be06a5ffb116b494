"""What a loop may get: for every sample the labels that were computed for it, by whom it is for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edldist.labels.codec import make_codec
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.teacher_inputs import PLACES, VERSION
from edldist.student.inputs.route import Route
from tests.simulation.worker import labels_of

if TYPE_CHECKING:
    from tests.simulation.rank import RankProcess
    from tests.simulation.setup import Setup

__all__ = ["label_faults", "route_of"]


def route_of(setup: Setup) -> Route | None:
    """To which teacher each sample goes, by its number."""
    return Route(lambda batch: batch["id"] % len(setup.teachers), setup.teachers) if setup.route else None


def label_faults(rank: RankProcess, batch: OpenBatch, ids: list[int]) -> Iterator[str]:
    """What is wrong with the labels of a batch of these samples."""
    setup, packed = rank.world.setup, batch.labels()
    asked = batch.batch["asked"] if setup.sequences else torch.ones(len(ids), 1, dtype=torch.bool)
    samples = batch.batch["tokens"] if setup.sequences else torch.tensor(ids).unsqueeze(1)
    if not batch.labelled and asked.any():
        yield f"{rank.name} goes on with {ids} without any labels"
    for place, teacher in enumerate(setup.teachers):
        if teacher in batch.passed_over:
            rank.world.missed += 1
            if setup.skip_after_s is None or teacher != setup.teachers[-1]:
                yield f"{rank.name} goes on without labels of {teacher}, for which it has to wait"
            continue
        tensors = packed.get(teacher, {})
        places: Tensor | None = tensors.pop(PLACES, None)
        version: Tensor | int = tensors.pop(VERSION, 0)
        whose = torch.tensor([not setup.route or id_ % len(setup.teachers) == place for id_ in ids])
        wanted = asked & whose.unsqueeze(1)
        if not wanted.any():
            continue
        codec = rank.service.codec(teacher) if batch.codec is None else make_codec(batch.codec)
        got = codec.decode(tensors)["logits"]
        if places is not None:
            if not torch.equal(places.reshape(wanted.shape) >= 0, wanted):
                yield f"{rank.name} has labels of {teacher} at {places} for samples {ids}"
            got = got[places[places >= 0]]
        if setup.versions is not None:
            oldest = rank.service._standards.oldest_version(teacher)
            if min(version.tolist()) < oldest:
                yield f"{rank.name} got labels of versions {version} of {teacher}, before {oldest}"
        right = labels_of(samples[wanted], teacher, version)
        if torch.equal(got, right):
            continue
        wrong = (got - right)[:, 0]
        if not torch.equal(got, right + wrong.unsqueeze(1)):
            yield f"{rank.name} got {got} of {teacher} for samples {ids}"
        for by in set(wrong.tolist()) - {0.0}:
            worker = rank.world.outlier(by)
            if worker is None:
                yield f"{rank.name} got {got} of {teacher} for samples {ids}"
            elif rank.has_put_aside(worker):
                yield f"{rank.name} took labels of {worker.name} for {ids}, which it had put aside"
