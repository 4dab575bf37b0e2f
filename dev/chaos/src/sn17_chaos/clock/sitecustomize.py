"""Shifts the wall clock of a Python process by the seconds that a file holds; found by PYTHONPATH.

The file is read at each call, so the clock of a running process can be stepped. Monotonic time stays.
"""

import os
import time
from pathlib import Path

_file = os.environ.get("CHAOS_CLOCK_FILE")


def _shift(path: Path) -> None:
    real, real_ns = time.time, time.time_ns

    def offset() -> float:
        try:
            return float(path.read_text())
        except (OSError, ValueError):
            return 0.0

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1e9)


if _file:
    _shift(Path(_file))
