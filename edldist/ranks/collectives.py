"""How many collectives this process has taken part in: whether a call did one unasked."""

from __future__ import annotations

import sys
from typing import Any

from edldist.ranks.placement import in_process_group

__all__ = ["collectives_begun"]


def collectives_begun() -> int | None:
    """The number that torch's default process group counts them by, of this process; None if nobody counts.

    Those of other groups are not in it. Imports nothing: where there is a group, its module is loaded.
    """
    if not in_process_group():
        return None
    module: Any = sys.modules["torch.distributed.distributed_c10d"]
    try:
        return int(module._get_default_group()._get_sequence_number_for_group())
    except (AttributeError, RuntimeError):  # a backend of another kind
        return None
