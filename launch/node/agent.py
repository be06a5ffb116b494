"""torchrun's agent with a rendezvous of our own: ``python .../launch/node/agent.py OPTIONS ARGS...``.

It is run by path, so that no module in the user's folder can take the place of one that torch imports.

Signals that are repeated. torchrun's agent answers each SIGTERM by an exception, also while it waits for the
ranks that it has asked to leave; told three times (by whoever ends the whole tree of processes, and by the
parent that was told, too) it is gone before they have saved, and they are killed with it. This one heeds the
first, of all that ask to stop (``edldist.signals``), and from its start on, not only once its ranks run.
The exception may come where torch takes any for a fault of its own and goes on (it does so while it stops to
follow the ranks' logs): then it is raised again before ranks are started anew.

OPTIONS is JSON (``AgentOptions``); ARGS are torchrun's.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import msgspec

from edldist.signals import ASKING, EXIT_STOPPED, end_by_signals

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import (
        RendezvousHandler,
        RendezvousInfo,
        RendezvousParameters,
    )

__all__ = [
    "BACKEND",
    "EXIT_CLOSED",
    "AgentOptions",
    "ask_first",
    "ask_no_resolver",
    "heed_once",
    "make_handler",
]

logger = logging.getLogger(__name__)

BACKEND = "edldist"
EXIT_CLOSED = 3
"""The agent's exit code when its run has ended on other nodes, and its own ranks had failed: nobody will ever
meet there again. One that was not needed any more ends with 0."""


class AgentOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What torchrun has no options for.

    Attributes:
        ranks: of this node.
        coordinator: ``tcp://host:port`` or ``file:PATH``, where several nodes meet; None for an only node.
        job: what tells the run from others, for an error.
        connect_timeout_s: how long to wait for a coordinator that does not answer.
    """

    ranks: int
    coordinator: str | None = None
    job: str = ""
    connect_timeout_s: float = 300.0

    def encode(self) -> str:
        return msgspec.json.encode(self).decode()


def make_handler(options: AgentOptions, parameters: RendezvousParameters) -> RendezvousHandler:
    """The rendezvous of this node."""
    from edldist_launch.node.rendezvous import CoordinatorRendezvous, LoneRendezvous

    if options.coordinator is None:
        return LoneRendezvous(parameters.run_id)
    return CoordinatorRendezvous(
        options.coordinator,
        parameters.run_id,
        options.job,
        (parameters.min_nodes, parameters.max_nodes),
        parameters.local_addr or "127.0.0.1",
        options.ranks,
        options.connect_timeout_s,
    )


def heed_once() -> Callable[[], None]:
    """From now on, let the first signal that asks this agent to stop be the only one that it heeds.

    Whichever that is, the ranks are asked by SIGTERM: they may have no answer to another.

    Returns:
        What raises it again, if there was one.
    """
    from torch.distributed.elastic.multiprocessing import api

    asked = False

    def leave(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for other in (*ASKING, signal.SIGQUIT):
            signal.signal(other, signal.SIG_IGN)
        raise_it(signal.SIGTERM, frame)

    def heed() -> None:
        if asked:
            raise_it(signal.SIGTERM, None)

    raise_it = api._terminate_process_handler
    vars(api)["_terminate_process_handler"] = leave  # torch installs it when it starts ranks
    for signum in ASKING:
        signal.signal(signum, leave)
    return heed


def ask_first(handler: RendezvousHandler, heed: Callable[[], None]) -> RendezvousHandler:
    """A rendezvous to which nobody goes who was asked to stop; ranks are started, and again, behind one."""
    meet = handler.next_rendezvous

    def next_rendezvous() -> RendezvousInfo:
        heed()
        return meet()

    vars(handler)["next_rendezvous"] = next_rendezvous
    return handler


def ask_no_resolver() -> None:
    """Let this process name its host as the host names itself.

    torch's agent wants its host's full name for each of its events, and asks the resolver each time. One that
    does not answer took 20 s of every such question, and 115 s of a start.
    """

    def own_name(name: str = "") -> str:
        return name or socket.gethostname()

    vars(socket)["getfqdn"] = own_name


def main() -> None:
    del sys.path[0]  # the folder of this file, whose modules have names of their own
    end_by_signals()
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.rendezvous import RendezvousClosedError, rendezvous_handler_registry

    from edldist.lifecycle.ending import end_quickly
    from edldist_launch.node.rendezvous import CompleteError, CoordinatorRendezvous

    heed = heed_once()
    ask_no_resolver()
    options = msgspec.json.decode(sys.argv[1], type=AgentOptions)
    handlers: list[RendezvousHandler] = []

    def create(parameters: RendezvousParameters) -> RendezvousHandler:
        handlers.append(ask_first(make_handler(options, parameters), heed))
        return handlers[-1]

    rendezvous_handler_registry.register(BACKEND, create)
    try:
        run.main(sys.argv[2:])
    except CompleteError as exc:
        logger.warning("%s. Nothing is left to do here; a new run needs another --run-id", exc)
    except RendezvousClosedError:
        logger.error("this run has ended on other nodes; a new one needs another --run-id")
        sys.exit(EXIT_CLOSED)
    except SignalException:
        sys.exit(EXIT_STOPPED)  # which is no error that anybody has to trace
    finally:
        # torchrun does not shut the rendezvous down when a signal ends it.
        for handler in handlers:
            if isinstance(handler, CoordinatorRendezvous):
                handler.leave()
        end_quickly()


if __name__ == "__main__":
    main()
