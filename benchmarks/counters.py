"""What the system counts about processes: CPU, switches, system calls, memory, bytes on the loopback."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from edldist_benchmarks.figures import NotMeasuredError

__all__ = [
    "bare_torch_bytes",
    "count_system_calls",
    "cpu_s",
    "high_water_bytes",
    "loopback_bytes",
    "switches",
]


def cpu_s(pid: int) -> float:
    """Seconds of all threads on a core, in user and kernel mode."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def switches(pid: int) -> int:
    """How often threads of a process gave their core up by themselves: each is a wait, and a wake-up."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        found = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status.read_text(), re.MULTILINE)
        total += int(found[1]) if found else 0
    return total


def high_water_bytes(pid: int | str) -> int:
    """The most memory that a process ever had resident, shared pages included."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if found is None:
        raise NotMeasuredError(f"/proc/{pid}/status has no VmHWM")
    return int(found[1]) * 1024


def bare_torch_bytes() -> int:
    """The high-water mark of a process that imports torch and does nothing else."""
    script = "import torch; print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = re.search(r"^VmHWM:\s*(\d+) kB", done.stdout, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def loopback_bytes() -> int:
    """Bytes that went over this machine's loopback so far, with TCP's own, of all processes."""
    return int(psutil.net_io_counters(pernic=True)["lo"].bytes_sent)


def count_system_calls(pids: Sequence[int], seconds: float) -> list[float]:
    """System calls a second of each process, watched at the same time.

    Raises:
        NotMeasuredError: neither perf nor strace is installed and allowed to watch.
    """
    for tool, count in (("perf", _by_perf), ("strace", _by_strace)):
        if shutil.which(tool):
            began = time.monotonic()
            counts = count(pids, seconds)
            if None not in counts:
                return [float(number or 0) / (time.monotonic() - began) for number in counts]
    raise NotMeasuredError("system calls are not counted: install perf or strace, and allow them to attach")


def _by_perf(pids: Sequence[int], seconds: float) -> list[int | None]:
    event = "raw_syscalls:sys_enter"
    command = ["perf", "stat", "-x", ",", "-e", event, "-p"]
    watching = [_watch([*command, str(pid), "--", "sleep", str(seconds)]) for pid in pids]
    return [_first_number(process.communicate()[1], rf"^(\d+),,{event}") for process in watching]


def _by_strace(pids: Sequence[int], seconds: float) -> list[int | None]:
    watching = [_watch(["strace", "-c", "-f", "-U", "calls,name", "-p", str(pid)]) for pid in pids]
    time.sleep(seconds)
    for process in watching:
        process.send_signal(signal.SIGINT)
    return [_first_number(process.communicate()[1], r"^\s*(\d+)\s+total$") for process in watching]


def _watch(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _first_number(text: str, pattern: str) -> int | None:
    found = re.search(pattern, text, re.MULTILINE)
    return int(found[1]) if found else None
