"""Checkpoints of a student job: asynchronous, atomic, verified, resharded on restore."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import torch

from edldist.checkpoint.manifest import (
    DamagedError,
    Manifest,
    UnmarkedError,
    read_manifest,
    verify,
)
from edldist.checkpoint.registry import require_in
from edldist.checkpoint.rng import capture_rng, restore_rng, seed_new_rank
from edldist.checkpoint.snapshot import Snapshot, Stateful
from edldist.checkpoint.stores.opening import open_store
from edldist.checkpoint.stores.store import Store
from edldist.checkpoint.tensorfile import TENSORS_FILE, keys_of, read_tensors
from edldist.checkpoint.tree import Json
from edldist.checkpoint.writer import STATE_FILE, CheckpointWriter, DifferentStatesError, Save, rng_file
from edldist.errors import CheckpointError, ConfigError
from edldist.lifecycle import exit_hooks, stopping
from edldist.ranks.agreement import Ranks, describe
from edldist.ranks.placement import in_process_group, placement

__all__ = ["Checkpointer"]

logger = logging.getLogger(__name__)

# A process that ends without close() waits this long for a save under way, and no longer: when ranks part in
# disorder the save may wait for a peer that waits for this process to end.
EXIT_GRACE_S = 10.0


class Checkpointer:
    """Saves and restores training state; a checkpoint exists whole and verified, or not at all.

    All ranks make one, after ``init_process_group``, and call its methods in the same order. `save` copies
    the state to host memory in the caller's thread; one background thread writes it, over a gloo group of
    its own. Random-number state is saved and restored by itself, per rank. Everything else but sharded
    tensors is taken from rank 0, so it must be equal on all ranks, as a `DistillLoader`'s state is.

    A failing save (full disk, permissions, I/O) does not end training: it is logged, counted in `failures`,
    reported as event ``checkpoint_failed``, and the next `save` tries again. A process that dies at any
    moment leaves the previous checkpoint restorable.

    Not guaranteed: that a forged checkpoint is noticed (hashes find damage, not malice); that a second job
    is noticed on object stores or file systems without locks.

    Attributes:
        failures: saves that failed.
        last_error: why the last of them failed, or None.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        keep: int | None = None,
        every_steps: int | None = None,
    ) -> None:
        """Choose the place; make and lock it, unless ranks are still to meet.

        Args:
            directory: a directory that all ranks share, or an fsspec URL. Default:
                ``$EDLDIST_OUTPUT/checkpoints``.
            keep: how many checkpoints to keep. Default: ``EDLDIST_CHECKPOINT_KEEP``, else 3.
            every_steps: when `due` says yes. Default: ``EDLDIST_CHECKPOINT_EVERY_STEPS``, else never.

        Raises:
            ConfigError: no directory is known, or a number is not a whole one of 1 or more.
            CheckpointError: the directory cannot be used, or is another job's.
        """
        exit_hooks.install()
        if directory is None:
            output = os.environ.get("EDLDIST_OUTPUT")
            if not output:
                raise ConfigError(
                    "no checkpoint directory: pass one, or set EDLDIST_OUTPUT to the job's folder"
                )
            directory = os.path.join(output, "checkpoints")
        self.keep = _whole("keep", keep, "EDLDIST_CHECKPOINT_KEEP") or 3
        self.every_steps = _whole("every_steps", every_steps, "EDLDIST_CHECKPOINT_EVERY_STEPS")
        self.failures = 0
        self.last_error: str | None = None
        self._job = os.environ.get("EDLDIST_JOB") or None
        self._store: Store = open_store(directory)
        self._ranks: Ranks | None = None
        self._thread: threading.Thread | None = None
        self._defect: CheckpointError | None = None
        self._closed = False
        atexit.register(self._join, EXIT_GRACE_S)
        this = weakref.ref(self)  # what is closed need not be kept
        stopping.at_partial_stop(lambda: None if (it := this()) is None else it._join(EXIT_GRACE_S))
        if placement().world_size == 1 or in_process_group():
            self._start()

    def due(self, step: int) -> bool:
        """Whether the job's interval asks for a checkpoint after this step."""
        return self.every_steps is not None and step > 0 and step % self.every_steps == 0

    def save(self, step: int, state: Mapping[str, Stateful], wait: bool = False) -> None:
        """Start to save the state as it is now, after waiting for a save that is still under way.

        Args:
            step: number of the step, 0 or more; names the checkpoint.
            state: objects with ``state_dict`` and ``load_state_dict``, by name.
            wait: return only once this save is durable, or has failed.

        Raises:
            CheckpointError: a mistake in the program: a value that no checkpoint can hold, states that
                differ in structure among ranks (raised one call later), a closed checkpointer. Never for
                a failing disk.
        """
        if step < 0:
            raise CheckpointError(f"step {step} is negative: count steps from 0")
        require_in(state)
        ranks = self._start()
        self.wait()
        began = time.monotonic()
        snapshot = Snapshot(state)
        whole, sharded = snapshot.staged(ranks.rank)
        work = Save(step, snapshot.tree, snapshot.layout(), whole, sharded, capture_rng(), began)
        # A daemon, so that a rank which dies of an exception is gone at once and its peers notice.
        self._thread = threading.Thread(
            target=self._run, args=(ranks, self._writer, work), name="edldist-checkpoint", daemon=True
        )
        self._thread.start()
        if wait:
            self.wait()

    def wait(self) -> None:
        """Return once no save is under way. Raises CheckpointError if the state was faulty."""
        self._join()
        defect, self._defect = self._defect, None
        if defect is not None:
            raise defect

    def restore(self, state: Mapping[str, Stateful]) -> int | None:
        """Load the newest sound checkpoint into the objects of ``state``, on whatever number of ranks.

        A damaged one is logged, reported as event ``checkpoint_damaged`` and passed over. One that cannot be
        read now, as when the network fails, is not: an older one would take its place for good. Nothing is
        modified before the whole checkpoint was verified, compared with the state and read.

        Returns:
            The step of the checkpoint, the same on all ranks; None if there is none at all.

        Raises:
            CheckpointError: checkpoints exist but none is sound; it is another job's or another model's;
                not final if the newest cannot be read now. The same on all ranks.
        """
        require_in(state)
        ranks = self._start()
        self.wait()
        here = Snapshot(state)
        began = time.monotonic()
        found = ranks.lead(self._choose)
        if found is None:
            return None
        name, manifest = found["name"], msgspec.convert(found["manifest"], Manifest)
        wanted = {
            file: entry
            for file, entry in manifest.files.items()
            if not file.startswith("rng-") or file in (rng_file(0), rng_file(ranks.rank))
        }
        with contextlib.ExitStack() as stack:
            folder, tree, targets = Path(), {}, {}

            def prepare() -> None:
                nonlocal folder, tree, targets
                with self._reading(name):
                    folder = stack.enter_context(self._store.fetch(name, wanted))
                tree = json.loads((folder / STATE_FILE).read_bytes())
                lines = here.differences(tree)
                if lines:
                    raise CheckpointError(
                        f"checkpoint {name} in {self._store.url} does not fit this state:\n  "
                        + "\n  ".join(lines)
                        + "\nUse another checkpoint directory for another model"
                    )
                targets = here.targets(tree)

            def put_back() -> None:
                here.put_back(tree, targets)
                mine = folder / rng_file(ranks.rank)
                if mine.name in wanted:
                    restore_rng(mine.read_bytes())
                else:
                    seed_new_rank((folder / rng_file(0)).read_bytes(), manifest.step, ranks.rank)

            ranks.each(prepare)
            _read_tensors(ranks, folder, targets)
            ranks.each(put_back)
        logger.info("restored step %d from %s/%s", manifest.step, self._store.url, name)
        if ranks.rank == 0:
            seconds = time.monotonic() - began
            _event("checkpoint_restored", step=manifest.step, bytes=manifest.total_bytes, seconds=seconds)
        return manifest.step

    def close(self) -> None:
        """Wait for a save under way and give up the directory; harmless when repeated."""
        try:
            self.wait()
        finally:
            self._leave()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._join(EXIT_GRACE_S)
            self._leave()

    def _start(self) -> Ranks:
        """Meet the other ranks and take the directory, once. A collective on its first call."""
        if self._closed:
            raise CheckpointError(f"the checkpointer of {self._store.url} is closed: make a new one")
        ranks = self._ranks or Ranks()
        if ranks.world_size != (expected := placement().world_size):
            raise CheckpointError(
                f"the checkpointer of {self._store.url} met {ranks.world_size} rank(s), but there are "
                f"{expected}: call torch.distributed.init_process_group() before making it"
            )
        if self._ranks is not None:
            return ranks
        try:
            ranks.lead(self._take_directory)
        except BaseException:
            ranks.leave()
            raise
        self._ranks = ranks
        self._writer = CheckpointWriter(ranks, self._store, self.keep, self._job)
        return ranks

    def _take_directory(self) -> None:
        try:
            self._store.prepare()
            for _, name in self._listed():
                with contextlib.suppress(DamagedError):
                    self._check_job(name, self._manifest(name))
                    break
        except BaseException:
            self._store.release()
            raise

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

    def _choose(self) -> Json:
        """Find the newest checkpoint whose every byte is what was written. Rank 0 only."""
        reasons: dict[str, str] = {}
        for step, name in self._listed():
            try:
                manifest = self._manifest(name)
                self._verify(name, manifest)
            except DamagedError as exc:
                if self._store.lists_drafts and isinstance(exc, UnmarkedError):
                    logger.info("passing over %s in %s: its save was interrupted", name, self._store.url)
                    continue
                reasons[name] = str(exc)
                logger.warning("checkpoint %s in %s is damaged: %s", name, self._store.url, exc)
                _event("checkpoint_damaged", step=step, reason=str(exc))
                continue
            self._check_job(name, manifest)
            self._writer.damaged = set(reasons)
            return {"name": name, "manifest": msgspec.to_builtins(manifest)}
        if not reasons:
            return None
        listed = "".join(f"\n  {name}: {reason}" for name, reason in reasons.items())
        raise CheckpointError(
            f"no checkpoint in {self._store.url} is sound:{listed}\n"
            "Put back a copy of one, or remove them all to start from the beginning"
        )

    def _run(self, ranks: Ranks, writer: CheckpointWriter, work: Save) -> None:
        """The background thread: one save, whose failure is counted and never raised."""
        try:
            size = writer.write(work)
        except Exception as exc:
            if isinstance(exc, DifferentStatesError):
                self._defect = exc
            self.failures += 1
            self.last_error = describe(exc)
            if ranks.rank == 0:
                logger.warning(
                    "checkpoint of step %d in %s failed, training goes on: %s",
                    work.step,
                    self._store.url,
                    self.last_error,
                )
                logger.debug("the failure in full", exc_info=exc)
                _event("checkpoint_failed", step=work.step, reason=self.last_error)
            return
        if ranks.rank == 0:
            seconds = time.monotonic() - work.began
            logger.info("saved step %d in %s: %d bytes in %.2f s", work.step, self._store.url, size, seconds)
            _event("checkpoint_saved", step=work.step, bytes=size, seconds=seconds)

    def _join(self, timeout_s: float | None = None) -> None:
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _leave(self) -> None:
        self._closed = True
        atexit.unregister(self._join)
        self._store.release()
        if self._ranks is not None:
            self._ranks.leave()
            self._ranks = None


def _read_tensors(ranks: Ranks, folder: Path, targets: dict[str, torch.Tensor]) -> None:
    """Read a checkpoint's tensors, of whatever file, into the targets. A collective."""
    rest = dict(targets)

    def read_whole() -> None:
        path = folder / TENSORS_FILE
        read_tensors(path, {key: rest.pop(key) for key in keys_of(path)})

    ranks.each(read_whole)
    if rest:
        from edldist.checkpoint.shards import read_shards

        read_shards(ranks, folder, rest)


def _whole(name: str, value: int | None, variable: str) -> int | None:
    """A whole number of 1 or more, from the argument or else from the environment."""
    if value is None:
        text = os.environ.get(variable)
        if not text:
            return None
        name = variable
        try:
            value = int(text)
        except ValueError:
            raise ConfigError(f"{variable}={text!r} is not a whole number of 1 or more") from None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name}={value!r} is not a whole number of 1 or more")
    return value


def _event(name: str, **fields: Any) -> None:
    from edldist.observe.reporter import event

    event(name, **fields)
