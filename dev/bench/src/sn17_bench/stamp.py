"""What every result file says of itself."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

_ROOT = Path(__file__).parent


def stamp() -> dict[str, str]:
    """The commit that is measured, and today's date (UTC). Raises CalledProcessError outside of a clone."""
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=_ROOT, text=True)
    return {"commit": commit.strip(), "date": datetime.now(UTC).date().isoformat()}
