"""Run the command line from this very installation: ``python .../launch/__main__.py ARGS``.

Children of ``edldist run`` start this way, so that a ``launch.py`` or ``launch/`` in the user's
folder cannot take the place of this package.
"""

from __future__ import annotations

import os
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from launch.cli import main  # noqa: E402

del sys.path[0]

if __name__ == "__main__":
    main()
