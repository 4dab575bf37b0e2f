"""Fetch or read a recording, replay it, and make a report of it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from sn17_operator.adapters.local import default_spec
from sn17_operator.adapters.prometheus import PrometheusMetrics, PrometheusSettings, QueryError
from sn17_operator.adapters.record import RecordingError, fetch, read, write
from sn17_operator.api import Spec
from sn17_operator.core.replay import Recording, replay
from sn17_operator.status.codec import rfc3339

from sn17.ops.cluster import SteeringError

UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What to replay and by which settings."""

    prometheus: str | None
    file: Path | None
    since: str
    record: Path | None
    spec_file: Path | None
    spec: dict[str, Any] | None
    selector: str
    scrape_interval: float
    bearer_token_file: Path | None


def seconds(text: str) -> float:
    """``90m`` as seconds.

    Raises:
        SteeringError: it is not a number with one of the units s, m, h, d.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise SteeringError(f"{text!r} is not a time span: write a number and s, m, h or d, such as 24h")
    return float(found[1]) * UNITS[found[2]]


async def run_replay(options: ReplayOptions, *, now: float) -> dict[str, Any]:
    """The report as plain values.

    Raises:
        SteeringError: no such recording, no Prometheus, or settings that are not a spec.
    """
    spec = _spec(options)
    recording = await _recording(options, now)
    if options.record is not None:
        write(recording, options.record)
    report = replay(spec, recording)
    return {
        "start": rfc3339(recording.start),
        "end": rfc3339(recording.end),
        "workers": report.workers,
        "ticks": report.ticks,
        "actions": [{**asdict(d), "at": rfc3339(d.at)} for d in report.decisions],
        "actionsPerWorkerAndDay": {rule: round(rate, 4) for rule, rate in report.per_day().items()},
        "verdicts": dict(report.verdicts),
        "heldBack": dict(report.blocked),
        "shortCircuits": report.storms,
    }


async def _recording(options: ReplayOptions, now: float) -> Recording:
    if (options.file is None) == (options.prometheus is None):
        raise SteeringError("name either --prometheus or --file")
    if options.file is not None:
        try:
            return read(options.file)
        except (RecordingError, OSError) as error:
            raise SteeringError(str(error)) from error
    settings = PrometheusSettings(
        url=options.prometheus or "",
        selector=options.selector,
        scrape_interval_seconds=options.scrape_interval,
        timeout_seconds=60,
        bearer_token_file=options.bearer_token_file,
    )
    try:
        metrics = PrometheusMetrics(settings)
    except ValueError as error:
        raise SteeringError(str(error)) from error
    try:
        recording = await fetch(metrics, now - seconds(options.since), now)
    except QueryError as error:
        raise SteeringError(f"Prometheus at {settings.url}: {error.reason}: {error}") from error
    finally:
        await metrics.close()
    if not recording.workers:
        raise SteeringError(f"Prometheus at {settings.url} has no workers: their series must carry pod_uid")
    return recording


def _spec(options: ReplayOptions) -> Spec:
    found: dict[str, Any] = dict(options.spec or {})
    if options.spec_file is not None:
        try:
            loaded = yaml.safe_load(options.spec_file.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise SteeringError(f"{options.spec_file}: {error}") from error
        if not isinstance(loaded, dict):
            raise SteeringError(f"{options.spec_file}: not a spec")
        found = dict(loaded.get("spec") or loaded)
    found.pop("targetRef", None)
    try:
        return default_spec(**found)
    except ValidationError as error:
        raise SteeringError(f"the settings are not those of an SN17Miner: {error}") from error
