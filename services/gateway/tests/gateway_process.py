"""The gateway as a process of its own, on real ports, with a folder that outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DEADLINE = 300.0
GUEST = "6f1c2a34-5b6d-4e7f-8a9b-0c1d2e3f4a5b"
TOKEN = "correct horse"


class GatewayProcess:
    """``settings`` are names without the prefix; start and kill as often as you like."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self._ready = folder / "ready.json"
        token = folder / "token"
        token.write_text(TOKEN)
        values = {
            "port": 0,
            "ops_port": 0,
            "ready_file": self._ready,
            "admin_token_file": token,
            "data_dir": folder / "data",
            "generic_key": GUEST,
            "guest_concurrent": 0,
            "guest_daily": 0,
            "guest_daily_by_address": 0,
            "rate_add_task": 0,
            "rate_get_status": 0,
            "rate_results": 0,
            "rate_get_result": 0,
            "rate_get_tasks": 0,
            "log_level": "WARNING",
            "die_with_parent": True,
            **settings,
        }
        self._environment = {f"SN17_{name.upper()}": _text(value) for name, value in values.items()}
        self._process: subprocess.Popen[bytes] | None = None
        self.ports: dict[str, int] = {}

    def start(self) -> GatewayProcess:
        self._ready.unlink(missing_ok=True)
        if self.ports:
            self._environment |= {
                "SN17_PORT": str(self.ports["port"]),
                "SN17_OPS_PORT": str(self.ports["ops_port"]),
            }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sn17_gateway"], env={**os.environ, **self._environment}
        )
        deadline = time.monotonic() + DEADLINE
        while not self._ready.exists():
            assert self._process.poll() is None, "the gateway ended"
            assert time.monotonic() < deadline, "the gateway does not listen"
            time.sleep(0.01)
        self.ports = json.loads(self._ready.read_text())
        return self

    def kill(self) -> None:
        """As the kernel does when memory runs out."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """As Kubernetes does; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(DEADLINE)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['port']}"

    @property
    def ops_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['ops_port']}"

    def __enter__(self) -> GatewayProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, bool | list) else str(value)
