"""What the operator costs and how fast it is: decisions, API calls, detection, false alarms.

    python -m sn17_bench.operator_fleet [--json FILE] [--quick]

- ``decide``: CPU seconds of one tick's decisions (attribute, judge, plan, status) and memory, 10 to 10,000
  workers. Baseline: decoding the JSON of the same pods once, as a controller without a watch does every tick.
- ``calls``: API calls of a tick, counted at the host's adapter.
- ``reaction``: virtual seconds from a crossed memory threshold to the cordon, at 15 s scrape and 15 s tick.
- ``alarms``: a week of healthy prompts replayed: actions per worker and day.

The file is not named ``operator.py``: in a script's own folder that would hide the standard library's module.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

from sn17_operator.adapters.kube import KubeApi
from sn17_operator.adapters.kube_cluster import KubeCluster
from sn17_operator.adapters.local import default_spec
from sn17_operator.adapters.store import Store
from sn17_operator.api import Spec
from sn17_operator.core.evidence import Raw, attribute
from sn17_operator.core.model import Fleet, Phase, Pod, Worker
from sn17_operator.core.planner import plan
from sn17_operator.core.policy import judge
from sn17_operator.core.readings import Monitoring, Signal
from sn17_operator.core.replay import RecordedWorker, Recording, replay
from sn17_operator.loop import gc_paused
from sn17_operator.status.render import render
from sn17_operator.status.resource import Status
from sn17_operator.status.view import View
from sn17_simulation.fleet.play import Simulation

NOW = 1_700_000_000.0
LIMIT = 12 * 1024**3
SPEC = default_spec()


def raw_worker(rng: random.Random, *, degraded: bool) -> Raw:
    times = [NOW - 5 - 15 * i for i in range(12)][::-1]
    memory = 0.92 if degraded else 0.3 + 0.2 * rng.random()

    def constant(value: float, count: int = 12) -> list[tuple[tuple[float, float], ...]]:
        return [tuple((at, value) for at in times[-count:])]

    series = {
        Signal.MEMORY: constant(memory * LIMIT, 6),
        Signal.LIMIT: constant(LIMIT, 2),
        Signal.GAUSSIANS: constant(300_000 + 100_000 * rng.random(), 2),
        Signal.GENERATIONS: constant(20, 2),
        Signal.SECONDS_P50: constant(15, 2),
        Signal.JOBS: constant(1),
        Signal.PROGRESS: [tuple((at, at) for at in times)],
        Signal.CANARY: constant(0.01, 2),
        Signal.GPU_ERRORS: constant(0, 2),
        Signal.FAILING_STARTS: constant(0, 2),
        Signal.UP: constant(1),
        Signal.DRAINING_USER: constant(0, 2),
        Signal.DRAINING_OPERATOR: constant(0, 2),
    }
    seen = tuple((at, 1.0) for at in times)
    return Raw((("b", seen),), series, devices=((f"GPU-{rng.random()}", seen[-2:]),))


def fleet_of(count: int, degraded_share: float) -> tuple[list[Pod], dict[str, Raw]]:
    rng = random.Random(17)
    pods, raws = [], {}
    for i in range(count):
        uid = f"u{i}"
        pods.append(
            Pod(
                uid=uid,
                name=f"w{i}",
                namespace="ns",
                created_at=NOW - 9_000,
                node=f"n{i % 40}",
                address="http://198.51.100.1:9090",
                phase=Phase.RUNNING,
                container_id=f"c{i}",
                started_at=NOW - 8_000,
                ready=True,
            )
        )
        raws[uid] = raw_worker(rng, degraded=rng.random() < degraded_share)
    return pods, raws


def think(spec: Spec, pods: list[Pod], raws: dict[str, Raw]) -> dict[str, Any]:
    monitoring = Monitoring(NOW, 35, 15, {}, NOW - 5, 10, 155)
    workers = []
    for pod in pods:
        evidence = attribute(raws[pod.uid], pod.started_at, {})
        workers.append(Worker(pod, evidence, judge(spec, pod, evidence, monitoring)))
    fleet = Fleet(tuple(workers), len(pods))
    planned = plan(spec, fleet, NOW)
    view = View(spec, 1, fleet, planned, monitoring, True, None, {}, Status())
    return render(view, NOW).written()


def decide(sizes: list[int]) -> list[dict[str, Any]]:
    rows = []
    for count in sizes:
        pods, raws = fleet_of(count, 0.05)
        runs = []
        for _ in range(5):
            start = time.process_time()
            with gc_paused():
                rendered = think(SPEC, pods, raws)
            gc.collect(0)  # what was put off comes due
            runs.append(time.process_time() - start)
        tracemalloc.start()
        think(SPEC, pods, raws)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        text = json.dumps([pod_json(i) for i in range(count)])
        start = time.process_time()
        json.loads(text)
        baseline = time.process_time() - start
        rows.append(
            {
                "workers": count,
                "cpu_seconds": round(min(runs), 4),
                "per_worker_us": round(1e6 * min(runs) / count, 1),
                "baseline_json_seconds": round(baseline, 4),
                "peak_mib": round(peak / 2**20, 2),
                "status_bytes": len(json.dumps(rendered)),
            }
        )
    return rows


def pod_json(index: int) -> dict[str, Any]:
    """A pod about as large as the API server sends it."""
    return {
        "metadata": {
            "name": f"w{index}",
            "namespace": "ns",
            "uid": f"u{index}",
            "resourceVersion": str(index + 1),
            "creationTimestamp": "2023-11-14T20:00:00Z",
            "labels": {"w": "workers"},
            "annotations": {},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {f"f:{i}": {} for i in range(40)}}],
        },
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "trellis", "env": [{"name": f"E{i}"} for i in range(30)]}],
        },
        "status": {
            "phase": "Running",
            "podIP": "198.51.100.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {
                    "name": "trellis",
                    "containerID": f"c{index}",
                    "restartCount": 0,
                    "ready": True,
                    "state": {"running": {"startedAt": "2023-11-14T20:00:00Z"}},
                }
            ],
        },
    }


class CountingApi(KubeApi):
    """Answers for a Deployment and keeps count; nothing is sent."""

    def __init__(self, replicas: int) -> None:
        self.calls = 0
        self._replicas = replicas

    async def request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        self.calls += 1
        if "/deployments/" in path:
            return {
                "metadata": {"generation": 1},
                "spec": {"replicas": self._replicas, "selector": {"matchLabels": {"w": "workers"}}},
                "status": {"observedGeneration": 1, "updatedReplicas": self._replicas},
            }
        return {"items": []}


async def calls(sizes: list[int]) -> list[dict[str, Any]]:
    rows = []
    for count in sizes:
        api = CountingApi(count)
        store = Store()
        host = KubeCluster(
            api, store, "ns", "w=workers", identity="bench", may_act=lambda: True, clock=lambda: NOW
        )
        await host.miners()
        for index in range(count):
            store.pod_seen(pod_json(index))
        store.miner_seen(
            {
                "metadata": {"uid": "m", "name": "m", "namespace": "ns", "generation": 1},
                "spec": {"targetRef": {"name": "workers"}},
            }
        )
        api.calls = 0
        start = time.process_time()
        (miner,) = await host.miners()
        target = await host.target(miner, NOW)
        cold = time.process_time() - start
        made = api.calls
        start = time.process_time()
        await host.target(miner, NOW)
        rows.append(
            {
                "workers": count,
                "pods_seen": len(target.pods),
                "api_calls": made,
                "first_parse_seconds": round(cold, 4),
                "unchanged_parse_seconds": round(time.process_time() - start, 4),
            }
        )
    return rows


async def reaction() -> list[dict[str, Any]]:
    rows = []
    for name, ratio in (("MemoryHigh", 0.85), ("MemoryEmergency", 0.95)):
        seconds = []
        for _ in range(20):
            run = Simulation(4)
            await run.run(10)
            run.workers[0].memory = ratio
            crossed = run.world.now
            while run.workers[0].pod.intent is None:
                await run.tick()
            seconds.append(run.world.now - crossed)
        rows.append({"rule": name, "virtual_seconds_to_cordon": max(seconds)})
    return rows


def healthy_week(seed: int, days: float, workers: int = 4) -> Recording:
    """Healthy prompts only, jobs of 12 to 22 s, memory that breathes between 30 and 60 %.

    Single assets have 60,000 to 1,400,000 gaussians; the mean of eight is below 350,000 in 17 % of cases.
    """
    rng = random.Random(seed)
    interval, length = 15.0, days * 86_400
    made = []
    for index in range(workers):
        finished: list[tuple[float, float, float]] = []
        at = NOW
        while at < NOW + length:
            seconds = rng.uniform(12, 22)
            at += seconds + rng.expovariate(1 / 20)
            gaussians = min(1_400_000.0, max(60_000.0, rng.lognormvariate(math.log(370_000), 0.65)))
            finished.append((at, gaussians, seconds))
        series: dict[Signal, list[tuple[float, float]]] = {s: [] for s in Signal}
        boots: list[tuple[float, float]] = []
        first = last = 0
        for step in range(int(length / interval)):
            now = NOW + (step + 1) * interval + index * 3.0
            while last < len(finished) and finished[last][0] <= now:
                last += 1
            while first < last and finished[first][0] <= now - 1_800:
                first += 1
            recent = finished[first:last]
            boots.append((now, 1.0))
            series[Signal.UP].append((now, 1.0))
            memory = (0.45 + 0.15 * math.sin(now / 700 + index)) * LIMIT
            series[Signal.MEMORY].append((now, memory))
            series[Signal.LIMIT].append((now, float(LIMIT)))
            series[Signal.GENERATIONS].append((now, float(len(recent))))
            series[Signal.JOBS].append((now, 1.0))
            series[Signal.PROGRESS].append((now, now - rng.random() * 5))
            series[Signal.CANARY].append((now, 0.02))
            series[Signal.GPU_ERRORS].append((now, 0.0))
            if recent:
                series[Signal.GAUSSIANS].append((now, sum(g for _, g, _ in recent) / len(recent)))
                times = sorted(s for _, _, s in recent)
                series[Signal.SECONDS_P50].append((now, times[len(times) // 2]))
        made.append(
            RecordedWorker(
                f"u{index}",
                f"w{index}",
                f"n{index}",
                (("b", tuple(boots)),),
                {s: tuple(v) for s, v in series.items() if v},
            )
        )
    return Recording(NOW, NOW + length, interval, tuple(made))


def alarms(days: float) -> list[dict[str, Any]]:
    recording = healthy_week(17, days)
    rows = []
    for minimum in (150_000, 350_000):
        spec = default_spec(rules={"gaussians": {"minimumMean": minimum}})
        start = time.process_time()
        report = replay(spec, recording)
        rows.append(
            {
                "gaussians_mark": minimum,
                "days": days,
                "workers": report.workers,
                "actions_per_worker_and_day": round(sum(report.per_day().values()), 4),
                "by_rule": json.dumps({k: round(v, 3) for k, v in report.per_day().items()}),
                "worker_ticks": sum(report.verdicts.values()),
                "cpu_seconds": round(time.process_time() - start, 1),
            }
        )
    return rows


def show(name: str, rows: list[dict[str, Any]]) -> None:
    heads = list(rows[0])
    widths = [max(len(head), *(len(str(row[head])) for row in rows)) for head in heads]
    print(f"\n{name}")
    print("  ".join(head.rjust(width) for head, width in zip(heads, widths, strict=True)))
    for row in rows:
        print("  ".join(str(row[head]).rjust(width) for head, width in zip(heads, widths, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="smaller fleets, one day instead of a week")
    options = parser.parse_args()
    sizes = [10, 100, 1_000] if options.quick else [10, 100, 1_000, 10_000]
    found = {
        "decide": decide(sizes),
        "calls": asyncio.run(calls(sizes)),
        "reaction": asyncio.run(reaction()),
        "alarms": alarms(1.0 if options.quick else 7.0),
    }
    for name, rows in found.items():
        show(name, rows)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
