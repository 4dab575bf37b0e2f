"""Recordings of metrics for ``replay``: fetched from Prometheus, kept in a file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from sn17_files import write_atomically

from sn17_operator.adapters.prometheus import METRICS, PrometheusMetrics, Result, gather, selector
from sn17_operator.core.evidence import Raw, Samples
from sn17_operator.core.model import Signal
from sn17_operator.core.replay import SCHEMA, RecordedWorker, Recording

CHUNK_SECONDS = 3_600.0


class RecordingError(ValueError):
    """A file that is not a recording."""


class _Worker(BaseModel):
    model_config = ConfigDict(extra="ignore")

    uid: str
    name: str
    node: str | None = None
    boots: list[tuple[str, list[tuple[float, float]]]]
    series: dict[Signal, list[tuple[float, float | None]]]


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    schema_: str
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
    boots: dict[str, list[tuple[float, float]]] = {}
    series: dict[Signal, dict[float, float]] = {}
    for part in parts:
        for boot, samples in part.boots:
            boots.setdefault(boot, []).extend(samples)
        for signal, found in part.series.items():
            for samples in found:
                series.setdefault(signal, {}).update(samples)
    return RecordedWorker(
        uid,
        name,
        node,
        tuple((boot, tuple(sorted(set(samples)))) for boot, samples in boots.items()),
        {signal: tuple(sorted(samples.items())) for signal, samples in series.items()},
    )


def write(recording: Recording, path: Path) -> None:
    """As JSON, compressed when the name ends in ``.gz``."""

    def numbers(samples: Samples) -> list[tuple[float, float | None]]:
        return [(at, value if abs(value) < float("inf") else None) for at, value in samples]

    content: dict[str, Any] = {
        "schema_": SCHEMA,
        "start": recording.start,
        "end": recording.end,
        "scrape_interval": recording.scrape_interval,
        "workers": [
            {
                "uid": worker.uid,
                "name": worker.name,
                "node": worker.node,
                "boots": worker.boots,
                "series": {str(signal): numbers(samples) for signal, samples in worker.series.items()},
            }
            for worker in recording.workers
        ],
    }
    data = json.dumps(content).encode()
    write_atomically(path, gzip.compress(data) if path.suffix == ".gz" else data)


def read(path: Path) -> Recording:
    """A recording from a file.

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
    if found.schema_ != SCHEMA:
        raise RecordingError(f"{path}: schema {found.schema_!r} is not {SCHEMA!r}")
    nan = float("nan")
    return Recording(
        found.start,
        found.end,
        found.scrape_interval,
        tuple(
            RecordedWorker(
                worker.uid,
                worker.name,
                worker.node,
                tuple((boot, tuple(samples)) for boot, samples in worker.boots),
                {
                    s: tuple((at, nan if v is None else v) for at, v in samples)
                    for s, samples in worker.series.items()
                },
            )
            for worker in found.workers
        ),
    )
