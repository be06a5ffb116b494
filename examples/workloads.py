"""Run the sweeps of all examples that have a gate, and write what they measured into the documentation.

    python -m examples.workloads                          # all of them: hours
    python -m examples.workloads control --seeds 0 1 2    # one of them; the others keep their figures
    python -m examples.workloads --list

Each sweep is a process of its own, and its verdict goes into ``examples/workloads.json`` as soon as it is
there, with the command, the seconds, the processor and the revision; the table in ``docs/workloads.md`` is
made of that file. What was run before with this very edldist and example lies in ``out/workloads`` and is not
run again.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edldist_benchmarks.machine import describe_machine
from edldist_launch.process.tie import tied_command
from examples.common.figures import table
from examples.common.kept import fingerprint, write_json
from examples.common.seeds import Different, seed

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
RECORD = EXAMPLES / "workloads.json"
PAGE = ROOT / "docs" / "workloads.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"

Record = dict[str, dict[str, Any]]
"""By workload: ``gate``, ``passed``, ``figures``, ``command``, ``seeds``, ``seconds``, ``cpu``, ``cores`` and
``revision``."""


def main() -> int:
    known = gates(EXAMPLES)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="workloads; all where none is named")
    parser.add_argument(
        "--seeds", type=seed, nargs="+", action=Different, metavar="SEED", help="default: each sweep's own"
    )
    parser.add_argument("--output", type=Path, default=Path("out/workloads"))
    parser.add_argument("--list", action="store_true", help="name the workloads and their gates, run none")
    parser.add_argument("--table", action="store_true", help="write the page of what is recorded, run none")
    args = parser.parse_args()
    if unknown := set(args.names) - set(known):
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if args.list:
        print("\n".join(f"{name}: {gate}" for name, gate in known.items()))
        return 0
    if args.table:
        write_page(read_record())
        return 0
    about, folder = where(), args.output / fingerprint({}, framework())
    fine = True
    for name in args.names or known:
        verdict = run(name, folder / name, args.seeds)
        if verdict is None:
            print(f"{name}: the sweep failed; its former figures stay", file=sys.stderr, flush=True)
        else:
            keep(name, verdict | about, known)
        fine &= verdict is not None and verdict["passed"]
    return 0 if fine else 1


def gates(examples: Path) -> dict[str, str]:
    """The workloads: the texts ``GATE`` in examples' ``sweep.py``, by example. Nothing is imported."""
    found = {}
    for path in sorted(examples.glob("*/sweep.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["GATE"]:
                found[path.parent.name] = ast.literal_eval(node.value)
    return found


def framework() -> list[Path]:
    """The modules on which every workload depends."""
    return [path for top in ("edldist", "launch") for path in (ROOT / top).rglob("*.py")]


def where() -> dict[str, Any]:
    """The processor and the revision of the figures."""
    machine = describe_machine()
    return {"cpu": machine["cpu"], "cores": machine["usable_cores"], "revision": revision()}


def revision() -> str:
    """The commit of this checkout, marked where the code that figures depend on is not as in it."""
    watched = ("edldist", "launch", "examples", f":!{RECORD.relative_to(ROOT)}")
    try:
        changed = _git("status", "--porcelain", "--", *watched)
        return f"{_git('rev-parse', '--short=12', 'HEAD')}{' with changes' if changed else ''}"
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def run(name: str, folder: Path, seeds: list[int] | None) -> dict[str, Any] | None:
    """The verdict of a sweep, with its command and the seconds that its jobs took; None if it failed."""
    chosen = [] if seeds is None else ["--seeds", *map(str, seeds)]
    command = ["python", f"examples/{name}/sweep.py", *chosen]
    print(f"\n{' '.join(command)}", file=sys.stderr, flush=True)
    sweep = [sys.executable, *command[1:], "--output", str(folder)]
    said = subprocess.run(
        tied_command(sweep, os.getpid()), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ).stdout
    print(said, flush=True)
    verdict = last_verdict(said, name)
    if verdict is None:
        return None
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / folder).glob("*.json")]
    seconds = round(sum(each["seconds"] for each in kept))
    measured = sorted({seed for figure in verdict["figures"].values() for seed in figure["seeds"]})
    return verdict | {"command": " ".join(command), "seeds": measured, "seconds": seconds}


def last_verdict(said: str, name: str) -> dict[str, Any] | None:
    """What the last line of a sweep's output says, without the workload's name; None if it is no verdict."""
    lines = said.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except json.JSONDecodeError:
        return None
    if not isinstance(found, dict) or found.pop("workload", None) != name:
        return None
    return found if {"gate", "figures", "passed"} <= found.keys() else None


def keep(name: str, verdict: dict[str, Any], known: Mapping[str, str]) -> None:
    """Write a verdict into the record, and the record into the page. Workloads that are gone leave it."""
    record = {**read_record(), name: verdict}
    record = {each: record[each] for each in known if each in record}
    write_json(RECORD, record)
    write_page(record)


def write_page(record: Record) -> None:
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")


def read_record() -> Record:
    found: Record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    return found


def with_table(page: str, record: Record) -> str:
    """The page with the table of what is recorded between its marks.

    Raises:
        ValueError: it has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has no {BEGIN} ... {END} for the table")
    return f"{before}{BEGIN}\n{rendered(record)}\n{END}{after}"


def rendered(record: Record) -> str:
    """A row a workload."""
    rows = []
    for name, found in record.items():
        figures = "<br>".join(f"{what}: {_shown(figure)}" for what, figure in found["figures"].items())
        measured = f"seeds {_seeds(found['seeds'])}, {_minutes(found['seconds'])}, `{found['revision']}`"
        holds = "yes" if found["passed"] else "**no**"
        link = f"[{name}](../examples/{name}/README.md)"
        rows.append([link, found["gate"], figures, holds, measured, f"`{found['command']}`"])
    return table(["workload", "gate", "measured", "holds", "of", "command"], rows).replace("---:", "---")


def _shown(figure: Mapping[str, Any]) -> str:
    error = figure["error"]
    return f"{figure['mean']:.4g}" + ("" if error is None else f" ± {error:.2g}")


def _seeds(seeds: list[int]) -> str:
    whole = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]} to {seeds[-1]}" if whole else ", ".join(map(str, seeds))


def _minutes(seconds: float) -> str:
    return f"{max(1, round(seconds / 60))} min"


def _git(*args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *args], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
