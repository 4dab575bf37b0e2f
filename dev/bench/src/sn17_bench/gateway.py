"""The gateway as a process: what polls, tasks and pulls cost while a long queue waits.

Fills a queue of 1,000 tasks, then polls their states at 50 a second and reads the process's CPU time; the
baseline of the same run is the same process left alone. Then 4 workers take and return what waits, as fast as
they can.
``--json FILE`` writes the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from bittensor_wallet import Keypair
from sn17_http import own_client
from sn17_protocol.gateway import sign_time
from sn17_splats import Splats, encode_spz

GUEST = str(uuid.uuid4())
DEMAND = 0.20


@contextmanager
def gateway(folder: Path) -> Iterator[tuple[str, int]]:
    """Base URL and process id."""
    ready = folder / "ready.json"
    no_limit = (
        "GUEST_CONCURRENT", "GUEST_DAILY", "GUEST_DAILY_BY_ADDRESS", "RATE_ADD_TASK", "RATE_GET_STATUS",
        "RATE_GET_TASKS", "RATE_GET_RESULT", "RATE_RESULTS",
    )  # fmt: skip
    env = {
        **os.environ,
        **{f"SN17_{name}": "0" for name in no_limit},
        "SN17_PORT": "0",
        "SN17_OPS_PORT": "0",
        "SN17_READY_FILE": str(ready),
        "SN17_DATA_DIR": str(folder / "data"),
        "SN17_GENERIC_KEY": GUEST,
        "SN17_QUEUE_LIMIT": "100000",
        "SN17_TASK_SECONDS": "3600",
        "SN17_RESULT_SECONDS": "3600",
        "SN17_LOG_LEVEL": "WARNING",
    }
    process = subprocess.Popen([sys.executable, "-m", "sn17_gateway"], env=env)
    try:
        while not ready.exists():
            time.sleep(0.02)
        yield f"http://127.0.0.1:{json.loads(ready.read_text())['port']}", process.pid
    finally:
        process.terminate()
        process.wait(30)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def quantile(seconds: list[float], share: float) -> float:
    return float(np.quantile(seconds, share)) * 1000


def timed(call: Any) -> tuple[float, httpx2.Response]:
    started = time.perf_counter()
    answer: httpx2.Response = call()
    return time.perf_counter() - started, answer


def fill(url: str, count: int) -> tuple[list[str], dict[str, float]]:
    ids, times = [], []
    with own_client(base_url=url, headers={"x-api-key": GUEST}) as http:
        started = time.perf_counter()
        for number in range(count):
            seconds, answer = timed(lambda n=number: http.post("/add_task", json={"prompt": f"robot {n}"}))
            ids.append(answer.json()["id"])
            times.append(seconds)
        took = time.perf_counter() - started
    return ids, {"add_per_second": count / took, "add_p50_ms": quantile(times, 0.5)}


def poll(url: str, pid: int, ids: list[str], rate: float, seconds: float) -> dict[str, float]:
    """Share of one core at ``rate`` polls a second, and without any."""
    before = cpu_seconds(pid)
    time.sleep(seconds / 2)
    alone = (cpu_seconds(pid) - before) / (seconds / 2)
    times = []
    with own_client(base_url=url) as http:
        http.get("/id")
        before, started = cpu_seconds(pid), time.perf_counter()
        count = int(rate * seconds)
        for number in range(count):
            time.sleep(max(0.0, started + number / rate - time.perf_counter()))
            took, answer = timed(lambda n=number: http.get("/get_status", params={"id": ids[n % len(ids)]}))
            answer.raise_for_status()
            times.append(took)
        seconds = time.perf_counter() - started
        share = (cpu_seconds(pid) - before) / seconds
    return {
        "polls_per_second": count / seconds,
        "core_share": share,
        "core_share_alone": alone,
        "poll_p50_ms": quantile(times, 0.5),
        "poll_p95_ms": quantile(times, 0.95),
    }


def serve(url: str, pid: int, workers: int) -> dict[str, float]:
    """Workers pull and return until nothing waits; a result has 20,000 gaussians."""
    rng = np.random.default_rng(17)
    shapes = ((20_000, 3), (20_000, 3), (20_000, 4), (20_000,), (20_000, 3))
    asset = encode_spz(Splats(*(rng.normal(size=shape).astype(np.float32) for shape in shapes)))
    pulls: list[float] = []
    results: list[float] = []

    def work(number: int) -> None:
        keypair = Keypair.create_from_uri(f"//Bench{number}")
        with own_client(base_url=url, timeout=60) as http:
            while True:
                signature, timestamp = sign_time(keypair, time.time())
                who = {
                    "worker_hotkey": keypair.ss58_address, "worker_id": str(number), "signature": signature,
                    "timestamp": timestamp,
                }  # fmt: skip
                body = {**who, "requested_task_count": 1, "model": "404-3dgs"}
                seconds, answer = timed(lambda body=body: http.post("/get_tasks", json=body))
                offers = answer.json()["tasks"]
                if not offers:
                    return
                pulls.append(seconds)
                parts = {
                    **who, "id": offers[0]["id"], "assignment_token": offers[0]["assignment_token"],
                    "status": "success",
                }  # fmt: skip
                files = [*((name, (None, text)) for name, text in parts.items()), ("asset", ("a.spz", asset))]
                seconds, answer = timed(lambda files=files: http.post("/add_result", files=files))
                answer.raise_for_status()
                results.append(seconds)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    before, started = cpu_seconds(pid), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    return {
        "results": len(results),
        "results_per_second": len(results) / seconds,
        "cpu_ms_per_result": (cpu_seconds(pid) - before) / len(results) * 1000,
        "pull_p50_ms": quantile(pulls, 0.5),
        "pull_p95_ms": quantile(pulls, 0.95),
        "result_p50_ms": quantile(results, 0.5),
        "result_mb": len(asset) / 1e6,
    }


def rows(run: dict[str, float]) -> Iterator[tuple[str, str, str]]:
    """What, measured, demanded or baseline."""
    yield "tasks taken in one after another", f"{run['add_per_second']:.0f} a second", ""
    yield "add_task p50", f"{run['add_p50_ms']:.1f} ms", ""
    alone = f"< {DEMAND:.0%}; left alone {run['core_share_alone']:.1%}"
    polls = f"{run['polls_per_second']:.0f} polls a second over {run['tasks']:.0f} waiting tasks"
    yield polls, f"{run['core_share']:.1%} of one core", alone
    yield "get_status p50 / p95", f"{run['poll_p50_ms']:.1f} / {run['poll_p95_ms']:.1f} ms", ""
    yield "get_tasks p50 / p95", f"{run['pull_p50_ms']:.1f} / {run['pull_p95_ms']:.1f} ms", ""
    yield "add_result p50", f"{run['result_p50_ms']:.1f} ms for {run['result_mb']:.2f} MB", ""
    yield "pulled and returned by 4 workers", f"{run['results_per_second']:.0f} a second", ""
    yield "CPU of one task", f"{run['cpu_ms_per_result']:.1f} ms", ""
    yield "resident memory at the end", f"{run['resident_mib']:.0f} MiB", ""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50.0, help="status polls a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of polling")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, gateway(Path(folder)) as (url, pid):
        ids, run = fill(url, options.tasks)
        run |= {"tasks": options.tasks, **poll(url, pid, ids, options.rate, options.seconds)}
        run |= serve(url, pid, workers=4)
        run["resident_mib"] = resident_mib(pid)
    print("| what | measured | demanded or baseline |\n|---|---|---|")
    for row in rows(run):
        print("| " + " | ".join(row) + " |")
    if options.json:
        options.json.write_text(json.dumps(run, indent=2))
    return 0 if run["core_share"] < DEMAND else 1


if __name__ == "__main__":
    sys.exit(main())
