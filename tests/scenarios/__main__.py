"""``python -m tests.scenarios [--rewrite]``: compare all scenarios with what happens, or write that down."""

from __future__ import annotations

import argparse
import difflib
import logging
import sys
from pathlib import Path

from tests.scenarios.scenario import played


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description=__doc__)
    parser.add_argument("--rewrite", action="store_true", help="write what happens now into the files")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    changed = 0
    for path in sorted(Path(__file__).parent.glob("*.txt")):
        before, now = path.read_text(), played(path)
        if before == now:
            continue
        changed += 1
        if options.rewrite:
            path.write_text(now)
            print(f"rewrote {path.name}")
        else:
            names = (path.name, "what happens now")
            print("".join(difflib.unified_diff(before.splitlines(True), now.splitlines(True), *names)))
    print(f"{changed} scenarios {'were rewritten' if options.rewrite else 'differ'}")
    return 1 if changed and not options.rewrite else 0


if __name__ == "__main__":
    sys.exit(main())
