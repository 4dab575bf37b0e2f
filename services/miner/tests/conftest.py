"""The fakes of this folder and the gateway's are importable by name; a whole miner against them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "dev/devnet/tests"))
sys.path.insert(0, str(Path(__file__).parents[2] / "gateway/tests"))
sys.path.insert(0, str(Path(__file__).parent))

from miner_harness import Harness


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    made = Harness(tmp_path)
    yield made
    await made.close()
