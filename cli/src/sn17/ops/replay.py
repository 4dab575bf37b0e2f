"""Fetch or read a recording, replay it by one spec or several, and make a report of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from sn17_contract.replay import ReplayAnswer, ReplayedAction, ReplayReport
from sn17_operator.adapters.local import default_spec
from sn17_operator.adapters.prometheus import PrometheusMetrics, PrometheusSettings, QueryError
from sn17_operator.adapters.record import RecordingError, fetch, read, write
from sn17_operator.api import Spec
from sn17_operator.core.replay import Recording, replay
from sn17_operator.status.resource import rfc3339

from sn17.cluster.access import ClusterError
from sn17.given import address_of, secret_of, text_of

UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What to replay and by which settings."""

    prometheus: str | None
    file: Path | None
    since: str
    record: Path | None
    spec_files: tuple[Path, ...]
    spec: dict[str, Any] | None
    """Settings in a cluster, in place of the defaults."""
    selector: str
    scrape_interval: float
    bearer_token_file: Path | None


def seconds(text: str) -> float:
    """``90m`` as seconds.

    Raises:
        ClusterError: it is not a number with one of the units s, m, h, d.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise ClusterError(f"{text!r} is not a time span: write a number and s, m, h or d, such as 24h")
    return float(found[1]) * UNITS[found[2]]


async def run_replay(options: ReplayOptions, *, now: float) -> ReplayAnswer:
    """A report for each spec over one recording: what would have been different.

    Raises:
        ClusterError: no such recording, no Prometheus, or settings that are not a spec.
    """
    specs = _specs(options)
    recording = await _recording(options, now)
    if options.record is not None:
        write(recording, options.record)
    return ReplayAnswer(reports=tuple(_report(name, spec, recording) for name, spec in specs))


def _report(name: str, spec: Spec, recording: Recording) -> ReplayReport:
    found = replay(spec, recording)
    return ReplayReport(
        spec=name,
        start=rfc3339(recording.start),
        end=rfc3339(recording.end),
        workers=found.workers,
        ticks=found.ticks,
        actions=tuple(
            ReplayedAction(
                at=rfc3339(d.at),
                worker=d.worker,
                boot_id=d.boot_id,
                life_id=d.life_id,
                rule=d.rule,
                act=d.act,
                message=d.message,
                spared_seconds=round(d.spared_seconds, 1),
                spent_seconds=d.spent_seconds,
            )
            for d in found.decisions
        ),
        actions_per_worker_and_day={rule: round(rate, 4) for rule, rate in found.per_day().items()},
        verdicts=dict(found.verdicts),
        held_back=dict(found.blocked),
        short_circuits=found.short_circuits,
        lost_seconds=found.lost_seconds,
    )


async def _recording(options: ReplayOptions, now: float) -> Recording:
    if (options.file is None) == (options.prometheus is None):
        raise ClusterError("name either --prometheus or --file")
    if options.file is not None:
        try:
            return read(options.file)
        except (RecordingError, OSError) as error:
            raise ClusterError(str(error)) from error
    if options.bearer_token_file is not None:
        secret_of(options.bearer_token_file)
    settings = PrometheusSettings(
        url=address_of(options.prometheus or ""),
        selector=options.selector,
        scrape_interval_seconds=options.scrape_interval,
        timeout_seconds=60,
        bearer_token_file=options.bearer_token_file,
    )
    try:
        metrics = PrometheusMetrics(settings)
    except ValueError as error:
        raise ClusterError(str(error)) from error
    try:
        recording = await fetch(metrics, now - seconds(options.since), now)
    except QueryError as error:
        raise ClusterError(f"Prometheus at {settings.url}: {error.reason}: {error}") from error
    finally:
        await metrics.close()
    if not recording.workers:
        raise ClusterError(f"Prometheus at {settings.url} has no workers: their series must carry pod_uid")
    return recording


def _specs(options: ReplayOptions) -> list[tuple[str, Spec]]:
    """Each spec with its name; with one file, or none, the one that is asked about."""
    base = dict(options.spec or {})
    if not options.spec_files:
        return [("cluster" if options.spec else "defaults", _spec(base))]
    return [(str(path), _spec(_settings(path))) for path in options.spec_files]


def _settings(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(text_of(path))
    except yaml.YAMLError as error:
        raise ClusterError(f"{path}: {error}") from error
    if not isinstance(loaded, dict):
        raise ClusterError(f"{path}: not a spec")
    return dict(loaded.get("spec") or loaded)


def _spec(found: dict[str, Any]) -> Spec:
    try:
        return default_spec(**{name: value for name, value in found.items() if name != "targetRef"})
    except ValidationError as error:
        raise ClusterError(f"the settings are not those of an SN17Miner: {error}") from error
