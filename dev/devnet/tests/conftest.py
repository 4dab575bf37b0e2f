"""The helpers of this folder are importable by name."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
# The recorded cases of 404's gateway, and a client and a worker for them.
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "services/gateway/tests"))

from devnet_harness import Local


@pytest.fixture
async def local(tmp_path):
    made = Local(tmp_path)
    await made.validator.start()
    yield made
    await made.validator.stop()


@pytest.fixture
async def local_with(tmp_path):
    """Makes a validator with faults or options."""
    running = []

    async def make(*faults, **options):
        made = Local(tmp_path, faults, **options)
        await made.validator.start()
        running.append(made)
        return made

    yield make
    for made in running:
        await made.validator.stop()
