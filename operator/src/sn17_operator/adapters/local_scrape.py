"""What a local operator knows of its workers, read from their ops ports as Prometheus would."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import httpx2
from prometheus_client.parser import text_string_to_metric_families
from sn17_contract.metrics import Metric
from sn17_http import own_async_client

from sn17_operator.api import Rules
from sn17_operator.core.evidence import Labelled, Raw, Samples, windows
from sn17_operator.core.model import History, Intent, UserCordon
from sn17_operator.core.readings import Monitoring, Signal
from sn17_operator.core.signals import DRAINING, INFO_LABELS, METRICS, SUMMED
from sn17_operator.ports import Measurement

SCRAPE_TIMEOUT_SECONDS = 2.0
KEPT_SAMPLES = 1_000
KEPT_LIVES = 8


@dataclass(frozen=True, slots=True)
class LocalWorker:
    """One worker process; the name stays the same over its restarts, the addresses may change."""

    name: str
    ops_url: str
    data_url: str = ""


@dataclass(slots=True)
class WorkerState:
    """What is known of one worker, and the operator's notes about it."""

    worker: LocalWorker
    boot_id: str = ""
    started_at: float | None = None
    running: bool = False
    ready: bool = False
    why: str = "not scraped yet"
    version: int = 0
    restarts: int = -1
    intent: Intent | None = None
    history: History = field(default_factory=History)
    user_cordon: UserCordon | None = None
    recycle_requested: str | None = None
    boots: dict[str, deque[tuple[float, float]]] = field(default_factory=dict)
    lives: dict[str, deque[tuple[float, float]]] = field(default_factory=dict)
    labelled: dict[Signal, dict[str, deque[tuple[float, float]]]] = field(default_factory=dict)
    """Samples of what is said by a label, by label."""
    series: dict[Signal, deque[tuple[float, float]]] = field(default_factory=dict)

    def sample(self, signal: Signal, at: float, value: float) -> None:
        self.series.setdefault(signal, deque(maxlen=KEPT_SAMPLES)).append((at, value))

    def say(self, signal: Signal, what: str, at: float, value: float) -> None:
        """A sample of something that is said by a label; outputs of canaries come and go with lives."""
        said = self.labelled.setdefault(signal, {})
        if what not in said:
            for old in list(said)[:-KEPT_LIVES]:
                del said[old]
        said.setdefault(what, deque(maxlen=KEPT_SAMPLES)).append((at, value))


class Scraper:
    """Reads the workers' ``/metrics`` as Prometheus would: one timestamp per scrape, ``up`` for whether it
    worked.
    """

    def __init__(
        self,
        states: Mapping[str, WorkerState],
        neighbours: Sequence[str] = (),
        *,
        interval: float,
        clock: Callable[[], float],
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._states = states
        self._neighbours = {url: deque[float](maxlen=KEPT_SAMPLES) for url in neighbours}
        self._interval = interval
        self._clock = clock
        self._client = own_async_client(timeout=SCRAPE_TIMEOUT_SECONDS, transport=transport)
        self._wanted = {
            metric: (signal, more) for signal, (metric, more) in METRICS.items() if signal is not Signal.UP
        }

    async def close(self) -> None:
        await self._client.aclose()

    async def run(self) -> None:
        """Scrape for ever, each worker for itself: one that hangs does not keep the others waiting, or their
        few samples would look like a fault of the monitoring.
        """
        async with asyncio.TaskGroup() as group:
            for state in self._states.values():
                group.create_task(self._for_ever(partial(self._scrape, state)))
            for url, seen in self._neighbours.items():
                group.create_task(self._for_ever(partial(self._look, url, seen)))

    async def _for_ever(self, scrape: Callable[[], Awaitable[None]]) -> None:
        while True:
            await scrape()
            await asyncio.sleep(self._interval)

    async def _look(self, url: str, seen: deque[float]) -> None:
        at = self._clock()
        with contextlib.suppress(httpx2.HTTPError):
            (await self._client.get(f"{url}/metrics")).raise_for_status()
            seen.append(at)

    async def _scrape(self, state: WorkerState) -> None:
        at = self._clock()
        try:
            response = await self._client.get(f"{state.worker.ops_url}/metrics")
            response.raise_for_status()
            self._take(state, at, response.text)
        except httpx2.ConnectError:
            # Nothing listens: the process is gone, and its supervisor will start another.
            state.running, state.ready, state.why = False, False, "the process is not running"
        except (httpx2.HTTPError, ValueError) as error:
            state.sample(Signal.UP, at, 0.0)
            state.why = f"cannot be scraped: {type(error).__name__}"
        else:
            state.sample(Signal.UP, at, 1.0)

    def _take(self, state: WorkerState, at: float, text: str) -> None:
        sums: dict[Signal, float] = {}
        boot = life = ""
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == Metric.BOOT_INFO:
                    boot = sample.labels.get("boot_id", "")
                elif sample.name == Metric.LIFE_INFO:
                    life = sample.labels.get("life_id", "")
                elif sample.name == Metric.READY:
                    state.ready = sample.value > 0
                elif sample.name == Metric.DRAINING:
                    signal = DRAINING.get(sample.labels.get("by", ""))
                    if signal is not None:
                        state.sample(signal, at, sample.value)
                elif sample.name in self._wanted:
                    signal = self._wanted[sample.name][0]
                    if signal in INFO_LABELS:
                        said = sample.labels.get(INFO_LABELS[signal], "")
                        state.say(signal, said, at, sample.value)
                    elif signal is Signal.GUARD and sample.labels.get("mark") != "refuse":
                        continue
                    elif signal in SUMMED:
                        sums[signal] = sums.get(signal, 0.0) + sample.value
                    else:
                        state.sample(signal, at, sample.value)
        if not boot:
            raise ValueError("no boot id")
        for signal, value in sums.items():
            state.sample(signal, at, value)
        if boot != state.boot_id:
            state.boot_id, state.started_at = boot, at
            state.restarts += 1
            state.boots, state.lives = {boot: deque(maxlen=KEPT_SAMPLES)}, {}
            state.version += 1
        state.boots[boot].append((at, 1.0))
        if life:
            # A worker may have any number of lives: only the last few can still be in a window.
            for old in list(state.lives)[:-KEPT_LIVES]:
                del state.lives[old]
            state.lives.setdefault(life, deque(maxlen=KEPT_SAMPLES)).append((at, 1.0))
        state.running, state.why = True, ""

    async def measure(self, now: float, rules: Sequence[Rules]) -> Measurement:
        spans = windows(rules, self._interval)

        def recent(samples: deque[tuple[float, float]], signal: Signal) -> Samples:
            return tuple((at, value) for at, value in samples if at > now - spans[signal])

        def labelled(state: WorkerState, signal: Signal) -> Labelled:
            said = state.labelled.get(signal, {})
            return tuple((label, recent(samples, signal)) for label, samples in said.items())

        workers = {
            name: Raw(
                tuple((boot, recent(samples, Signal.BOOT)) for boot, samples in state.boots.items()),
                {signal: [recent(samples, signal)] for signal, samples in state.series.items()},
                labelled(state, Signal.DEGRADED),
                tuple((life, recent(samples, Signal.LIFE)) for life, samples in state.lives.items()),
                labelled(state, Signal.CANARY_INFO),
                labelled(state, Signal.DEVICE),
                labelled(state, Signal.DEVICE_FAULT),
            )
            for name, state in self._states.items()
        }
        window = spans[Signal.UP]
        good = [
            [at for at, up in state.series.get(Signal.UP, ()) if up and at > now - window]
            for state in self._states.values()
        ]
        good += [[at for at in seen if at > now - window] for seen in self._neighbours.values()]
        queries = {signal: f"{metric} of /metrics" for signal, (metric, _) in METRICS.items()}
        monitoring = Monitoring(
            at=now,
            # One slow scrape must not count as blindness: they wait for each other.
            stale_after=2 * self._interval + SCRAPE_TIMEOUT_SECONDS + 1,
            scrape_interval=self._interval,
            last_scrape=max((times[-1] for times in good if times), default=None),
            coverage=float(max(map(len, good), default=0)),
            window=window,
            queries=queries,
        )
        return Measurement(monitoring, workers)
