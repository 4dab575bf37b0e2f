"""The metric behind each signal, for everything that reads metrics."""

from __future__ import annotations

from collections.abc import Mapping

from sn17_contract.http import LeaseOwner
from sn17_contract.metrics import Metric

from sn17_operator.core.readings import Signal

METRICS: Mapping[Signal, tuple[str, str]] = {
    Signal.BOOT: (Metric.BOOT_INFO, ""),
    Signal.LIFE: (Metric.LIFE_INFO, ""),
    Signal.MODEL_PROCESSES: (Metric.MODEL_PROCESSES, ""),
    Signal.SWAP_ROOM: (Metric.SWAP_ROOM, ""),
    Signal.SWAP_THRESHOLD: (Metric.SWAP_THRESHOLD_RATIO, ""),
    Signal.GUARD: (Metric.MEMORY_MARK_RATIO, 'mark="refuse"'),
    Signal.MEMORY: (Metric.MEMORY_UNRECLAIMABLE, ""),
    Signal.LIMIT: (Metric.MEMORY_LIMIT, ""),
    Signal.GAUSSIANS: (Metric.RECENT_GAUSSIANS_MEAN, ""),
    Signal.GENERATIONS: (Metric.RECENT_GENERATIONS, ""),
    Signal.SECONDS_P50: (Metric.RECENT_GENERATION_P50, ""),
    Signal.JOBS: (Metric.JOBS_IN_FLIGHT, ""),
    Signal.PROGRESS: (Metric.LAST_PROGRESS, ""),
    Signal.CANARY: (Metric.CANARY_DRIFT, ""),
    Signal.CANARY_INFO: (Metric.CANARY_INFO, ""),
    Signal.GPU_ERRORS: (f"{Metric.GPU_ERRORS}_total", ""),
    Signal.DEGRADED: (Metric.DEGRADED, ""),
    Signal.FAILING_STARTS: (Metric.MODEL_FAILING_STARTS, ""),
    Signal.DEVICE: (Metric.DEVICE_INFO, ""),
    Signal.DEVICE_FAULT: (Metric.DEVICE_FAULT, ""),
    Signal.DRAINING_USER: (Metric.DRAINING, f'by="{LeaseOwner.USER}"'),
    Signal.DRAINING_OPERATOR: (Metric.DRAINING, f'by="{LeaseOwner.OPERATOR}"'),
    Signal.UP: ("up", ""),
}
"""Metric and matchers of each signal; every series must carry ``pod_uid``."""

INFO_LABELS: Mapping[Signal, str] = {
    Signal.BOOT: "boot_id",
    Signal.LIFE: "life_id",
    Signal.DEGRADED: "reason",
    Signal.CANARY_INFO: "output",
    Signal.DEVICE: "uuid",
    Signal.DEVICE_FAULT: "reason",
}
"""Signals that say something by a label, and which; their value is always 1."""

SUMMED: Mapping[Signal, str] = {Signal.GPU_ERRORS: "kind"}
"""Signals whose series differ by a label of their own and are added up."""

DRAINING: Mapping[str, Signal] = {
    LeaseOwner.USER: Signal.DRAINING_USER,
    LeaseOwner.OPERATOR: Signal.DRAINING_OPERATOR,
}
"""Signal of each owner of a drain lease that matters here."""
