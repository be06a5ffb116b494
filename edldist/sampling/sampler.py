"""Which samples a rank reads: the same sequence of global batches at every world size."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from edldist.errors import CheckpointError, ConfigError
from edldist.lifecycle import exit_hooks
from edldist.ranks.placement import placement
from edldist.sampling.draws import splitmix64

__all__ = ["ElasticSampler", "Part"]


_iterated = threading.local()


class Part(NamedTuple):
    """One rank's part of one global batch.

    Attributes:
        start: position in the epoch's order of the rank's first sample.
        global_samples: size of the whole global batch.
        local_samples: how many of them are this rank's; 0 where the rank has only padding.
        weight: ``world_size * local_samples / global_samples``. Multiply the rank's *mean* loss by it,
            and the mean of the ranks' gradients, which DDP takes, is the gradient of the global
            batch's mean loss. 1.0 whenever the parts are equal.
    """

    start: int
    global_samples: int
    local_samples: int
    weight: float

    @property
    def listed_samples(self) -> int:
        """How many indices the sampler yields for it: one of padding where no sample is left."""
        return max(1, self.local_samples)


class ElasticSampler(Sampler[list[int]]):
    """Yield this rank's index lists of an epoch whose global batches no resize can change.

    A batch sampler: ``DataLoader(dataset, batch_sampler=ElasticSampler(len(dataset), 256))``. The
    epoch's order is a permutation from (seed, epoch); a global batch is the next
    ``global_batch_size`` samples of it; the ranks take contiguous parts whose sizes differ by at most
    one, the larger ones first.

    The position is (``epoch``, ``samples``): what the training loop has *consumed*, over all ranks.
    Iterating starts there and does not move it, because a data loader reads ahead. A
    ``DistillLoader`` moves it as its batches are consumed; without one, call ``advance()`` after each
    step::

        for epoch in range(sampler.epoch, epochs):
            sampler.set_epoch(epoch)
            for batch in data_loader:
                weight = sampler.part(sampler.samples).weight
                (weight * loss(batch)).backward()
                optimizer.step()
                sampler.advance()

    When a last short global batch has fewer samples than there are ranks, a rank without a part gets
    that batch's first sample once more, with weight 0, so that every rank still takes the step that
    DDP's collectives wait for. Its gradient counts for nothing, but the forward pass sees it: running
    statistics such as BatchNorm's do too. ``drop_last=True`` avoids that.

    Owned by the thread of the training loop. A checkpoint holds ``state_dict()``, which knows no world
    size: it restores at any other one. Not guaranteed: that a wrapped data loader that is already
    iterating notices ``set_epoch``, ``load_state_dict`` or a resize; these count from the next
    ``iter()``.

    Args:
        n: samples in the data set.
        global_batch_size: samples of one optimizer step, over all ranks.
        seed: any integer; with the epoch it fixes the order.
        shuffle: False keeps the data set's order in every epoch.
        drop_last: leave out the last global batch of an epoch if it is short.
        rank: this rank, or None to ask the process group, then ``RANK``, then 0, at each use.
        world_size: number of ranks, or None to ask the process group, then ``WORLD_SIZE``, then 1.

    Raises:
        ConfigError: a value is out of range, or the values do not fit each other.
    """

    def __init__(
        self,
        n: int,
        global_batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        exit_hooks.install()
        super().__init__()
        self.n = _checked_int("n", n, minimum=1)
        self.global_batch_size = _checked_int("global_batch_size", global_batch_size, minimum=1)
        self.seed = _checked_int("seed", seed)
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0
        self._samples = 0
        if self.drop_last and self.n < self.global_batch_size:
            raise ConfigError(
                f"ElasticSampler: drop_last=True leaves nothing of n={self.n} samples with "
                f"global_batch_size={self.global_batch_size}: lower global_batch_size or keep the last batch"
            )
        self._placement()

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return self._epoch

    @property
    def samples(self) -> int:
        """Samples of this epoch consumed so far, over all ranks."""
        return self._samples

    @property
    def epoch_samples(self) -> int:
        """Samples of a whole epoch: ``n``, or less with ``drop_last``."""
        if self.drop_last:
            return self.n // self.global_batch_size * self.global_batch_size
        return self.n

    @property
    def batches_per_epoch(self) -> int:
        """Global batches of a whole epoch, wherever the position is."""
        return -(-self.epoch_samples // self.global_batch_size)

    @property
    def rank(self) -> int:
        """This rank, as it is now."""
        return self._placement()[0]

    @property
    def world_size(self) -> int:
        """The number of ranks, as it is now."""
        return self._placement()[1]

    def __len__(self) -> int:
        """Batches left in this epoch from the position on; the same on every rank."""
        return -(-(self.epoch_samples - self._samples) // self.global_batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Iterate over this rank's index lists from the position on, without moving it."""
        _iterated.times = self.iterated() + 1
        rank, world_size = self._placement()
        # Taken now rather than at the first next(): the position may move in between.
        return self._index_lists(self._samples, self._order(), rank, world_size)

    @staticmethod
    def iterated() -> int:
        """How often any of them was iterated in this thread: whether one is at work inside something."""
        times: int = getattr(_iterated, "times", 0)
        return times

    def part(self, position: int) -> Part:
        """This rank's part of the global batch that starts after ``position`` samples of the epoch.

        Raises:
            ConfigError: no global batch starts there.
        """
        position = _checked_int("position", position, minimum=0)
        if position % self.global_batch_size or position >= self.epoch_samples:
            raise ConfigError(
                f"ElasticSampler: no global batch starts at position={position}: it must be a multiple of "
                f"global_batch_size={self.global_batch_size} below the epoch's {self.epoch_samples} samples"
            )
        return self._part(position, *self._placement())

    def advance(self, samples: int | None = None) -> None:
        """Count samples as consumed; the loop's next position is behind them.

        Args:
            samples: over all ranks, a number of whole global batches; None for the next one.

        Raises:
            ConfigError: the epoch has no such batches left, or the position would fall inside one.
        """
        left = self.epoch_samples - self._samples
        if samples is None:
            samples = min(self.global_batch_size, left)
            if samples == 0:
                raise ConfigError(
                    f"ElasticSampler: epoch {self._epoch} is at its end ({self._samples} samples): call "
                    f"set_epoch({self._epoch + 1}) before advance()"
                )
        samples = _checked_int("samples", samples, minimum=0)
        position = self._samples + samples
        if not self._is_boundary(position):
            raise ConfigError(
                f"ElasticSampler: cannot advance by samples={samples} from {self._samples} of "
                f"{self.epoch_samples} in epoch {self._epoch}: count whole global batches of "
                f"{self.global_batch_size} samples over all ranks, and call set_epoch for the next epoch"
            )
        self._samples = position

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; naming the current one keeps the position, to resume inside it.

        Raises:
            ConfigError: ``epoch`` is negative or no integer.
        """
        epoch = _checked_int("epoch", epoch, minimum=0)
        if epoch != self._epoch:
            self._epoch = epoch
            self._samples = 0

    def state_dict(self) -> dict[str, int | bool]:
        """The position, and the settings it depends on."""
        return {"epoch": self._epoch, "samples": self._samples, **self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved position; nothing changes if it is refused.

        Raises:
            CheckpointError: a key is missing or malformed, a setting differs from this sampler's, or
                the position is inside a global batch.
        """
        settings = self._settings()
        missing = [key for key in ("epoch", "samples", *settings) if key not in state]
        if missing:
            raise CheckpointError(f"ElasticSampler: the saved state lacks {missing}; it has {sorted(state)}")
        for key, ours in settings.items():
            if state[key] != ours:
                raise CheckpointError(
                    f"ElasticSampler: the checkpoint was made with {key}={state[key]!r}, this sampler has "
                    f"{key}={ours!r}: its position has no meaning here. Use the saved value, or start anew"
                )
        try:
            epoch = _checked_int("epoch", state["epoch"], minimum=0)
            samples = _checked_int("samples", state["samples"], minimum=0)
        except ConfigError as exc:
            raise CheckpointError(f"the saved state of a sampler is damaged: {exc}") from exc
        if not self._is_boundary(samples):
            raise CheckpointError(
                f"ElasticSampler: the saved position samples={samples} is no boundary of a global batch "
                f"(global_batch_size={self.global_batch_size}, {self.epoch_samples} samples an epoch)"
            )
        self._epoch = epoch
        self._samples = samples

    def _settings(self) -> dict[str, int | bool]:
        return {
            "n": self.n,
            "global_batch_size": self.global_batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def _is_boundary(self, position: int) -> bool:
        if position == self.epoch_samples:
            return True
        return position < self.epoch_samples and position % self.global_batch_size == 0

    def _order(self) -> Tensor:
        """The epoch's permutation, int64 [n]; on the CPU, so that it is the same everywhere."""
        if not self.shuffle:
            return torch.arange(self.n, device="cpu")
        generator = torch.Generator(device="cpu")
        generator.manual_seed(_order_seed(self.seed, self._epoch))
        return torch.randperm(self.n, generator=generator, dtype=torch.int64, device="cpu")

    def _index_lists(self, position: int, order: Tensor, rank: int, world_size: int) -> Iterator[list[int]]:
        while position < self.epoch_samples:
            part = self._part(position, rank, world_size)
            yield order[part.start : part.start + part.listed_samples].tolist()
            position += part.global_samples

    def _part(self, position: int, rank: int, world_size: int) -> Part:
        global_samples = min(self.global_batch_size, self.epoch_samples - position)
        each, larger = divmod(global_samples, world_size)
        local_samples = each + (rank < larger)
        offset = rank * each + min(rank, larger) if local_samples else 0
        return Part(
            start=position + offset,
            global_samples=global_samples,
            local_samples=local_samples,
            weight=world_size * local_samples / global_samples,
        )

    def _placement(self) -> tuple[int, int]:
        """(rank, world size) now: an elastic restart may change both during a sampler's life."""
        rank, world_size = self._rank, self._world_size
        if rank is None or world_size is None:
            here = placement()
            rank = here.rank if rank is None else rank
            world_size = here.world_size if world_size is None else world_size
        rank = _checked_int("rank", rank, minimum=0)
        world_size = _checked_int("world_size", world_size, minimum=1)
        if rank >= world_size:
            raise ConfigError(
                f"ElasticSampler: rank={rank} is outside world_size={world_size}: give both or neither"
            )
        if self.global_batch_size < world_size:
            raise ConfigError(
                f"ElasticSampler: global_batch_size={self.global_batch_size} cannot feed "
                f"world_size={world_size} ranks: raise it to at least {world_size}, or run at most "
                f"{self.global_batch_size} ranks"
            )
        return rank, world_size


def _order_seed(seed: int, epoch: int) -> int:
    """Mix both into the 32 bits that torch's CPU generator (mt19937) takes from its seed.

    ``mix(mix(seed) + epoch)`` with the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast Splittable
    Pseudorandom Number Generators", 2014). A sum alone would give (seed 1, epoch 0) the order of (seed 0,
    epoch 1), and anything in the upper bits alone would be ignored.
    """
    return splitmix64(splitmix64(seed) + epoch) & 0xFFFF_FFFF


def _checked_int(name: str, value: object, minimum: int | None = None) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError("a bool is no count")
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError as exc:
        raise ConfigError(f"ElasticSampler: {name}={value!r} must be an integer") from exc
    if minimum is not None and number < minimum:
        raise ConfigError(f"ElasticSampler: {name}={number} must be at least {minimum}")
    return number
