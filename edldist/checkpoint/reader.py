"""Reading checkpoints: the newest sound one is chosen, compared with the state, read and put back."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch

from edldist.checkpoint import rank_state
from edldist.checkpoint.manifest import (
    DamagedError,
    Manifest,
    UnmarkedError,
    read_manifest,
    verify,
)
from edldist.checkpoint.rng import restore_rng, seed_new_rank
from edldist.checkpoint.snapshot import Snapshot
from edldist.checkpoint.stores.store import Store
from edldist.checkpoint.tensorfile import TENSORS_FILE, keys_of, read_tensors
from edldist.checkpoint.tree import Json
from edldist.checkpoint.writer import STATE_FILE, is_rng_file, rng_file
from edldist.errors import CheckpointError
from edldist.observe import reporter
from edldist.ranks.agreement import Ranks, describe

__all__ = ["CheckpointReader"]

logger = logging.getLogger(__name__)


class CheckpointReader:
    """Reads checkpoints of a store, on every rank at once.

    Owned by the thread that calls a `Checkpointer`; never used while a save is under way.

    Attributes:
        unwanted: checkpoints that the last restore found damaged, or passed over as too new.
    """

    def __init__(self, ranks: Ranks, store: Store, job: str | None) -> None:
        self._ranks = ranks
        self._store = store
        self._job = job
        self.unwanted: set[str] = set()

    def check_owner(self) -> None:
        """Refuse a directory that holds another job's checkpoints. Rank 0 only."""
        for _, name in self._listed():
            with contextlib.suppress(DamagedError):
                self._check_job(name, self._manifest(name))
                break

    def restore(self, here: Snapshot, at_most: int | None = None) -> Manifest | None:
        """Load the newest sound checkpoint of no later step into the objects of the state. A collective.

        Returns:
            What it consists of; None if there is none at all.

        Raises:
            CheckpointError: as `Checkpointer.restore` says; the same on all ranks.
        """
        ranks = self._ranks
        found = ranks.lead(lambda: self._choose(at_most))
        if found is None:
            return None
        name, manifest = found["name"], msgspec.convert(found["manifest"], Manifest)
        same_ranks = manifest.world_size == ranks.world_size
        with contextlib.ExitStack() as stack:
            folder, tree = Path(), {}
            targets: dict[str, torch.Tensor] = {}
            own: dict[str, list[Any]] = {}

            def prepare() -> None:
                nonlocal folder, tree, targets, own
                with self._reading(name):
                    folder = stack.enter_context(self._store.fetch(name, self._own_files(manifest)))
                tree = json.loads((folder / STATE_FILE).read_bytes())
                if same_ranks and rank_state.rank_file(ranks.rank) in manifest.files:
                    own = rank_state.read_rank_state(folder, ranks.rank)
                if lines := here.differences(tree, own):
                    raise CheckpointError(
                        f"checkpoint {name} in {self._store.url} does not fit this state:\n  "
                        + "\n  ".join(lines)
                        + "\nUse another checkpoint directory for another model"
                    )
                targets = here.targets(tree)

            def put_back() -> None:
                here.put_back(tree, targets)
                rank_state.put_back(here.holders, own)
                if rng_file(ranks.rank) in manifest.files:
                    restore_rng((folder / rng_file(ranks.rank)).read_bytes())
                else:
                    seed_new_rank((folder / rng_file(0)).read_bytes(), manifest.step, ranks.rank)

            ranks.each(prepare)
            self._read_tensors(folder, targets)
            ranks.each(put_back)
        logger.info("restored step %d from %s/%s", manifest.step, self._store.url, name)
        return manifest

    def _own_files(self, manifest: Manifest) -> dict[str, Any]:
        """All files but those of other ranks; rank 0's random numbers are the seed of new ranks."""
        rank = self._ranks.rank
        return {
            file: entry
            for file, entry in manifest.files.items()
            if not (is_rng_file(file) or rank_state.is_rank_file(file))
            or file in (rng_file(0), rng_file(rank))
            or rank_state.is_rank_file(file, rank)
        }

    def _read_tensors(self, folder: Path, targets: dict[str, torch.Tensor]) -> None:
        """Read a checkpoint's tensors, of whatever file, into the targets. A collective."""
        rest = dict(targets)

        def read_whole() -> None:
            path = folder / TENSORS_FILE
            read_tensors(path, {key: rest.pop(key) for key in keys_of(path)})

        self._ranks.each(read_whole)
        if rest:
            from edldist.checkpoint.shards import read_shards

            read_shards(self._ranks, folder, rest)

    def _choose(self, at_most: int | None) -> Json:
        """Find the newest checkpoint whose every byte is what was written. Rank 0 only."""
        reasons: dict[str, str] = {}
        too_new: set[str] = set()
        for step, name in self._listed():
            if at_most is not None and step > at_most:
                too_new.add(name)
                continue
            try:
                manifest = self._manifest(name)
                self._verify(name, manifest)
            except DamagedError as exc:
                if self._store.lists_drafts and isinstance(exc, UnmarkedError):
                    logger.info("passing over %s in %s: its save was interrupted", name, self._store.url)
                    continue
                reasons[name] = str(exc)
                logger.warning("checkpoint %s in %s is damaged: %s", name, self._store.url, exc)
                reporter.event("checkpoint_damaged", step=step, reason=str(exc))
                continue
            self._check_job(name, manifest)
            self.unwanted = too_new | set(reasons)
            return {"name": name, "manifest": msgspec.to_builtins(manifest)}
        if not reasons:
            return None
        listed = "".join(f"\n  {name}: {reason}" for name, reason in reasons.items())
        raise CheckpointError(
            f"no checkpoint in {self._store.url} is sound:{listed}\n"
            "Put back a copy of one, or remove them all to start from the beginning"
        )

    def _check_job(self, name: str, manifest: Manifest) -> None:
        if self._job and manifest.job and manifest.job != self._job:
            raise CheckpointError(
                f"the checkpoint directory {self._store.url} belongs to job {manifest.job!r} ({name}), "
                f"this is job {self._job!r}: give each job its own directory"
            )

    def _listed(self) -> list[tuple[int, str]]:
        with self._reading():
            return self._store.checkpoints()

    def _manifest(self, name: str) -> Manifest:
        with self._reading(name):
            return read_manifest(lambda file: self._store.open(name, file), self._store.on_disk)

    def _verify(self, name: str, manifest: Manifest) -> None:
        with self._reading(name):
            verify(lambda file: self._store.open(name, file), manifest, self._store.on_disk)

    @contextlib.contextmanager
    def _reading(self, name: str = "") -> Iterator[None]:
        """Put words to errors of the store that are no damage."""
        try:
            yield
        except (CheckpointError, DamagedError):
            raise
        except Exception as exc:  # a backend's library has errors of its own, which need be no OSErrors
            unreadable = CheckpointError(
                f"{self._store.url}{'/' if name else ''}{name} cannot be read now ({describe(exc)}), which "
                "does not make it damaged: try again when the store can be reached. Nothing was changed"
            )
            unreadable.final = False
            raise unreadable from exc
