"""The script of a rank of ``edldist label``. Its arguments are those of the job's own student, and unread."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules would take the place of those of a user
    from edldist.labeller.rank import main

    main()
