"""Property tests judge what is computed, not how long a busy machine takes; a timeout ends a hanging one."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("edldist", deadline=None)
settings.load_profile("edldist")
