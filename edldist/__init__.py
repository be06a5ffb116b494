"""Elastic knowledge distillation: teachers and students as separate elastic groups.

The names below are imported on first use, so that ``import edldist`` costs nothing and the
coordinator, the launcher and ``status`` never load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edldist import errors, losses, optim, vocabulary
    from edldist.checkpoint.checkpointer import Checkpointer
    from edldist.lifecycle.stopping import should_stop
    from edldist.live.group import LiveGroup
    from edldist.observe.reporter import report
    from edldist.sampling.sampler import ElasticSampler
    from edldist.stability.guard import SpikeGuard
    from edldist.store.label_store import LabelStore
    from edldist.store.sample_key import augmentation_seed
    from edldist.student.inputs.ids import SampleIds
    from edldist.student.inputs.sequences import Sequences
    from edldist.student.loader import DistillLoader
    from edldist.student.memory.collating import collate
    from edldist.student.requests import LabelRequests
    from edldist.vocabulary.wanted import Vocabulary
    from edldist.weights.average import WeightAverage
    from edldist.weights.published import PublishedWeights

__all__ = [
    "Checkpointer",
    "DistillLoader",
    "ElasticSampler",
    "LabelRequests",
    "LabelStore",
    "LiveGroup",
    "PublishedWeights",
    "SampleIds",
    "Sequences",
    "SpikeGuard",
    "Vocabulary",
    "WeightAverage",
    "__version__",
    "augmentation_seed",
    "collate",
    "errors",
    "losses",
    "optim",
    "report",
    "should_stop",
    "vocabulary",
]

__version__ = "0.1.0"

_HOMES = {
    "Checkpointer": "edldist.checkpoint.checkpointer",
    "DistillLoader": "edldist.student.loader",
    "ElasticSampler": "edldist.sampling.sampler",
    "LabelRequests": "edldist.student.requests",
    "LabelStore": "edldist.store.label_store",
    "LiveGroup": "edldist.live.group",
    "PublishedWeights": "edldist.weights.published",
    "SampleIds": "edldist.student.inputs.ids",
    "Sequences": "edldist.student.inputs.sequences",
    "SpikeGuard": "edldist.stability.guard",
    "Vocabulary": "edldist.vocabulary.wanted",
    "WeightAverage": "edldist.weights.average",
    "augmentation_seed": "edldist.store.sample_key",
    "collate": "edldist.student.memory.collating",
    "report": "edldist.observe.reporter",
    "should_stop": "edldist.lifecycle.stopping",
}
_MODULES = ("errors", "losses", "optim", "vocabulary")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"edldist.{name}")
    raise AttributeError(f"module 'edldist' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
