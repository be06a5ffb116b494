"""A way from this machine to a job's coordinator, through the Kubernetes API."""

from __future__ import annotations

import atexit
import os
import re
import select
import subprocess
import time
from collections.abc import Sequence

from edldist_launch.process.tie import tied_command

__all__ = ["Forward"]

READY_S = 10.0
_FROM = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) ")


class Forward:
    """``kubectl port-forward``, as a child that ends with this process.

    Args:
        command: the whole command line.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._address: str | None = None
        atexit.register(self.close)

    @property
    def address(self) -> str | None:
        """``tcp://host:port`` that leads to the coordinator; None where no way is to be had."""
        if self._process is not None and self._process.poll() is not None:
            self.close()  # the pod that it led to is gone
        if self._process is None:
            self._begin()
        return self._address

    def close(self) -> None:
        """End it."""
        process, self._process, self._address = self._process, None, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _begin(self) -> None:
        try:
            self._process = subprocess.Popen(
                tied_command(list(self._command), parent=os.getpid()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            return
        stream = self._process.stdout
        assert stream is not None
        said, deadline = b"", time.monotonic() + READY_S
        while (left_s := deadline - time.monotonic()) > 0:
            if not select.select([stream], [], [], left_s)[0]:
                break
            chunk = os.read(stream.fileno(), 4096)
            said += chunk
            if found := _FROM.search(said):
                self._address = f"tcp://127.0.0.1:{int(found[1])}"
                return
            if not chunk:
                break
        self.close()
