"""Recordings of metrics for ``replay``: fetched from Prometheus, kept in a file."""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from sn17_contract.metrics import DegradedReason
from sn17_files import write_atomically

from sn17_operator.adapters.prometheus import PrometheusMetrics, Result, gather, selector
from sn17_operator.core.evidence import Labelled, Raw, Samples
from sn17_operator.core.readings import Signal
from sn17_operator.core.replay import RecordedWorker, Recording
from sn17_operator.core.signals import METRICS

CHUNK_SECONDS = 3_600.0
SCHEMA: Literal["sn17.recording/v2"] = "sn17.recording/v2"
FIRST_SCHEMA: Literal["sn17.recording/v1"] = "sn17.recording/v1"
FIRST_DEGRADED = {
    1.0: DegradedReason.SUSPECT_OUTPUTS,
    2.0: DegradedReason.DEVICE_ERROR,
    3.0: DegradedReason.CANARY_UNUSABLE,
    4.0: DegradedReason.CANARY_FAILED,
}
"""What the numbers of the first schema stood for."""


class RecordingError(ValueError):
    """A file that is not a recording."""


Numbers = list[tuple[float, float | None]]
"""Samples; None where the value is no finite number, which JSON does not have."""


class _Worker(BaseModel):
    model_config = ConfigDict(extra="ignore")

    uid: str
    name: str
    node: str | None = None
    boots: list[tuple[str, Numbers]]
    series: dict[Signal, Numbers]
    doubts: list[tuple[str, Numbers]] = []
    lives: list[tuple[str, Numbers]] = []


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")

    schema_: Literal["sn17.recording/v2", "sn17.recording/v1"]
    start: float
    end: float
    scrape_interval: float
    workers: list[_Worker]


async def fetch(
    prometheus: PrometheusMetrics,
    start: float,
    end: float,
    *,
    told: Callable[[float], None] = lambda done: None,
) -> Recording:
    """Raw samples of every worker between two times, an hour at a time.

    Raises:
        QueryError: Prometheus does not answer, or has too much.
    """
    signals = {signal: metric for signal, metric in METRICS.items() if signal not in (Signal.DRAINING_USER,)}
    parts: list[dict[str, Raw]] = []
    names: dict[str, tuple[str, str | None]] = {}
    at = start
    while at < end:
        step = min(CHUNK_SECONDS, end - at)
        at += step
        answers: dict[Signal, list[Result]] = {}
        for signal, (metric, more) in signals.items():
            matchers = selector(prometheus.settings, more)
            answers[signal] = await prometheus.query(f"{metric}{{{matchers}}}[{step:.0f}s]", at)
        # Every service shows its memory and its life; this is what only a worker shows, from its start.
        for result in answers[Signal.GENERATIONS]:
            labels = result.metric
            names[labels["pod_uid"]] = labels.get("pod", labels["pod_uid"]), labels.get("node")
        parts.append(gather(answers))
        told((at - start) / (end - start))
    workers = [_join(uid, *names[uid], [part[uid] for part in parts if uid in part]) for uid in sorted(names)]
    return Recording(start, end, prometheus.settings.scrape_interval_seconds, tuple(workers))


def _join(uid: str, name: str, node: str | None, parts: list[Raw]) -> RecordedWorker:
    series: dict[Signal, dict[float, float]] = {}
    for part in parts:
        for signal, found in part.series.items():
            for samples in found:
                series.setdefault(signal, {}).update(samples)
    return RecordedWorker(
        uid,
        name,
        node,
        _labelled(part.boots for part in parts),
        {signal: tuple(sorted(samples.items())) for signal, samples in series.items()},
        _labelled(part.doubts for part in parts),
        _labelled(part.lives for part in parts),
    )


def _labelled(parts: Iterable[Labelled]) -> Labelled:
    found: dict[str, set[tuple[float, float]]] = {}
    for part in parts:
        for name, samples in part:
            found.setdefault(name, set()).update(samples)
    return tuple((name, tuple(sorted(samples))) for name, samples in found.items())


def write(recording: Recording, path: Path) -> None:
    """As JSON, compressed when the name ends in ``.gz``."""

    def numbers(samples: Samples) -> Numbers:
        return [(at, value if abs(value) < math.inf else None) for at, value in samples]

    def labelled(found: Labelled) -> list[tuple[str, Numbers]]:
        return [(name, numbers(samples)) for name, samples in found]

    workers = [
        _Worker(
            uid=worker.uid,
            name=worker.name,
            node=worker.node,
            boots=labelled(worker.boots),
            series={signal: numbers(samples) for signal, samples in worker.series.items()},
            doubts=labelled(worker.doubts),
            lives=labelled(worker.lives),
        )
        for worker in recording.workers
    ]
    content = _File(
        schema_=SCHEMA,
        start=recording.start,
        end=recording.end,
        scrape_interval=recording.scrape_interval,
        workers=workers,
    )
    data = content.model_dump_json().encode()
    write_atomically(path, gzip.compress(data) if path.suffix == ".gz" else data)


def read(path: Path) -> Recording:
    """A recording from a file, of this schema or the one before.

    Raises:
        RecordingError: it is not one; the message says where it is wrong.
        OSError: it cannot be read.
    """
    data = path.read_bytes()
    try:
        found = _File.model_validate_json(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (ValidationError, EOFError, gzip.BadGzipFile) as error:
        first = str(error).splitlines()[0]
        raise RecordingError(f"{path} is not a recording: {first}") from error
    workers = tuple(_recorded(worker, first=found.schema_ == FIRST_SCHEMA) for worker in found.workers)
    return Recording(found.start, found.end, found.scrape_interval, workers)


def _recorded(worker: _Worker, *, first: bool) -> RecordedWorker:
    def samples(numbers: Numbers) -> Samples:
        return tuple((at, math.nan if value is None else value) for at, value in numbers)

    def labelled(found: Iterable[tuple[str, Numbers]]) -> Labelled:
        return tuple((name, samples(numbers)) for name, numbers in found)

    doubts: dict[str, Numbers] = {}
    if first:
        for at, value in worker.series.pop(Signal.DEGRADED, []):
            if value in FIRST_DEGRADED:
                doubts.setdefault(FIRST_DEGRADED[value], []).append((at, 1.0))
    return RecordedWorker(
        worker.uid,
        worker.name,
        worker.node,
        labelled(worker.boots),
        {signal: samples(numbers) for signal, numbers in worker.series.items()},
        labelled((*worker.doubts, *doubts.items())),
        labelled(worker.lives),
    )
