"""Free ports, and waiting for what a real process will do."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.error import URLError


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(what: str, found: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true answer of ``found`` within a deadline."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(URLError, OSError):
            if answer := found():
                return answer
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
