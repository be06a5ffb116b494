"""Writing one checkpoint: every rank its own files, agreement, and then the commit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from typing import TYPE_CHECKING

import msgspec
import torch

from edldist.checkpoint.manifest import MANIFEST, MARKER, FileEntry, Manifest, digest
from edldist.checkpoint.rank_state import RankState, write_rank_state
from edldist.checkpoint.sameness import SharedValues, require_same
from edldist.checkpoint.stores.store import Store
from edldist.checkpoint.tensorfile import TENSORS_FILE, write_tensors
from edldist.checkpoint.tree import Json
from edldist.errors import CheckpointError
from edldist.ranks.agreement import Ranks, describe

if TYPE_CHECKING:
    from edldist.checkpoint.shards import Shards

__all__ = ["STATE_FILE", "CheckpointWriter", "Save", "is_rng_file", "rng_file"]

logger = logging.getLogger(__name__)

STATE_FILE = "state.json"


class Save(msgspec.Struct, frozen=True):
    """What the background thread needs of one save; nothing in it is shared with training.

    Attributes:
        shared: what has to be equal on all ranks.
        whole: tensors for this rank to write alone; none but on rank 0.
        sharded: tensors of which every rank writes its part; None if there are none, on any rank.
        own: what this rank has of its own.
    """

    step: int
    tree: dict[str, Json]
    shared: dict[str, SharedValues]
    whole: dict[str, torch.Tensor]
    sharded: Shards | None
    own: RankState
    rng: bytes
    began: float


class CheckpointWriter:
    """Writes checkpoints to a store, on every rank at once.

    Owned by the background thread of a `Checkpointer` while a save is under way.

    Attributes:
        unwanted: checkpoints that a restore found damaged or went back behind; removed once a new one is
            durable.
        abandoned: nothing is to become a checkpoint any more: the group that writes is no more. Set by any
            thread.
    """

    def __init__(self, ranks: Ranks, store: Store, keep: int, job: str | None) -> None:
        self._ranks = ranks
        self._store = store
        self._keep = keep
        self._job = job
        self.unwanted: set[str] = set()
        self.abandoned = False

    def write(self, work: Save) -> int:
        """Write and commit one checkpoint, or leave no trace of it. A collective.

        Returns:
            Its bytes.

        Raises:
            CheckpointError: a rank failed, the ranks' states differ, or another group has the place; raised
                on every rank.
        """
        ranks = self._ranks
        require_same(ranks, work.step, work.shared)
        draft = ranks.lead(lambda: self._begin(work.step))
        try:
            if work.sharded:  # on all ranks or none, which was compared
                ranks.each(lambda: str(self._store.folder(draft)))
                work.sharded.write(ranks, self._store.folder(draft))
            outcomes = ranks.each(lambda: self._write_own(draft, work))
            size: int = ranks.lead(lambda: self._commit(draft, work, outcomes))
        except BaseException:
            if ranks.rank == 0:
                self._store.discard(draft)
            raise
        finally:
            self._store.forget(draft)
        return size

    def _begin(self, step: int) -> str:
        self._store.guard()
        return self._store.begin(step)

    def _write_own(self, draft: str, work: Save) -> Json:
        """Complete, hash and seal this rank's files."""
        rank, folder = self._ranks.rank, self._store.folder(draft)
        (folder / rng_file(rank)).write_bytes(work.rng)
        names = [rng_file(rank), *write_rank_state(folder, rank, work.own)]
        if rank == 0:
            (folder / STATE_FILE).write_text(json.dumps(work.tree, allow_nan=False))
            write_tensors(folder / TENSORS_FILE, work.whole)
            names += [STATE_FILE, TENSORS_FILE]
        if work.sharded:
            names += work.sharded.files(self._ranks, folder)
        entries = {}
        for name in names:
            with open(folder / name, "rb") as stream:
                entries[name] = msgspec.to_builtins(digest(stream))
        self._store.seal(draft, names)
        return entries

    def _commit(self, draft: str, work: Save, outcomes: list[Json]) -> int:
        """Make the draft a checkpoint, then let old ones go. Rank 0 only. Returns its bytes."""
        files: dict[str, FileEntry] = {}
        for rank, outcome in enumerate(outcomes):
            for file, entry in msgspec.convert(outcome, dict[str, FileEntry]).items():
                with contextlib.suppress(FileNotFoundError):
                    if self._store.size(draft, file) == entry.bytes:
                        files[file] = entry
                        continue
                raise CheckpointError(
                    f"rank 0 does not see {file} as rank {rank} wrote it to {self._store.url}: "
                    "the checkpoint directory must be one that all ranks share"
                )
        manifest = Manifest(work.step, self._job, self._ranks.world_size, time.time(), files)
        text = manifest.encode()
        (self._store.folder(draft) / MANIFEST).write_bytes(text)
        self._store.seal(draft, [MANIFEST])
        self._store.guard()
        if self.abandoned:
            raise CheckpointError("the group of ranks has changed while this checkpoint was written")
        name = self._store.commit(draft, f"{hashlib.sha256(text).hexdigest()}\n".encode())
        try:
            self._let_go(work.step, name)
        except Exception as exc:
            logger.warning("cannot remove old checkpoints in %s: %s", self._store.url, describe(exc))
        return manifest.total_bytes

    def _let_go(self, step: int, name: str) -> None:
        """Delete what `keep` does not cover, now that the checkpoint `name` is durable."""
        self.unwanted.discard(name)
        kept = 1
        for other_step, other in self._store.checkpoints():
            if other == name:
                continue
            doomed = other_step == step or other in self.unwanted or kept >= self._keep
            if not doomed:
                try:
                    with contextlib.closing(self._store.open(other, MARKER)):
                        kept += 1
                except FileNotFoundError:
                    doomed = True
            if doomed:
                self._store.guard()
                self._store.delete(other)
            elif other_step > step:
                logger.warning(
                    "%s holds %s, newer than step %d: a restore would take that one",
                    self._store.url,
                    other,
                    step,
                )
        self.unwanted.clear()


def rng_file(rank: int) -> str:
    """Name of the file with a rank's random-number state."""
    return f"rng-{rank:05d}.json"


def is_rng_file(name: str) -> bool:
    return name.startswith("rng-")
