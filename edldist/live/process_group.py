"""torch's default process group of a live generation: gloo's, whose operations end where the group changes.

Nothing ends an operation of gloo's before its own time-out, whatever another thread does to the group (torch
2.13). ``DistributedDataParallel``, and any collective of a script, would wait for a frozen rank until then.
So the default group is a process group in Python around gloo's. Each operation is gloo's, and who waits for
it does so here: in slices (``collective``), or for a future that a change of the group settles, too. The
operation itself is left where it is; it holds its tensors until its time-out has come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroupGloo, Store

from edldist.errors import RegroupError
from edldist.live.collective import await_work, first_line
from edldist.live.forming import form
from edldist.live.standing import Standing

__all__ = ["BACKEND", "LiveProcessGroup", "make_default_group"]

BACKEND = "edldist_gloo"
"""As torch calls it; whoever asks whether the group is gloo's looks for that word in it."""

_DEVICES = ("cpu", "cuda")
_OPERATIONS = (
    *("allgather", "allgather_coalesced", "_allgather_base", "allgather_into_tensor_coalesced"),
    *("all_gather_single", "all_gather_single_coalesced", "all_to_all_single", "alltoall", "alltoall_base"),
    *("allreduce", "allreduce_coalesced", "barrier", "broadcast", "gather", "scatter"),
    *("reduce", "reduce_scatter", "_reduce_scatter_base", "reduce_scatter_tensor_coalesced"),
    *("reduce_scatter_single", "reduce_scatter_single_coalesced", "recv", "recv_anysource", "send"),
)
"""By the names of several versions of torch."""


class _LiveWork(dist.Work):
    """One operation, as torch's loops and C++ wait for it."""

    def __init__(self, work: Any, standing: Standing) -> None:
        super().__init__()
        self._work = work
        self._standing = standing

    def wait(self, timeout: timedelta = timedelta(0)) -> bool:
        """Wait for it; 0 is no time-out.

        Raises:
            RegroupError: the group has changed, or the operation failed.
            RuntimeError: time is up first.
        """
        await_work(self._work, self._standing, timeout.total_seconds() or None)
        return True

    def get_future(self) -> Any:
        """Its result, or an error that holds why the generation ended."""
        settled = self._standing.expect()
        inner = self._work.get_future()

        def done(future: Any) -> None:
            try:
                future.value()
            except RuntimeError as exc:
                self._standing.end(f"a rank cannot be reached: {first_line(exc)}")
            else:
                self._standing.settle(settled)

        def outcome(future: torch.futures.Future[str]) -> Any:
            if reason := future.value():
                raise RegroupError(reason)
            return inner.value()

        inner.add_done_callback(done)
        return settled.then(outcome)

    def is_completed(self) -> bool:
        return bool(self._work.is_completed())

    def is_success(self) -> bool:
        return bool(self._work.is_success())

    def exception(self) -> Any:
        return self._work.exception()

    def result(self) -> Any:
        return self._work.result()

    def source_rank(self) -> int:
        return int(self._work.source_rank())

    def synchronize(self) -> None:
        self.wait()


class LiveProcessGroup(dist.ProcessGroup):
    """All operations of gloo's group, for as long as a generation stands.

    Args:
        gloo: does them.
        store: where its ranks have met.
        timeout: of each operation.
        standing: of the generation.
    """

    def __init__(self, gloo: ProcessGroupGloo, store: Store, timeout: timedelta, standing: Standing) -> None:
        super().__init__(gloo.rank(), gloo.size())  # type: ignore[call-arg]
        self.timeout = timeout
        self._name: Any = ""
        self._description = ""
        inner: Any = dist.ProcessGroup(store, gloo.rank(), gloo.size())
        for device in _DEVICES:
            inner._register_backend(torch.device(device), dist.ProcessGroup.BackendType.GLOO, gloo)
        # Invariant: nobody else holds it, so that it can be given back aside.
        self._inner: Any = inner
        self._standing = standing

    def begin(self, name: str, *args: Any, **options: Any) -> _LiveWork:
        """Begin an operation of that name.

        Raises:
            RegroupError: the generation is over, or gloo has lost a rank already.
        """
        if self._inner is None or self._standing.ended:
            raise RegroupError(self._standing.ended or "this process group was destroyed")
        return _LiveWork(getattr(self._inner, name)(*args, **options), self._standing)

    def getBackendName(self) -> str:  # noqa: N802  (torch's name)
        return BACKEND

    # torch keeps these with a group's backends, of which this one has none.

    @property
    def group_name(self) -> Any:
        """As torch's tables have it."""
        return self._name

    @property
    def group_desc(self) -> str:
        """For torch's logs."""
        return self._description

    def _set_group_name(self, name: Any) -> None:
        self._name = name

    def _set_group_desc(self, description: str) -> None:
        self._description = description

    def _get_sequence_number_for_group(self) -> int:
        """How many operations were begun."""
        return 0 if self._inner is None else int(self._inner._get_sequence_number_for_group())

    def shutdown(self) -> None:
        """Begin nothing any more, and give gloo's group back in the background: it waits for what is under
        way, as for a frozen rank.
        """
        if self._inner is not None:
            held, self._inner = [self._inner], None
            threading.Thread(target=held.clear, name="edldist-old-group", daemon=True).start()

    def abort(self) -> None:
        """End what waits for operations, too."""
        self._standing.end("this process group was aborted")
        self.shutdown()


def _operation(name: str) -> Callable[..., _LiveWork]:
    def begin(group: LiveProcessGroup, *args: Any, **options: Any) -> _LiveWork:
        return group.begin(name, *args, **options)

    return begin


for _name in (name for name in _OPERATIONS if hasattr(dist.ProcessGroup, name)):
    setattr(LiveProcessGroup, _name, _operation(_name))

_current: Standing | None = None
"""Of the generation in which this process is, or which it forms: torch makes its groups by a function."""


def make_default_group(
    meet: Callable[[], Store], rank: int, world_size: int, timeout: timedelta, standing: Standing
) -> None:
    """Make torch's default process group, of ranks that all do so now; and what is made of it later is alike.

    Args:
        meet: connects to the store where they meet. It may block, in another thread.
        timeout: of gloo's operations: what waits for a frozen rank holds its memory, and a thread, as long.

    Raises:
        RegroupError: the group has changed meanwhile, or the ranks cannot meet.
    """
    global _current
    _current = standing
    if not hasattr(dist.Backend, BACKEND.upper()):
        dist.Backend.register_backend(BACKEND, _create, devices=list(_DEVICES))
    store = form(meet, standing)
    dist.init_process_group(BACKEND, store=store, rank=rank, world_size=world_size, timeout=timeout)


def _create(store: Store, rank: int, world_size: int, timeout: timedelta) -> LiveProcessGroup:
    standing = _current
    assert standing is not None
    gloo = form(lambda: ProcessGroupGloo(store, rank, world_size, timeout), standing)
    gloo._set_sequence_number_for_group()
    return LiveProcessGroup(gloo, store, timeout, standing)
