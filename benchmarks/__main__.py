"""Run the benchmarks and print a table; ``--json FILE`` keeps every figure."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.label_path import CASES, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="interleaved runs; medians are compared")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    options = parser.parse_args()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    rows = [measure(case, options.repeats, options.seconds) for case in CASES]
    table = Table(title=f"label path over TCP, one rank, one no-op worker ({machine})")
    for column in ("", "samples/s", "bare echo", "ratio", "budget"):
        table.add_column(column, justify="left" if not column else "right")
    for row in rows:
        table.add_row(
            str(row["name"]),
            f"{row['samples_per_s']:,.0f}",
            f"{row['echo_samples_per_s']:,.0f}",
            f"{row['ratio']:.2f}",
            f"{row['budget']:.2f}",
        )
    Console().print(table)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
