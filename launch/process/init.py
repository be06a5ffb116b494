"""Process 1 of a container: what the kernel leaves to it, and no more.

Whoever has process id 1 inherits every orphan, as data-loader workers of a killed rank are, and has to
collect them when they end: otherwise they stay as zombies until the container may start no more processes.
A program with children of its own cannot do that in passing: it would take away the exit codes that others
wait for. So the command forks once, goes on in the child, and the parent does nothing but this.
"""

from __future__ import annotations

import os
import signal

__all__ = ["leave_process_one"]

_PASSED_ON = {
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH),
}


def leave_process_one() -> None:
    """Go on in a child if this is process 1, which from then on collects orphans and passes signals on.

    Process 1 ends when that child does, with its exit code (128 + the signal that ended it), and everything
    else in the container with it. Call it first of all: no threads, nothing open that must be open once.
    """
    if os.getpid() != 1:
        return
    awaited = _PASSED_ON | {signal.SIGCHLD}
    former = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
        return
    while True:
        signum = signal.sigwait(awaited)
        if signum != signal.SIGCHLD:
            os.kill(child, signum)  # it is there: only this process could collect it
            continue
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)) is not None:
            if ended.si_pid == child:
                os._exit(ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status)
