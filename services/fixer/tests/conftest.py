from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def real_splats() -> Path:
    """The folder with real splats, shared beside the repository."""
    folder = Path(os.environ.get("SN17_SPLATS", REPOSITORY / "../shared/data/splats"))
    if not folder.is_dir():
        pytest.skip(f"no real splats at {folder}: set SN17_SPLATS to a folder that has them")
    return folder


sys.path.insert(0, str(REPOSITORY / "libs/splats/tests"))  # splat_mutations
