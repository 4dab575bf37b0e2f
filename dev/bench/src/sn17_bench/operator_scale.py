"""The operator as a process against many worker pods on a real API server.

The pods are made by the Deployment's controller, their statuses are written as kubelet writes them, and
each worker answers at a loopback address of its own, where a real Prometheus scrapes it. Scrapes and ticks
are 15 s apart, as they are by default; the operator has the rights that its README documents and no more.
The smallest fleet of a run is the baseline of the others.

- ``quiet``: nothing happens. Requests by the API server's audit log, bytes at a relay before it, CPU and
  memory of the operator's process. ``list_kib_per_minute`` is what a controller without a watch would fetch.
- ``churn``: every pod changes once a minute in a way that says nothing, as kubelet's heartbeats do.
- ``reaction``: seconds from a worker's metric that crosses its threshold to the intent on the pod, in etcd.
- ``gaussians``: 60 % of the workers lose their gaussians at once: how soon it is said, and what was done.
- ``memory``: 60 % fill their memory at once: how many were in hand at the same time, and in which order.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sn17_chaos.many_workers import CountingProxy, Crowd, IntentWatch, audited
from sn17_chaos.operator_process import OperatorProcess
from sn17_chaos.real_fleet import CRD, Prometheus
from sn17_chaos.waiting import free_port, wait_for
from sn17_cluster.controlplane import ControlPlane, control_plane
from sn17_cluster.state import base_folder

from sn17_bench.stamp import stamp

PERIOD = 15.0
BUDGET = "25%"
STORM = 0.6
CROSSINGS = 20
RULES = {"memory": {"clearForSeconds": 15}}
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts:op"]}, {"level": "None"}],
}


class Meter:
    """What the operator's process and its connection used since ``start``."""

    def __init__(self, operator: OperatorProcess, proxy: CountingProxy, audit: Path) -> None:
        self._operator, self._proxy, self._audit = operator, proxy, audit
        self.start()

    def start(self) -> None:
        self._at, self._cpu, self._bytes = time.time(), self._seconds(), dict(self._proxy.bytes)

    def _stat(self) -> Path:
        assert self._operator.process is not None
        return Path(f"/proc/{self._operator.process.pid}")

    def _seconds(self) -> float:
        fields = (self._stat() / "stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> tuple[float, float]:
        """MiB resident now and at most."""
        lines = dict(line.split(":", 1) for line in (self._stat() / "status").read_text().splitlines())
        return tuple(int(lines[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))  # type: ignore[return-value]

    def read(self) -> dict[str, Any]:
        now = time.time()
        minutes = (now - self._at) / 60
        calls = collections.Counter(
            f"{entry['verb']} {entry['objectRef']['resource']}"
            for entry in audited(self._audit, self._at, now, "sn17-operator")
            if "objectRef" in entry
        )
        received = self._proxy.bytes["received"] - self._bytes.get("received", 0)
        sent = self._proxy.bytes["sent"] - self._bytes.get("sent", 0)
        resident, peak = self.memory()
        return {
            "requests_per_minute": round(sum(calls.values()) / minutes, 1),
            "by_kind": {kind: round(count / minutes, 1) for kind, count in calls.most_common()},
            "received_kib_per_minute": round(received / 1024 / minutes, 1),
            "sent_kib_per_minute": round(sent / 1024 / minutes, 1),
            "cpu_percent_of_a_core": round(100 * (self._seconds() - self._cpu) / (now - self._at), 1),
            "memory_mib": round(resident),
            "memory_peak_mib": round(peak),
        }


class Run:
    """One fleet, from its first pod to the storms."""

    def __init__(self, plane: ControlPlane, workers: int, folder: Path, audit: Path) -> None:
        self.workers, self._rng = workers, random.Random(17)
        cluster = plane.cluster
        cluster.apply(CRD.read_text())
        cluster.wait_established("sn17miners.sn17.io", timeout=30)
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "op"}})
        self.prometheus = Prometheus(cluster.tools["prometheus"], folder, free_port(), scrape_seconds=PERIOD)
        self.prometheus.scrape([])
        self.prometheus.start()
        self.crowd = Crowd(cluster, "op", self.prometheus, free_port(), 60)
        times = {
            "SN17_TICK_SECONDS": str(PERIOD),
            "SN17_PROMETHEUS__SCRAPE_INTERVAL_SECONDS": str(PERIOD),
            "SN17_PROMETHEUS__TIMEOUT_SECONDS": "8",
            "SN17_LEASE__DURATION_SECONDS": "15",
            "SN17_LEASE__DEADLINE_SECONDS": "10",
            "SN17_LEASE__RETRY_SECONDS": "2",
        }
        self.operator = OperatorProcess(self.crowd, folder, **times)
        self.proxy = CountingProxy(self.crowd.api.server)
        self.proxy.redirect(folder / "operator.kubeconfig")
        self._audit = audit

    def close(self) -> None:
        if hasattr(self, "watch"):
            self.watch.stop()
        self.operator.kill()
        self.crowd.close()
        self.prometheus.stop()

    def start(self) -> dict[str, Any]:
        self.crowd.deploy(self.workers)
        self.crowd.miner(rules=RULES, maxUnavailable=BUDGET)
        # Prometheus looks once at everyone before anybody is judged.
        time.sleep(2 * PERIOD)
        begun = time.time()
        self.operator.start()
        self.crowd.wait_status("Healthy", 120)
        self.meter = Meter(self.operator, self.proxy, self._audit)
        self.watch = IntentWatch(self.crowd)
        resident, _ = self.meter.memory()
        return {"seconds_to_healthy": round(time.time() - begun, 1), "memory_mib": round(resident)}

    def quiet(self, seconds: float) -> dict[str, Any]:
        self.meter.start()
        time.sleep(seconds)
        listed = len(self.crowd.api.http.get(self.crowd.path).content) / 1024
        return {**self.meter.read(), "list_kib_per_minute": round(listed * 60 / PERIOD)}

    def churn(self, seconds: float) -> dict[str, Any]:
        names = list(self.crowd.workers)
        self.meter.start()
        begun, changed = time.time(), 0
        while (left := begun + seconds - time.time()) > 0:
            self.crowd.touch(names[changed % len(names)])
            changed += 1
            pause = begun + changed * 60 / len(names) - time.time()
            time.sleep(max(0.0, min(pause, left)))
        return {"changes_per_minute": round(changed / (time.time() - begun) * 60), **self.meter.read()}

    def reaction(self, rule: str, ratio: float, names: list[str]) -> dict[str, Any]:
        """Workers cross one after another, at times that have nothing to do with scrapes and ticks."""
        crossed: dict[str, float] = {}
        begun = time.time()
        for name, delay in zip(names, sorted(self._rng.uniform(0, 45) for _ in names), strict=True):
            time.sleep(max(0.0, begun + delay - time.time()))
            self.crowd.workers[name].ratio = ratio
            crossed[name] = time.time()

        def starts() -> dict[str, float]:
            return {each.pod: each.at for each in self.watch.begun(begun)}

        wait_for("all intents", lambda: crossed.keys() <= starts().keys(), 240)
        seconds = sorted(starts()[name] - crossed[name] for name in names)
        self.recovered()
        return {
            "rule": rule,
            "workers": self.workers,
            "crossings": len(names),
            "p50_seconds": round(statistics.median(seconds), 1),
            "p95_seconds": round(seconds[int(0.95 * (len(seconds) - 1))], 1),
            "max_seconds": round(seconds[-1], 1),
        }

    def recovered(self) -> None:
        wait_for("the end of all intents", lambda: self.watch.held() == 0, 400)
        self.crowd.wait_status("Healthy", 120)

    def gaussians(self, names: list[str]) -> dict[str, Any]:
        before = {name: self.crowd.workers[name].gaussians for name in names}
        begun = time.time()
        for name in names:
            self.crowd.workers[name].gaussians = 50_000.0
        self.crowd.wait_status("TooManyUnhealthy", 120)
        said = time.time() - begun
        time.sleep(4 * PERIOD)
        condition = self.crowd.condition("RemediationAllowed")
        found = {
            "workers": self.workers,
            "sick": len(names),
            "seconds_until_said": round(said, 1),
            "condition": f"{condition['status']}/{condition['reason']}",
            "cordoned_before_all_were_seen": len(self.watch.begun(begun)),
            "restarted": sum(self.crowd.workers[name].count("exit") for name in names),
            "events": self.crowd.events().count("TooManyUnhealthy"),
        }
        for name, value in before.items():
            self.crowd.workers[name].gaussians = value
        self.recovered()
        return found

    def memory(self, names: list[str]) -> dict[str, Any]:
        """Each to a level of its own between the threshold and just below the emergency."""
        self._rng.shuffle(names)
        level = {name: 0.81 + 0.08 * i / len(names) for i, name in enumerate(names)}
        begun = time.time()
        self.meter.start()
        for name, ratio in level.items():
            self.crowd.workers[name].ratio = ratio
        wait_for(
            "a remediation of each", lambda: {e.pod for e in self.watch.begun(begun)} >= set(names), 1_800
        )
        self.recovered()
        order = [round(level[each.pod], 2) for each in self.watch.begun(begun)]
        # Started in one tick, intents are written side by side: only a later tick counts as later.
        ticks = self._by_tick(begun)
        out_of_order = sum(
            1
            for earlier, later in itertools.pairwise(ticks)
            if min(level[p] for p in earlier) < max(level[p] for p in later) - 0.01
        )
        return {
            "workers": self.workers,
            "sick": len(names),
            "budget": int(BUDGET.rstrip("%")) * self.workers // 100,
            "most_at_once": self.watch.most(begun),
            "recycles": len(order),
            "ticks_that_started_some": len(ticks),
            "out_of_order": out_of_order,
            "minutes_until_healthy": round((time.time() - begun) / 60, 1),
            **{k: v for k, v in self.meter.read().items() if k != "by_kind"},
        }

    def _by_tick(self, since: float) -> list[list[str]]:
        """Pods by the tick that started them: it is the time written in their intents."""
        ticks: dict[float, list[str]] = {}
        for each in self.watch.begun(since):
            assert each.intent is not None
            ticks.setdefault(each.intent["at"], []).append(each.pod)
        return [pods for _, pods in sorted(ticks.items())]


def measure(workers: int, seconds: float, say: Callable[[str], None]) -> Iterator[tuple[str, dict[str, Any]]]:
    """One fleet's rows, each as soon as it is known."""
    base_folder().mkdir(mode=0o711, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base_folder()) as scratch:
        folder = Path(scratch)
        policy, audit = folder / "policy.json", folder / "audit.log"
        policy.write_text(json.dumps(AUDIT))
        flags = [f"--audit-policy-file={policy}", f"--audit-log-path={audit}", "--audit-log-maxsize=1000"]
        with control_plane(api_flags=flags) as plane:
            run = Run(plane, workers, folder, audit)
            try:
                say(f"{workers} workers: pods")
                yield "start", {"workers": workers, **run.start()}
                say("quiet")
                yield "quiet", {"workers": workers, **run.quiet(seconds)}
                say("churn")
                yield "churn", {"workers": workers, **run.churn(seconds)}
                names = list(run.crowd.workers)
                degraded = names[: int(STORM * workers)]
                crossings = min(CROSSINGS, workers // 8)
                say("reaction")
                yield "reaction", run.reaction("MemoryEmergency", 0.95, names[-crossings:])
                yield "reaction", run.reaction("MemoryHigh", 0.85, names[-2 * crossings : -crossings])
                say("60 % lose gaussians")
                yield "gaussians", run.gaussians(degraded)
                say("60 % fill their memory")
                yield "memory", run.memory(degraded)
            finally:
                run.close()
                say("".join(f"    {line}\n" for line in run.operator.log.read_text().splitlines()[-15:]))


def show(name: str, rows: list[dict[str, Any]]) -> None:
    flat = [{k: v for k, v in row.items() if not isinstance(v, dict)} for row in rows]
    print(f"\n{name}")
    for head in flat[0]:
        print(f"  {head.ljust(28)}" + "".join(str(row.get(head, "-")).rjust(20) for row in flat))
    for row in rows:
        if kinds := row.get("by_kind"):
            print(f"  of {row['workers']}: " + ", ".join(f"{k} {v}/min" for k, v in kinds.items()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--workers", default="100,1000", help="fleets; the first is the baseline")
    parser.add_argument("--seconds", type=float, default=120.0, help="of the quiet time and of the churn")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for size in options.workers.split(","):
        for name, row in measure(int(size), options.seconds, lambda text: print(f"... {text}", flush=True)):
            found.setdefault(name, []).append(row)
            print(json.dumps({name: row}), flush=True)
    for name, rows in found.items():
        show(name, rows)
    if options.json is not None:
        found |= {**stamp(), "load": os.getloadavg()[0]}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
