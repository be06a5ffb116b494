"""Programs of tests that begin as forks of a process that has imported torch, which is most of their time."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["Program", "outcomes_of"]

_BEGUN = multiprocessing.get_context("forkserver")
_BEGUN.set_forkserver_preload(
    [
        "torch",
        "torch.distributed.tensor",
        "torch.nn.parallel",
        "torch.utils.data",
        "edldist",
        "edldist.losses",
    ]
)


class Program:
    """One process; it ends as children of forks do, so that exit handlers are not called.

    Args:
        source: the text of the program, or the name of a module.
        arguments: ``sys.argv``, from its second place on.
        environment: all of it.

    Attributes:
        returncode: as of ``subprocess``, once it has ended.
    """

    def __init__(self, source: str, *arguments: str, environment: Mapping[str, str]) -> None:
        self._files = []
        for suffix in (".out", ".err"):
            with tempfile.NamedTemporaryFile(suffix=suffix, delete=False) as made:
                self._files.append(Path(made.name))
        files = tuple(map(str, self._files))
        self._process = _BEGUN.Process(target=_begin, args=(source, arguments, dict(environment), files))
        self._process.start()
        self.returncode: int | None = None

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end; what it said, and its errors.

        Raises:
            TimeoutError: it goes on.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"it has not ended in {timeout:g} s; it says {self._files[1].read_text()}")
        self.returncode = self._process.exitcode
        said, errors = (file.read_text() for file in self._files)
        return said, errors

    def kill(self) -> None:
        """End it, if it goes on, and remove what it left."""
        self._process.kill()
        self._process.join()
        for file in self._files:
            file.unlink(missing_ok=True)


def outcomes_of(programs: Sequence[Program], timeout_s: float) -> list[tuple[str, str]]:
    """Wait for all; none goes on afterwards, whatever happens."""
    try:
        return [program.communicate(timeout_s) for program in programs]
    finally:
        for program in programs:
            program.kill()


def _begin(
    source: str, arguments: Sequence[str], environment: Mapping[str, str], files: Sequence[str]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, file in enumerate(files, 1):
        written = os.open(file, os.O_WRONLY | os.O_TRUNC)
        os.dup2(written, descriptor)
        os.close(written)
    sys.argv = ["-c", *arguments]
    if "\n" in source:
        exec(compile(source, "<program>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_module(source, run_name="__main__", alter_sys=True)
