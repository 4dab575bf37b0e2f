"""Default thresholds of the worker's memory guard: shares of the limit, judged on unreclaimable bytes."""

from __future__ import annotations

from typing import Final

GUARD_CLEANUP_RATIO: Final = 0.75
GUARD_REFUSE_RATIO: Final = 0.88
