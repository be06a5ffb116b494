"""Run seeds: ``python -m tests.simulation --seeds N [--first K]``, or one: ``--replay SEED [--only 3,17]``.

The last line is ``N seeds, F faults, V violations``; the exit code is 1 if V is not 0. A seed that fails is
told at once; when all have run, the first five are shrunk to the few faults that each takes, whose
story is told with the command that tells it in full.
"""

from __future__ import annotations

import argparse
import functools
import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.runs import fails, run_seed, world_of
from tests.simulation.shrink import shrink
from tests.simulation.world import Outcome

SHRINK_S = 60.0
MOST_SHRUNK = 5
TELL_EVERY = 100


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_count, default=100, metavar="N", help="how many seeds (100)")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="the first of them")
    parser.add_argument("--processes", type=_count, default=1, metavar="P", help="how many run at once (1)")
    parser.add_argument("--shared", action="store_true", help="worlds of several jobs that share a fleet")
    parser.add_argument("--replay", type=int, nargs="+", metavar="SEED", help="tell the story of seeds")
    parser.add_argument(
        "--only", type=_numbers, metavar="N,N,...", help="with --replay: only these faults of the plan"
    )
    options = parser.parse_args(arguments)
    if options.replay is not None:
        for seed in options.replay:
            known = {fault.number for fault in world_of(options.shared)(seed).faults}
            if unknown := sorted(set(options.only or ()) - known):
                there = f"0 to {max(known)}" if known else "none"
                parser.error(f"--only: seed {seed} has no faults {unknown}; its plan has {there}")
        logging.disable(logging.CRITICAL)
        return _report(
            [_replay(seed, options.only, options.shared) for seed in options.replay], time.monotonic()
        )
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    seeds = range(options.first, options.first + options.seeds)
    outcomes: list[Outcome] = []
    try:
        for outcome in _outcomes(seeds, options.processes, options.shared):
            outcomes.append(outcome)
            _tell_progress(outcomes, len(seeds), began)
    except KeyboardInterrupt:
        print(f"interrupted after {len(outcomes)} of {len(seeds)} seeds", file=sys.stderr)
        return _report(outcomes, began) or 130
    code = _report(outcomes, began)
    for outcome in [outcome for outcome in outcomes if outcome.violations][:MOST_SHRUNK]:
        _explain(outcome, options.shared)
    if code:
        print(_verdict(outcomes), flush=True)  # the last line, whatever was told in between
    return code


def _outcomes(seeds: range, processes: int, shared: bool) -> Iterator[Outcome]:
    """What became of each seed, in order."""
    run = functools.partial(run_seed, shared=shared)
    if processes == 1:
        yield from map(run, seeds)
        return
    with ProcessPoolExecutor(processes) as pool:
        try:
            yield from pool.map(run, seeds, chunksize=4)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _tell_progress(outcomes: list[Outcome], seeds: int, began: float) -> None:
    """A violation at once, and from time to time how far it is."""
    latest = outcomes[-1]
    if latest.violations:
        print(f"seed {latest.seed}: {latest.violations[0]}", file=sys.stderr, flush=True)
    if len(outcomes) % TELL_EVERY == 0:
        took_s = time.monotonic() - began
        rate = sum(outcome.fired for outcome in outcomes) / max(took_s, 1e-9)
        told = f"{len(outcomes)} of {seeds} seeds in {took_s:.0f} s, {rate:.0f} faults a second"
        print(told, file=sys.stderr, flush=True)


def _count(text: str) -> int:
    """A number of 1 or more: nothing that ran is not a success."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _numbers(text: str) -> list[int]:
    parts = [part for part in text.split(",") if part]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like 3,17")
    return [int(part) for part in parts]


def _replay(seed: int, only: list[int] | None, shared: bool) -> Outcome:
    print(f"--- seed {seed}")
    return world_of(shared)(seed, only, print).run()


def _explain(outcome: Outcome, shared: bool) -> None:
    """Shrink a seed that fails, and tell what is left of it."""
    seed = outcome.seed
    print(f"--- seed {seed} fails: {outcome.violations[0]}")
    numbers = [fault.number for fault in world_of(shared)(seed).faults]
    kept = shrink(numbers, lambda only: fails(seed, only, shared), SHRINK_S)
    story: list[str] = []
    world_of(shared)(seed, kept, story.append).run()
    print(f"{len(kept)} of {len(numbers)} faults are enough:")
    for line in story:
        if " <- " not in line:
            print(line)
    told = ",".join(map(str, kept))
    how = "--shared " if shared else ""
    print(f"step by step: python -m tests.simulation {how}--replay {seed} --only '{told}'")


def _report(outcomes: list[Outcome], began: float) -> int:
    steps = sum(outcome.training_steps for outcome in outcomes)
    simulated_s = sum(outcome.simulated_s for outcome in outcomes)
    took_s = time.monotonic() - began
    # On standard error, since the story of a seed has to be the same in every process.
    print(f"took {took_s:.0f} s", file=sys.stderr)
    print(f"{steps} training steps and {simulated_s:.0f} simulated seconds")
    print(_verdict(outcomes), flush=True)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


def _verdict(outcomes: list[Outcome]) -> str:
    faults = sum(outcome.fired for outcome in outcomes)
    failed = sum(bool(outcome.violations) for outcome in outcomes)
    return f"{len(outcomes)} seeds, {faults} faults, {failed} violations"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no folder stays behind
    sys.exit(main())
