"""The TRELLIS worker around the procedural backend: what a job costs, and whether probes stay quick.

Starts a worker as a process, takes idle probe times as the baseline, then the same probes while jobs of
the largest size run. ``--json FILE`` writes the figures.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sn17_http import own_client, own_request

PROMPTS = {
    "small cone": "a small red cone",
    "three capsules on a table": "three blue capsules on a green table",
    "two large domes on a plate": "two large blue domes on a red plate",
    "large cube": "a large red cube",
}
PROBES = {"/health": "ops", "/ready": "ops", "/metrics": "ops", "/v1/worker": "data"}


@contextmanager
def worker(folder: Path, max_gaussians: int) -> Iterator[tuple[str, str]]:
    ready = folder / "ready.json"
    env = {
        **os.environ,
        "SN17_PORT": "0",
        "SN17_OPS_PORT": "0",
        "SN17_READY_FILE": str(ready),
        "SN17_SPOOL_DIR": str(folder / "spool"),
        "SN17_MEMORY_SOURCE": "process",
        "SN17_LOG_LEVEL": "WARNING",
        "SN17_PROCEDURAL_MAX_GAUSSIANS": str(max_gaussians),
    }
    process = subprocess.Popen([sys.executable, "-m", "sn17_trellis", "serve"], env=env)
    try:
        while not ready.exists():
            time.sleep(0.02)
        ports = json.loads(ready.read_text())
        data, ops = (f"http://127.0.0.1:{ports[name]}" for name in ("port", "ops_port"))
        while own_request("GET", f"{ops}/ready").status_code != 200:
            time.sleep(0.02)
        yield data, ops
    finally:
        process.terminate()
        process.wait(30)


def jobs(data: str, repeats: int) -> list[dict[str, Any]]:
    rows = []
    with own_client(timeout=60) as client:
        for name, prompt in PROMPTS.items():
            seconds = []
            for seed in range(repeats):
                start = time.perf_counter()
                answer = client.post(f"{data}/generate", data={"prompt": prompt, "seed": str(seed)})
                answer.raise_for_status()
                seconds.append(time.perf_counter() - start)
            rows.append(
                {
                    "job": name,
                    "gaussians": int(answer.headers["sn17-gaussians"]),
                    "median_ms": float(np.median(seconds) * 1e3),
                    "max_ms": float(np.max(seconds) * 1e3),
                }
            )
    return rows


def probes(urls: dict[str, str], seconds: float) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {path: [] for path in urls}
    end = time.perf_counter() + seconds
    with own_client(timeout=60) as client:
        while time.perf_counter() < end:
            for path, url in urls.items():
                start = time.perf_counter()
                client.get(url + path)
                times[path].append((time.perf_counter() - start) * 1e3)
            time.sleep(0.01)
    return times


def probe_rows(data: str, ops: str, seconds: float) -> list[dict[str, Any]]:
    urls = {path: ops if where == "ops" else data for path, where in PROBES.items()}
    idle = probes(urls, seconds)
    stop = threading.Event()

    def load() -> None:
        with own_client(timeout=60) as client:
            while not stop.is_set():
                client.post(f"{data}/generate", data={"prompt": PROMPTS["large cube"]})

    thread = threading.Thread(target=load)
    thread.start()
    busy = probes(urls, seconds)
    stop.set()
    thread.join()
    return [
        {
            "probe": path,
            **{
                f"{state}_{name}_ms": float(np.percentile(times[path], q))
                for state, times in (("idle", idle), ("busy", busy))
                for name, q in (("p50", 50), ("p99", 99), ("max", 100))
            },
        }
        for path in urls
    ]


def table(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    cells = [names] + [
        [f"{value:.1f}" if isinstance(value, float) else f"{value}" for value in row.values()] for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join(
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-gaussians", type=int, default=700_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of probing, idle and busy each")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, worker(Path(folder), options.max_gaussians) as (data, ops):
        rows = jobs(data, options.repeats)
        print(table(rows), end="\n\n")
        probing = probe_rows(data, ops, options.seconds)
        print(table(probing))
    if options.json:
        options.json.write_text(json.dumps({"jobs": rows, "probes": probing}, indent=1))


if __name__ == "__main__":
    main()
