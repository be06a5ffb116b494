"""Fuzz a running job: ``python -m tests.fuzz --inputs N --seconds S --seed K [--keys]``.

The decoder, the ports of coordinator and student, the links of teachers, the HTTP port and a door of a ranks'
store get hostile input from one seeded source until there were as many inputs and seconds as asked for. A job
trains meanwhile. The exit code is 1 if a process ended, hung or grew, a stranger got through that door, a
sample was lost or counted twice, or a late worker did not get in.

What it costs the job is told as a ratio: every other five seconds strangers keep quiet, and the decoder alone
goes on, which is in this process, so that this process needs as much of the machine then.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.fuzz.beside import MOST_GROWTH_BYTES, Beside, job
from tests.fuzz.door import Knocks
from tests.fuzz.strangers import Dealer, Decoder, Flood, Host, Pages, Raw, healthy
from tests.fuzz.words import Words

WINDOW_S = 5.0
TELL_EVERY_S = 30.0
SETTLE_STEPS = 50


class Source(Protocol):
    name: str

    def send(self) -> int:
        """Send some, where it is time to; how many."""
        ...


class Windows:
    """Samples and seconds with strangers about, and without. What begins a window belongs to no one."""

    def __init__(self, beside: Beside) -> None:
        self._beside = beside
        self.samples = {True: 0, False: 0}
        self.seconds = {True: 0.0, False: 0.0}
        self.loud = False
        self._begin()

    def _begin(self) -> None:
        self._at = time.monotonic()
        self._taken = self._beside.taken()

    def turn(self) -> None:
        """Go on to the next window when this one is over."""
        now = time.monotonic()
        if now - self._at < WINDOW_S:
            return
        self.samples[self.loud] += self._beside.taken() - self._taken
        self.seconds[self.loud] += time.monotonic() - self._at
        self.loud = not self.loud
        self._begin()

    def rate(self, loud: bool) -> float:
        return self.samples[loud] / self.seconds[loud] if self.seconds[loud] else float("nan")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--inputs", type=int, default=100_000, metavar="N", help="at least so many (100000)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="at least so long (60)")
    parser.add_argument("--seed", type=int, default=0, metavar="K")
    parser.add_argument("--keys", action="store_true", help="a job with keys; strangers have others, or none")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="edldist-fuzz-") as folder, contextlib.ExitStack() as stack:
        if options.keys:
            os.environ["EDLDIST_KEYS"] = str(Path(folder) / "keys")
            stack.callback(os.environ.pop, "EDLDIST_KEYS")
        try:
            with job(Path(folder), options.keys) as beside:
                fuzz(beside, options.inputs, options.seconds, options.seed, options.keys)
        except AssertionError as exc:
            print(f"FAILED: {exc}", flush=True)
            return 1
    return 0


def fuzz(beside: Beside, inputs: int, seconds: float, seed: int, keys: bool) -> None:
    """Raises AssertionError where the job suffers."""
    words = Words(random.Random(seed))
    beside.party.await_steps(SETTLE_STEPS, 90)
    beside.settle()
    decoder = Decoder(words)
    with contextlib.ExitStack() as stack:
        strangers: list[Source] = []
        for name, address in (("coordinator", beside.coordinator), ("student", beside.student)):
            for curve in (False, True) if keys else (False,):
                dealer = Dealer(f"{name}{' with another key' if curve else ''}", address, words, curve)
                stack.callback(dealer.close)
                strangers.append(dealer)
            flood = Flood(f"{name} floods", address, words)
            stack.callback(flood.close)
            strangers += [Raw(f"{name} raw", address, words), flood]
        strangers.append(Pages(beside.http, words))
        knocks = Knocks(words)
        stack.callback(knocks.close)
        strangers.append(knocks)
        if not keys:
            host = Host(beside.coordinator, words)
            stack.callback(host.close)
            strangers.append(host)
        sent = _talk(beside, decoder, strangers, inputs, seconds)
        knocks.check()
    healthy(beside.http)
    beside.look()
    growth = beside.growth()
    beside.newcomer()
    done = beside.party.finish()
    print(f"memory grew by at most: {', '.join(f'{k} {v >> 20} MiB' for k, v in growth.items())}")
    print(f"exactly once: {done['epochs']} epochs, {done['step']} steps, and a late worker got in")
    grown = {name: more for name, more in growth.items() if more > MOST_GROWTH_BYTES}
    assert not grown, f"these grew by more than {MOST_GROWTH_BYTES >> 20} MiB: {sorted(grown)}"
    print(f"{sum(sent.values())} inputs, seed {seed}{', with keys' if keys else ''}: nothing was found")


def _talk(
    beside: Beside, decoder: Decoder, strangers: list[Source], inputs: int, seconds: float
) -> Counter[str]:
    sent: Counter[str] = Counter()
    windows = Windows(beside)
    began = told = time.monotonic()
    while sum(sent.values()) < inputs or time.monotonic() - began < seconds:
        sent[decoder.name] += decoder.send()
        if windows.loud:
            for stranger in strangers:
                sent[stranger.name] += stranger.send()
        beside.glance()
        windows.turn()
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            print(f"{told - began:5.0f} s: {sum(sent.values())} inputs", file=sys.stderr, flush=True)
    took_s = time.monotonic() - began
    print(f"{took_s:.0f} s; inputs: {', '.join(f'{name} {count}' for name, count in sent.items())}")
    quiet, loud = windows.rate(False), windows.rate(True)
    print(
        f"the job took {quiet:.0f} samples/s while strangers kept quiet and {loud:.0f} while they did not: "
        f"{loud / quiet:.2f} times as many"
    )
    return sent


if __name__ == "__main__":
    sys.exit(main())
