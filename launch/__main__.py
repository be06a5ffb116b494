"""Run the command line from this very installation: ``python .../launch/__main__.py ARGS``.

Children of ``edldist run`` start this way, so that no module in the user's folder can take the place of
one that this package imports.
"""

from __future__ import annotations

import sys

del sys.path[0]

from edldist_launch.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
