"""What a job's pods print: of those that are there from the API, of those that went from the job's folder."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from edldist.errors import LaunchError
from edldist_launch.contract.log_order import in_order, timed
from edldist_launch.kubernetes.kubectl import Kubectl
from edldist_launch.process.tie import tied_command

__all__ = ["PodLogs"]

LOOK_S = 1.0
_LAST_LINES_S = 10.0
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
"""Of a line, to the nanosecond, with as many digits each."""
_OF_A_POD = r"-[a-z0-9]{5}"
_OF_A_REPLICA_SET = r"(-[a-z0-9]+)?"


class PodLogs:
    """The logs of some roles of a job.

    Args:
        kubectl: in the job's namespace.
        folder: where logs of pods are kept that are about to go.
        owners: names of the Deployments and Jobs of the roles.
    """

    def __init__(self, kubectl: Kubectl, folder: Path, owners: Sequence[str]) -> None:
        self._kubectl = kubectl
        self._folder = folder
        known = "|".join(map(re.escape, owners))
        self._ours = re.compile(f"({known}){_OF_A_REPLICA_SET}{_OF_A_POD}")

    def read(self, pods: Sequence[str]) -> Iterator[str]:
        """All lines that there are, those of pods that went first, too, in their order (``log_order``)."""
        streams: list[tuple[str, Iterator[tuple[float, str]]]] = []
        for path in sorted(self._folder.glob("*.log"), key=lambda path: path.stat().st_mtime):
            if path.stem not in pods and self._ours.fullmatch(path.stem):
                text = path.read_text(encoding="utf-8", errors="replace")
                streams.append((path.stem, timed((None, line) for line in text.splitlines())))
        with contextlib.ExitStack() as following:
            for pod in pods:
                lines = following.enter_context(_Following(self._kubectl, pod, follow=False))
                streams.append((pod, timed((None, line) for line in lines)))
            yield from in_order(streams)

    def follow(self, pods: Callable[[], Mapping[str, bool]], ended: Callable[[], bool]) -> Iterator[str]:
        """All lines that there are, then those that come, of pods that come too, until the job has ended.

        A connection that ends before its pod does, as in an outage of the API, or when a container is started
        again, is followed by another one, which begins behind the last line.

        Args:
            pods: those whose containers have begun by now, and whether each goes on.
            ended: whether the job has; what was printed until then is still told.
        """
        told: queue.SimpleQueue[tuple[str, str | None]] = queue.SimpleQueue()
        here: set[str] = set()  # pods to which there is a connection
        whole: set[str] = set()  # pods that had ended before that was made: there will be no other one
        latest: dict[str, str] = {}  # time of a pod's last line
        last = False
        while not last or here:
            for pod, goes_on in pods().items():
                if pod not in here and pod not in whole:
                    here.add(pod)
                    if not goes_on:
                        whole.add(pod)
                    about = (pod, latest.get(pod, ""), told)
                    threading.Thread(target=self._tell, args=about, daemon=True).start()
            last = last or ended()
            if last and not here and told.empty():
                break
            until = time.monotonic() + (_LAST_LINES_S if last else LOOK_S)
            with contextlib.suppress(queue.Empty):
                while (left_s := until - time.monotonic()) > 0:
                    pod, line = told.get(timeout=left_s)
                    if line is None:
                        here.discard(pod)
                        if last and not here:
                            break
                        continue
                    at, text = _stamped(line)
                    latest[pod] = at or latest.get(pod, "")
                    yield f"{pod}: {text}"
            if last:
                break

    def keep(self, pods: Sequence[str], follow: bool = True) -> Callable[[], None]:
        """Write down what these pods have printed.

        Args:
            follow: and what they print until they go.

        Returns:
            Waits until all has been written.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        keepers = [threading.Thread(target=self._keep, args=(pod, follow), daemon=True) for pod in pods]
        for keeper in keepers:
            keeper.start()

        def wait() -> None:
            deadline = time.monotonic() + _LAST_LINES_S
            for keeper in keepers:
                keeper.join(max(0.0, deadline - time.monotonic()))

        return wait

    def _keep(self, pod: str, follow: bool) -> None:
        with (
            contextlib.suppress(OSError),
            (self._folder / f"{pod}.log").open("w", encoding="utf-8") as file,
            _Following(self._kubectl, pod, follow) as lines,
        ):
            for line in lines:
                file.write(f"{line}\n")

    def _tell(self, pod: str, since: str, told: queue.SimpleQueue[tuple[str, str | None]]) -> None:
        stamps = ("--timestamps", *((f"--since-time={since}",) if since else ()))
        try:
            with _Following(self._kubectl, pod, True, stamps) as lines:
                for line in lines:
                    if since and "" < _stamped(line)[0] <= since:
                        continue  # the API takes whole seconds: it was told by the connection before
                    told.put((pod, line))
        finally:
            told.put((pod, None))


def _stamped(line: str) -> tuple[str, str]:
    """When a line was printed, in a form that sorts, and the line; no time before what is not the pod's."""
    at, _, text = line.partition(" ")
    return (at, text) if _TIME.fullmatch(at) else ("", line)


class _Following:
    """The lines of one pod's main container, as they come, to its end; none where it has not begun."""

    def __init__(self, kubectl: Kubectl, pod: str, follow: bool = True, options: Sequence[str] = ()) -> None:
        words = ["logs", pod, "--container", "main", *(["--follow"] if follow else []), *options]
        self._command = tied_command(kubectl.command(*words), parent=os.getpid())

    def __enter__(self) -> Iterator[str]:
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as exc:
            raise LaunchError(f"cannot run kubectl: {exc.strerror or exc}") from exc
        assert self._process.stdout is not None
        return (line.decode(errors="replace").rstrip("\n") for line in self._process.stdout)

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
