"""A worker of full size fills its memory up to the thresholds: `limits.memory: 12Gi`, the default rules.

    python -m sn17_bench.full_size [--archives FILE ...] [--json FILE] [--leak-mib N]

One release on a real node, guard and operator on, every generation keeps so many MiB for good. What is to be
seen: model processes that are renewed, no restart of the container and no OOM kill. Baseline of the same run:
the memory of the worker when it was freshly loaded. Needs 12 GiB of free memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from sn17_chaos.cluster_bed import Bed, bed, unique
from sn17_cluster.release import values
from sn17_cluster.stack import Stack, ready, terminations
from sn17_contract.worker import RecycleOutcome

from sn17_bench.stamp import stamp

LIMIT = 12 << 30
SPARE = 1 << 30
DEADLINE = 480.0
RENEWALS = 3
SETTLE = 45.0


def free_bytes() -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


def release_values(leak_mib: float) -> dict[str, Any]:
    chosen = values(
        guard=True,
        operator=True,
        leak_mib=leak_mib,
        rules={"memory": {}, "slow": {"action": "Off"}},
        recycle={"youngSeconds": 0},
        validators={"SN17_QUALITY_THRESHOLD": 0},
        strategy="Swap",
    )
    chosen["trellis"]["memory"]["limit"] = "12Gi"
    for component in ("trellis", "fixer", "miner", "operator", "localValidators", "prometheus"):
        chosen[component]["nodeSelector"] = {"kubernetes.io/hostname": "node-0"}
    chosen["miner"]["settings"] = {"SN17_TASK_DEADLINE_SECONDS": 120, "SN17_SUBMIT_DEADLINE_SECONDS": 240}
    return chosen


def run(on: Bed, leak_mib: float) -> dict[str, Any]:
    namespace = unique("full")
    on.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    stack = Stack(on.cluster, namespace)
    stack.install(release_values(leak_mib))
    on.wait("the worker", lambda: any(ready(pod) for pod in stack.pods("trellis")), 240.0)
    name = stack.pods("trellis")[0]["metadata"]["name"]
    start, trace = time.time(), list[tuple[float, float, str]]()
    ends: dict[str, Any] = {}
    renewals: dict[str, dict[str, Any]] = {}
    while time.time() - start < DEADLINE:
        with contextlib.suppress(Exception):
            said = stack.worker(name)
            ratio = said["memory"]["unreclaimable_bytes"] / said["memory"]["limit_bytes"]
            trace.append((round(time.time() - start, 1), round(ratio, 4), said["state"]))
            print(f"{trace[-1][0]:6.0f} s  {ratio:6.1%}  {said['state']}", flush=True)
            if (last := said["last_recycle"]) is not None:
                told = {key: last[key] for key in ("how", "outcome", "reason")}
                renewals.setdefault(f"{last['from_life']} {last['at']}", {"seconds": trace[-1][0], **told})
            ends |= {e["containerID"]: e for pod in stack.pods("trellis") for e in terminations(pod)}
        if ends or len(renewals) >= RENEWALS:
            break
        time.sleep(2)
    on.wait("the worker", lambda: any(ready(pod) for pod in stack.pods("trellis")), 120.0)
    time.sleep(SETTLE)
    ends |= {e["containerID"]: e for pod in stack.pods("trellis") for e in terminations(pod)}
    before = time.time() - SETTLE
    tasks = [task for task in stack.tasks() if task["assigned_at"] < before]
    by_outcome: dict[str, int] = {}
    for task in tasks:
        by_outcome[task["outcome"]] = by_outcome.get(task["outcome"], 0) + 1
    return {
        "limit_bytes": LIMIT,
        "leak_mib_per_generation": leak_mib,
        "baseline_ratio": trace[0][1],
        "peak_ratio": max(ratio for _, ratio, _ in trace),
        "after_ratio": round(stack.memory_ratio(name), 4),
        "renewals": list(renewals.values()),
        "restarts": len(ends),
        "oom_kills": sum(end.get("reason") == "OOMKilled" for end in ends.values()),
        "tasks": by_outcome,
        "events": [
            event["reason"] for event in stack.events() if event["involvedObject"]["kind"] == "SN17Miner"
        ],
        "trace": trace,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--archives", type=Path, nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--leak-mib", type=float, default=400.0)
    options = parser.parse_args()
    if free_bytes() < LIMIT + SPARE:
        print(f"needs {(LIMIT + SPARE) >> 30} GiB of free memory, there are {free_bytes() >> 30}")
        return 2
    with bed(1, archives=options.archives) as on:
        found = run(on, options.leak_mib)
    found |= stamp()
    for key, value in found.items():
        if key != "trace":
            print(f"{key.ljust(26)} {value}")
    if options.json:
        options.json.write_text(json.dumps(found) + "\n")
    done = sum(renewal["outcome"] == RecycleOutcome.DONE for renewal in found["renewals"])
    return int(found["oom_kills"] > 0 or found["restarts"] > 0 or done < RENEWALS)


if __name__ == "__main__":
    sys.exit(main())
