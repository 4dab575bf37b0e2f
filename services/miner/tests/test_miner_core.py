"""The miner's core decides without I/O."""

from __future__ import annotations

import os
import subprocess
import sys

LOADED = """
import importlib, pkgutil, sys
import sn17_miner.core
for module in pkgutil.iter_modules(sn17_miner.core.__path__, "sn17_miner.core."):
    importlib.import_module(module.name)
heavy = {"aiohttp", "httpx", "httpx2", "sqlite3", "bittensor_wallet", "fastapi", "uvicorn", "sn17_service"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_the_core_loads_no_library_for_network_disk_or_keys() -> None:
    """import-linter reads the sources; this sees what really gets loaded, re-exports included."""
    # What measures coverage starts with the interpreter and loads sqlite3 itself.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", LOADED], env=plain, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
