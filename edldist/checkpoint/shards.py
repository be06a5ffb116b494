"""Tensors sharded over ranks (``DTensor``), through ``torch.distributed.checkpoint``.

Imported only when a state or a checkpoint has such tensors: it costs 0.75 s of CPU (torch 2.13).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
import torch.utils.serialization.config  # torch.save would, in a thread that must import nothing
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from edldist.errors import CheckpointError
from edldist.ranks.agreement import Ranks, describe

__all__ = ["INDEX_FILE", "Shards", "read_shards"]

INDEX_FILE = ".metadata"


class _TensorWriter(dcp.FileSystemWriter):
    """DCP's writer, with the operating system's own word on what failed."""

    def __init__(self, folder: Path) -> None:
        # With more threads a full disk goes unreported. Sealing syncs the files, so the writer need not.
        super().__init__(folder, thread_count=1, sync_files=False)
        self._folder = folder

    def write_data(self, plan: dcp.SavePlan, planner: dcp.SavePlanner) -> Future[list[WriteResult]]:
        try:
            return super().write_data(plan, planner)
        except Exception as exc:
            # torch.save hides a failing write behind its complaint about a file of the wrong length.
            first: BaseException | None = exc
            while first is not None and not isinstance(first, OSError):
                first = first.__cause__ or first.__context__
            if first is None or first is exc:
                raise
            raise OSError(first.errno, first.strerror, str(self._folder)) from exc


class Shards:
    """This rank's parts of sharded tensors, in host memory, to be written in another thread.

    Made in the thread of the script, which so is the one that imports this module.
    """

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def write(self, ranks: Ranks, folder: Path) -> None:
        """Write every rank's shards and, on rank 0, their index. A collective.

        Raises:
            CheckpointError: a rank failed; raised on every rank.
        """
        _hush()
        try:
            dcp.save(
                self._tensors,
                storage_writer=_TensorWriter(folder),
                process_group=ranks.group,
                no_dist=ranks.group is None,
            )
        except dcp.CheckpointException as exc:
            raise CheckpointError(_reason(exc)) from exc

    def files(self, ranks: Ranks, folder: Path) -> list[str]:
        """Names of the files that this rank wrote."""
        index = [INDEX_FILE] if ranks.rank == 0 else []
        return [file.name for file in folder.glob(f"__{ranks.rank}_*")] + index


def read_shards(ranks: Ranks, folder: Path, targets: dict[str, torch.Tensor]) -> None:
    """Read into the targets, however these and the saved ones are sharded. A collective.

    Raises:
        CheckpointError: a rank failed; raised on every rank.
    """
    _hush()
    try:
        dcp.load(
            targets,
            storage_reader=dcp.FileSystemReader(folder),
            process_group=ranks.group,
            no_dist=ranks.group is None,
        )
    except dcp.CheckpointException as exc:
        failed = CheckpointError(f"reading {folder} failed, nothing was restored: {_reason(exc)}")
        failed.final = False
        raise failed from exc


def _hush() -> None:
    # A single process is no mistake here. Not catch_warnings: that is unsafe off the main thread.
    warnings.filterwarnings("ignore", message=r"torch\.distributed is (disabled, )?unavailable")


def _reason(exc: dcp.CheckpointException) -> str:
    """A failure among ranks in one line."""
    return "; ".join(f"rank {rank}: {describe(error[0])}" for rank, error in exc.failures.items())
