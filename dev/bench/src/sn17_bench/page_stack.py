"""`sn17 up` as a process of its own, for whoever looks at its page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_START_SECONDS: Final = 300.0
_STOP_SECONDS: Final = 60.0


@contextmanager
def local_stack(folder: Path, *arguments: str, keep_assets: int = 200) -> Iterator[str]:
    """The procedural backend and what else the arguments say; the page's address. Ends with the context.

    Raises RuntimeError where it does not start; the message names its log.
    """
    state, log = folder / "state", folder / "up.log"
    command = [sys.executable, "-m", "sn17", "up", "--backend", "procedural", "--state-dir", str(state)]
    environment = {**os.environ, "SN17_KEEP_ASSETS": str(keep_assets)}
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *arguments], stdout=output, stderr=output, env=environment)
    try:
        deadline = time.monotonic() + _START_SECONDS
        # The miner starts last.
        while not (state / "run" / "miner.json").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sn17 up did not start: see {log}")
            time.sleep(0.05)
        port = json.loads((state / "run" / "gateway.json").read_text())["port"]
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
