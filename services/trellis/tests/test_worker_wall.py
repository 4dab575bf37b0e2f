"""The real wall: a leaking worker in a memory cgroup of 1Gi, with its guard and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from sn17_http import own_request

GIB = 1 << 30
ROOT = Path("/sys/fs/cgroup")
SERVE = [sys.executable, "-m", "sn17_trellis", "serve"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not os.environ.get("SN17_LONG"), reason="long form: set SN17_LONG=1"),
]


@dataclass(frozen=True)
class Wall:
    folder: Path
    v2: bool

    @property
    def kills(self) -> int:
        name = "memory.events" if self.v2 else "memory.oom_control"
        pairs = (line.split() for line in (self.folder / name).read_text().splitlines())
        return int(dict(pairs)["oom_kill"])


@pytest.fixture
def wall() -> Iterator[Wall]:
    v2 = (ROOT / "cgroup.controllers").exists()
    folder = (ROOT if v2 else ROOT / "memory") / f"sn17-wall-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / ("memory.max" if v2 else "memory.limit_in_bytes")).write_text(str(GIB))
    except OSError as error:
        pytest.skip(f"no memory cgroup of our own can be made here: {error}")
    yield Wall(folder, v2)
    folder.rmdir()


@pytest.mark.parametrize("guard", ["off", "on"])
def test_a_leak_hits_the_wall_unless_the_guard_stands(
    guard: str, wall: Wall, tmp_path: Path, wait_until: Callable[[Callable[[], object]], None]
) -> None:
    ready = tmp_path / "ready.json"
    env = {
        **os.environ,
        "SN17_PORT": "0",
        "SN17_OPS_PORT": "0",
        "SN17_READY_FILE": str(ready),
        "SN17_SPOOL_DIR": str(tmp_path / "spool"),
        "SN17_MEMORY_SOURCE": "cgroup",
        "SN17_PROCEDURAL_MAX_GAUSSIANS": "100000",
        "SN17_GUARD": guard,
        "SN17_FAULTS": json.dumps({"leak_mib_per_generation": 48, "gaussian_decay": True}),
        "SN17_SELF_RECYCLE_AFTER_SECONDS": "1",
    }
    process = subprocess.Popen(
        ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(wall.folder), *SERVE],
        env=env,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(ready.exists)
        url = f"http://127.0.0.1:{json.loads(ready.read_text())['port']}"
        wait_until(lambda: own_request("GET", f"{url}/v1/worker").json()["state"] == "ready")
        counts, refused = [], None
        for _ in range(60):
            try:
                answer = own_request(
                    "POST", f"{url}/generate", data={"prompt": "a large red cube"}, timeout=60
                )
            except httpx2.TransportError:
                break
            if answer.status_code != 200:
                refused = answer.json()["code"]
                break
            counts.append(int(answer.headers["sn17-gaussians"]))
        code = process.wait(60)
    finally:
        process.kill()
        process.wait(60)
    assert counts[0] > 6 * counts[-1], "gaussians decay as memory fills"
    if guard == "off":
        assert (code, wall.kills) == (-9, 1), "the control: the leak is real"
    else:
        assert (code, wall.kills, refused) == (75, 0, "memory_refused")
