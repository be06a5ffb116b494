"""Checkpoints of a student job: asynchronous, atomic, verified, resharded on restore."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from types import TracebackType

from edldist.checkpoint.claim import GIVE_UP, REGROUP
from edldist.checkpoint.rank_state import RankState
from edldist.checkpoint.reader import CheckpointReader
from edldist.checkpoint.registry import require_all, require_some
from edldist.checkpoint.rng import capture_rng
from edldist.checkpoint.sameness import DifferentStatesError
from edldist.checkpoint.snapshot import Snapshot, Stateful
from edldist.checkpoint.stores.opening import open_store
from edldist.checkpoint.stores.store import Store
from edldist.checkpoint.writer import CheckpointWriter, Save
from edldist.environment import JobEnvironment
from edldist.errors import CheckpointError, ConfigError
from edldist.lifecycle import exit_hooks, stopping
from edldist.lifecycle.group_change import GroupChanged, group_changed
from edldist.observe import reporter
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
    its own. Random-number state is saved and restored by itself, per rank, and so is what an object returns
    from ``rank_state_dict`` (see `RankStateful`). Everything else but sharded tensors is taken from rank 0:
    what has to be equal on all ranks is compared when it is saved (see `sameness`).

    A failing save (full disk, permissions, I/O) does not end training: it is logged, counted in `failures`,
    reported as event ``checkpoint_failed``, and the next `save` tries again. A process that dies at any
    moment leaves the previous checkpoint restorable.

    Not guaranteed: that a forged checkpoint is noticed (hashes find damage, not malice); that a second job
    is noticed at once on object stores or file systems without locks: there the first is told by its next
        save,
    which raises. Ranks whose generation was written off, and which do not know it, leave instead of saving.

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
        environment = JobEnvironment.read()
        if directory is None:
            if environment.output is None:
                raise ConfigError(
                    "no checkpoint directory: pass one, or set EDLDIST_OUTPUT to the job's folder"
                )
            directory = os.path.join(environment.output, "checkpoints")
        self.keep = _count("keep", keep) or environment.checkpoint_keep or 3
        self.every_steps = _count("every_steps", every_steps) or environment.checkpoint_every_steps
        self.failures = 0
        self.last_error: str | None = None
        self._job = environment.job
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
                differ among ranks where they have to be equal (raised one call later), a closed
                checkpointer. Never for a failing disk.
        """
        if step < 0:
            raise CheckpointError(f"step {step} is negative: count steps from 0")
        ranks = self._start()
        self.wait()
        began = time.monotonic()
        snapshot = Snapshot(state)
        require_all(state, snapshot.taken)
        whole, sharded = snapshot.staged(ranks.rank)
        own = RankState.taken(snapshot.holders)
        shared = snapshot.shared_values() if ranks.world_size > 1 else {}
        work = Save(step, snapshot.tree, shared, whole, sharded, own, capture_rng(), began)
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

    def restore(self, state: Mapping[str, Stateful], at_most: int | None = None) -> int | None:
        """Load the newest sound checkpoint into the objects of ``state``, on whatever number of ranks.

        A damaged one is logged, reported as event ``checkpoint_damaged`` and passed over. One that cannot be
        read now, as when the network fails, is not: an older one would take its place for good. Nothing is
        modified before the whole checkpoint was verified, compared with the state and read.

        Args:
            state: objects with ``state_dict`` and ``load_state_dict``, by name.
            at_most: pass over checkpoints of later steps, to go back behind them. They are removed once the
                next one is durable.

        Returns:
            The step of the checkpoint, the same on all ranks; None if there is none at all.

        Raises:
            CheckpointError: checkpoints exist but none is sound; it is another job's or another model's;
                not final if the newest cannot be read now. The same on all ranks.
        """
        ranks = self._start()
        self.wait()
        here = Snapshot(state)
        require_some(state, here.taken)
        began = time.monotonic()
        manifest = self._reader.restore(here, at_most)
        if manifest is None:
            return None
        self._writer.unwanted = self._reader.unwanted
        if ranks.rank == 0:
            seconds = time.monotonic() - began
            reporter.event(
                "checkpoint_restored", step=manifest.step, bytes=manifest.total_bytes, seconds=seconds
            )
        return manifest.step

    def close(self) -> None:
        """Wait for a save under way and give up the directory; harmless when repeated."""
        try:
            self.wait()
        finally:
            self._leave()

    def abandon(self) -> None:
        """Give up the directory at once: a save under way waits for ranks that are gone, and fails."""
        if self._ranks is not None:
            self._writer.abandoned = True
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
        reader = CheckpointReader(ranks, self._store, self._job)
        try:
            ranks.lead(lambda: self._take_directory(reader))
        except BaseException:
            ranks.leave()
            raise
        self._ranks = ranks
        self._reader = reader
        self._writer = CheckpointWriter(ranks, self._store, self.keep, self._job)
        return ranks

    def _take_directory(self, reader: CheckpointReader) -> None:
        try:
            self._store.prepare()
            reader.check_owner()
        except BaseException:
            self._store.release()
            raise

    def _run(self, ranks: Ranks, writer: CheckpointWriter, work: Save) -> None:
        """The background thread: one save, whose failure is counted and never raised."""
        try:
            size = writer.write(work)
        except Exception as exc:
            verdict = getattr(exc, "verdict", "")
            if verdict == REGROUP:  # the loop may wait for ranks that are in another group by now
                group_changed(GroupChanged(placement().generation, str(exc)))
            if isinstance(exc, DifferentStatesError) or (
                isinstance(exc, CheckpointError) and verdict == GIVE_UP
            ):
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
                reporter.event("checkpoint_failed", step=work.step, reason=self.last_error)
            return
        if ranks.rank == 0:
            seconds = time.monotonic() - work.began
            logger.info("saved step %d in %s: %d bytes in %.2f s", work.step, self._store.url, size, seconds)
            reporter.event("checkpoint_saved", step=work.step, bytes=size, seconds=seconds)

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


def _count(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(f"{name}={value!r} is not a whole number of 1 or more")
    return value
