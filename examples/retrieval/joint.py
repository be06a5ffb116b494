"""The teacher that learns beside the student (RocketQAv2): whoever trains it publishes it, and workers
follow."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

import edldist
from edldist import losses
from examples.retrieval.models import KINDS, teacher
from examples.retrieval.prepare import weights
from examples.retrieval.recipe import Judged, optimization

__all__ = ["LearningTeacher"]

_EVERY, _PUBLISHED_EVERY = 2, 20  # steps of the student


class LearningTeacher:
    """A copy of the cross-encoder that all ranks train on the lists that they train the student on.

    It takes a step for every two of the student, on half of the lists that the workers have judged; they see
    it once it has been published, every 20 steps.
    """

    def __init__(self, seed: int, encoder: str, place: Path) -> None:
        self.model = teacher(seed, encoder)
        self.model.load_state_dict(load_file(weights(seed, encoder)[1]))
        self.optimizer = optimization(self.model, KINDS[encoder].joint_rate)
        self._published = edldist.PublishedWeights(place)
        self._parallel: torch.nn.Module = self.model
        self.published = 0  # the last version

    def start(self) -> None:
        """Publish what was prepared, or restored from a checkpoint."""
        if torch.distributed.is_initialized():
            # Its buffers are the collection, which every rank has.
            self._parallel = DistributedDataParallel(self.model, broadcast_buffers=False)
        self._publish()

    def learn(self, batch: dict[str, Tensor], judged: Judged, student_scores: Tensor, step: int) -> None:
        """Tell right passages from wrong ones, and order the list a little more as the student does.

        The cross-entropy of the lists' annotation, denoised, and ``KL(student || teacher)``: RocketQAv2,
        section 3.2; but for each passage by itself, as what is read off the scores are chances.
        """
        if step % _EVERY == 0:
            scores = self._parallel(batch["query"], batch["passages"])["scores"]
            right = torch.zeros_like(judged.answers).scatter(1, judged.right.unsqueeze(1), True)
            told = (right | ~judged.answers) & judged.counts.unsqueeze(1)
            chances = F.binary_cross_entropy_with_logits(scores, right.float(), reduction="none")
            loss = chances[told].sum() / told.sum().clamp(min=1) + losses.ranking(scores, student_scores)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        if step % _PUBLISHED_EVERY == 0:
            self._publish()

    def _publish(self) -> None:
        self.published = self._published.publish(self.model) or 0

    def close(self) -> None:
        self._published.close()
