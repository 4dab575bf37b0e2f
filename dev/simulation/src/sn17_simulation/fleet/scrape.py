"""The Prometheus of the fleet: what a scrape finds, and what a query gives back."""

from __future__ import annotations

from collections.abc import Sequence

from sn17_contract.worker import RecycleHow
from sn17_operator.api import Rules
from sn17_operator.core.evidence import Raw, Samples, windows
from sn17_operator.core.model import Phase
from sn17_operator.core.readings import Monitoring, Signal
from sn17_operator.core.signals import DRAINING, INFO_LABELS
from sn17_operator.ports import Measurement

from sn17_simulation.fleet.worker import GUARD, JOB_SECONDS, LIMIT, START, TICK, SimWorker


class Scraped:
    """Workers and the samples of them that are kept."""

    def __init__(self) -> None:
        self.now = START
        self.workers: dict[str, SimWorker] = {}
        self.samples: dict[tuple[str, Signal, str], list[tuple[float, float]]] = {}
        self.scrapes: list[float] = []
        self.prometheus_up = True
        self.guard = False
        """Whether the workers' own guards are on."""
        self.other_targets = True
        """Prometheus scrapes itself too."""

    def scrape(self) -> None:
        if not self.prometheus_up:
            return
        if self.other_targets or any(not w.deaf for w in self.workers.values()):
            self.scrapes.append(self.now)
        del self.scrapes[:-40]
        for worker in self.workers.values():
            uid = worker.pod.uid
            running = worker.restart_at is None and worker.pod.phase is Phase.RUNNING
            started = worker.pod.started_at or self.now
            up = running and not worker.deaf and self.now - started >= worker.mute_seconds
            self._sample(uid, Signal.UP, "", float(up))
            if not up:
                continue
            self._sample(uid, Signal.BOOT, worker.boot_id, 1.0)
            if worker.lives:
                self._sample(uid, Signal.LIFE, worker.life_id, 1.0)
                two = worker.swap_until is not None and worker.swap_how is RecycleHow.SWAP
                self._sample(uid, Signal.MODEL_PROCESSES, "", 2.0 if two else 1.0)
                self._sample(uid, Signal.SWAP_THRESHOLD, "", worker.swap_threshold)
                self._sample(uid, Signal.SWAP_ROOM, "", float(worker.promises_room or worker.fits_two))
                if self.guard:
                    self._sample(uid, Signal.GUARD, "", GUARD)
            self._sample(uid, Signal.MEMORY, "", min(worker.total, 1.0) * LIMIT)
            self._sample(uid, Signal.LIMIT, "", LIMIT)
            self._sample(uid, Signal.GENERATIONS, "", float(min(worker.generations, 60)))
            if worker.generations:
                self._sample(uid, Signal.GAUSSIANS, "", worker.gaussians)
                self._sample(uid, Signal.SECONDS_P50, "", JOB_SECONDS)
            self._sample(uid, Signal.JOBS, "", float(worker.job_until is not None))
            self._sample(uid, Signal.PROGRESS, "", worker.progress)
            if worker.says:
                self._sample(uid, Signal.DEGRADED, worker.says, 1.0)
            self._sample(uid, Signal.FAILING_STARTS, "", float(worker.failing_starts))
            for signal, said in ((Signal.DEVICE, worker.device), (Signal.DEVICE_FAULT, worker.fault)):
                if said:
                    self._sample(uid, signal, said, 1.0)
            if worker.gpu_errors:
                self._sample(uid, Signal.GPU_ERRORS, "", float(worker.gpu_errors))
            if worker.canary_output:
                self._sample(uid, Signal.CANARY_INFO, worker.canary_output, 1.0)
            if self.now >= worker.ready_at:
                bad = worker.bad_checkpoint and worker.boot > 0
                self._sample(uid, Signal.CANARY, "", 0.5 if bad else 0.02)
            left = worker.left_over if worker.boot else 0.0
            self._sample(uid, Signal.POD_MEMORY, "", (worker.total + left) * LIMIT)
            for by, signal in DRAINING.items():
                self._sample(uid, signal, "", float(by in worker.leases))

    def _sample(self, uid: str, signal: Signal, label: str, value: float) -> None:
        kept = self.samples.setdefault((uid, signal, label), [])
        kept.append((self.now, value))
        del kept[:-40]


class SimMetrics:
    """Answers the operator's queries from what was scraped."""

    def __init__(self, world: Scraped) -> None:
        self.world = world

    async def measure(self, now: float, rules: Sequence[Rules]) -> Measurement:
        world = self.world
        spans = windows(rules, TICK)
        if not world.prometheus_up:
            failed = dict.fromkeys(Signal, "unreachable: refused")
            return Measurement(Monitoring(now, 2 * TICK + 5, TICK, failed, None, 0.0, spans[Signal.UP]), {})
        infos: dict[Signal, dict[str, list[tuple[str, Samples]]]] = {signal: {} for signal in INFO_LABELS}
        series: dict[str, dict[Signal, list[Samples]]] = {}
        for (uid, signal, label), samples in world.samples.items():
            kept = tuple((at, value) for at, value in samples if at > now - spans[signal])
            if not kept:
                continue
            if signal in INFO_LABELS:
                infos[signal].setdefault(uid, []).append((label, kept))
            else:
                series.setdefault(uid, {}).setdefault(signal, []).append(kept)
        workers = {uid: Raw.of(uid, infos, series) for uid in series}
        recent = [at for at in world.scrapes if at > now - spans[Signal.UP]]
        monitoring = Monitoring(
            now, 2 * TICK + 5, TICK, {}, recent[-1] if recent else None, float(len(recent)), spans[Signal.UP]
        )
        return Measurement(monitoring, workers)
