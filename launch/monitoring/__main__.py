"""Write the files that are made of the list of metrics: ``python -m edldist_launch.monitoring [ROOT]``."""

from __future__ import annotations

import sys
from pathlib import Path

from edldist_launch.monitoring.files import made_files


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    for path, text in made_files(root).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
