"""Change modules in small ways and see whether tests notice: ``python -m tests.mutation [MODULE ...]``.

A mutant is one change of one module. The unit tests of that module run on it, in a process of its own, and
*kill* it when one fails, or does not end. Those that survive are printed, but for those that ``accepted.txt``
names, with the reason why no test can, or should, tell them from the original. The exit code is 1 if there
are others, or if that file names some that do not survive.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.mutation.children import die_with_parent, own_place
from tests.mutation.collected import Outcome, Trial
from tests.mutation.group import Group
from tests.mutation.module import SubjectModule
from tests.mutation.subjects import SUBJECTS

ACCEPTED = Path(__file__).with_name("accepted.txt")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as student/queue/task.py (all)")
    only_help = "those in whose name this is; several: one of them"
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help=only_help)
    parser.add_argument("--processes", type=int, default=1, metavar="P", help="how many run at once (1)")
    parser.add_argument("--show", action="store_true", help="show what the tests print")
    parser.add_argument("--killers", action="store_true", help="name the test that kills each")
    parser.add_argument("--no-imports", action="store_true", help="leave out those of what is done at import")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.modules if name not in SUBJECTS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SUBJECTS)}")
    if options.processes < 1:
        parser.error(f"--processes {options.processes}: at least 1")
    report = Report(options.modules or list(SUBJECTS), options.only, options.killers)
    with own_place():
        whole = report.follow(_run_all(options.modules or list(SUBJECTS), options))
    print(report.summary(), sep="\n")
    return 0 if whole and not report.to_look_at else 1


def read_accepted(text: str) -> dict[str, dict[str, str]]:
    """By module and mutant, why it survives. A line ``== MODULE``, a line ``# REASON``, lines of mutants."""
    accepted: dict[str, dict[str, str]] = {}
    module = reason = ""
    for line in text.splitlines():
        if line.startswith("== "):
            module = line[3:]
        elif line.startswith("# "):
            reason = line[2:]
        elif line:
            accepted.setdefault(module, {})[line] = reason
    return accepted


class Report:
    """What became of the mutants of some modules."""

    def __init__(self, names: Sequence[str], only: Sequence[str], killers: bool) -> None:
        self._only = only
        self._killers = killers
        self._accepted = read_accepted(ACCEPTED.read_text())
        self._subjects = {name: SubjectModule(name) for name in names}
        self._survivors: dict[str, list[str]] = {name: [] for name in names}
        self._tried: dict[str, list[str]] = {name: [] for name in names}
        self._left_out: dict[str, list[str]] = {name: [] for name in names}
        self._took_s = dict.fromkeys(names, 0.0)
        self._began = time.monotonic()
        self.to_look_at = 0

    def follow(self, trials: Iterator[Trial | None]) -> bool:
        """Print survivors as they come; False if the trials broke off."""
        for trial in trials:
            if trial is None:
                return False
            self._take(trial)
        for name in self._subjects:
            known, tried = self._known(name), self._tried[name]
            for each in known:
                if each in self._left_out[name]:
                    continue
                if each not in self._survivors[name] if each in tried else not self._only:
                    print(f"  {name}  {each}: is killed, or gone; take it out of {ACCEPTED.name}")
                    self.to_look_at += 1
        return True

    def _known(self, name: str) -> Mapping[str, str]:
        return self._accepted.get(name, {})

    def _take(self, trial: Trial) -> None:
        name, subject = trial.subject, self._subjects[trial.subject]
        label, line = subject.labels[trial.number], subject.mutants[trial.number].line
        if trial.outcome == Outcome.LEFT_OUT:
            self._left_out[name].append(label)
            return
        self._tried[name].append(label)
        self._took_s[name] += trial.took_s
        if trial.outcome == Outcome.SURVIVED:
            self._survivors[name].append(label)
            if label not in self._known(name):
                self.to_look_at += 1
                unseen = "" if trial.tests else "  (no test runs this)"
                print(f"  {name}:{line}  {label}{unseen}", flush=True)
        elif self._killers:
            print(f"  {name}:{line}  {label}: {trial.by} ({trial.took_s:.2f} s)", flush=True)

    def summary(self) -> str:
        """A table of the modules, and how many mutants are to be looked at."""
        rows = [("subject", "mutants", "killed", "accepted", "seconds")]
        for name, survivors in self._survivors.items():
            tried = len(self._tried[name])
            accepted = len([each for each in survivors if each in self._known(name)])
            counts = tried, tried - len(survivors), accepted, round(self._took_s[name])
            rows.append((name, *(str(count) for count in counts)))
        lines = [f"| {row[0]:36} | " + " | ".join(f"{cell:>8}" for cell in row[1:]) + " |" for row in rows]
        lines.insert(1, "|---|---:|---:|---:|---:|")
        took_s = time.monotonic() - self._began
        if left_out := sum(len(labels) for labels in self._left_out.values()):
            lines.append(f"{left_out} of what is done at import left out")
        return "\n".join([*lines, f"{self.to_look_at} to look at, after {took_s:.0f} s"])


def _run_all(names: Sequence[str], options: argparse.Namespace) -> Iterator[Trial | None]:
    """The trials of all modules as they end, by some processes, of which each takes group after group."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        groups.setdefault(SUBJECTS[name], []).append(name)
    os.environ["OMP_NUM_THREADS"] = "1"  # a fork has none of the threads that torch would have started
    todo = _filled_pipe(range(len(groups)))
    read, write = os.pipe()

    def tell(trial: Trial) -> None:
        os.write(write, json.dumps(vars(trial)).encode() + b"\n")  # short: in one piece

    def wanted(label: str) -> bool:
        return not options.only or any(text in label for text in options.only)

    def run() -> None:
        while number := os.read(todo, 1):
            tests, members = list(groups.items())[number[0]]
            Group(members, tests, options.show, not options.no_imports).try_all(wanted, tell)

    runners = {_fork(run) for _ in range(min(options.processes, len(groups)))}
    os.close(todo)
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            for line in pipe:
                yield Trial(**json.loads(line))
        while runners:
            pid, status = os.wait()
            if pid in runners and status:
                yield None
            runners.discard(pid)
    finally:
        for pid in runners:
            os.kill(pid, signal.SIGKILL)


def _filled_pipe(numbers: range) -> int:
    read, write = os.pipe()
    os.write(write, bytes(numbers))
    os.close(write)
    return read


def _fork(run: Callable[[], None]) -> int:
    if pid := os.fork():
        return pid
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    code = 1
    try:
        run()
        code = 0
    except SystemExit as exc:
        print(exc, file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
