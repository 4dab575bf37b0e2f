"""The real limit: a leaking worker in a memory cgroup of 1Gi, with its guard and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sn17_http import own_request

GIB = 1 << 30
ROOT = Path("/sys/fs/cgroup")
SERVE = [sys.executable, "-m", "sn17_trellis", "serve"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
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


@dataclass
class Outcome:
    """What a run of up to sixty jobs saw; ``code`` None: the service was still there."""

    counts: list[int]
    refused: str | None
    code: int | None
    state: dict[str, Any]


def run(
    wall: Wall,
    folder: Path,
    wait_until: Callable[[Callable[[], object]], None],
    jobs: int = 60,
    **settings: object,
) -> Outcome:
    ready = folder / "ready.json"
    env = {
        **os.environ,
        "SN17_PORT": "0",
        "SN17_OPS_PORT": "0",
        "SN17_READY_FILE": str(ready),
        "SN17_SPOOL_DIR": str(folder / "spool"),
        "SN17_MEMORY_SOURCE": "cgroup",
        "SN17_PROCEDURAL_MAX_GAUSSIANS": "100000",
        "SN17_SELF_RECYCLE_AFTER_SECONDS": "1",
        **{f"SN17_{name.upper()}": str(value) for name, value in settings.items()},
    }
    process = subprocess.Popen(
        ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(wall.folder), *SERVE],
        env=env,
        stderr=(folder / "log").open("wb"),
    )
    found = Outcome([], None, None, {})
    try:
        wait_until(ready.exists)
        url = f"http://127.0.0.1:{json.loads(ready.read_text())['port']}"
        wait_until(lambda: own_request("GET", f"{url}/v1/worker").json()["state"] == "ready")
        for _ in range(jobs):
            try:
                answer = own_request(
                    "POST", f"{url}/generate", data={"prompt": "a large red cube"}, timeout=60
                )
            except httpx2.TransportError:
                break
            if answer.status_code != 200:
                found.refused = answer.json()["code"]
                break
            found.counts.append(int(answer.headers["sn17-gaussians"]))
        else:
            found.state = own_request("GET", f"{url}/v1/worker").json()
            return found
        found.code = process.wait(60)
        return found
    finally:
        process.kill()
        process.wait(60)
        wait_until(lambda: not (wall.folder / "cgroup.procs").read_text())


@pytest.mark.parametrize("guard", ["off", "on"])
def test_a_leak_in_the_service_hits_the_limit_unless_the_guard_stands(
    guard: str, wall: Wall, tmp_path: Path, wait_until: Any
) -> None:
    faults = json.dumps({"leak_mib_per_generation": 48, "gaussian_decay": True})
    found = run(wall, tmp_path, wait_until, model_process="off", guard=guard, faults=faults)
    assert found.counts[0] > 6 * found.counts[-1], "gaussians decay as memory fills"
    if guard == "off":
        assert (found.code, wall.kills) == (-9, 1), "the control: the leak is real"
    else:
        assert (found.code, wall.kills, found.refused) == (75, 0, "memory_refused")


def test_two_model_processes_of_a_fifth_of_the_limit_swap_below_it(
    wall: Wall, tmp_path: Path, wait_until: Any
) -> None:
    faults = json.dumps({"leak_mib_per_generation": 20, "slow_seconds": 1.0})
    ballast = GIB * 21 // 100 >> 20
    found = run(wall, tmp_path, wait_until, procedural_ballast_mib=ballast, faults=faults)
    assert (len(found.counts), found.refused, wall.kills) == (60, None, 0)
    last = found.state["last_recycle"]
    assert (last["how"], last["outcome"]) == ("swap", "done")


def test_without_the_guard_the_kernel_ends_the_model_and_not_the_service(
    wall: Wall, tmp_path: Path, wait_until: Any
) -> None:
    faults = json.dumps({"leak_mib_per_generation": 100})
    found = run(wall, tmp_path, wait_until, jobs=15, guard="off", faults=faults)
    assert (len(found.counts), found.refused) == (15, None), "the job runs once more in the next life"
    assert wall.kills >= 1
