"""Thresholds and annotations that several boards share."""

from __future__ import annotations

from sn17_contract.metrics import Metric

from sn17_dashboards.boards.thresholds import (
    CORDON,
    EMERGENCY,
    SUCCESS_EXPECTED,
    SUCCESS_GOOD,
    SUCCESS_LEAST,
)
from sn17_dashboards.model import Annotation, Colour, ColourStep, Query, Threshold, increase, selected

TARGETS = {"least": SUCCESS_LEAST, "expected": SUCCESS_EXPECTED, "good": SUCCESS_GOOD}
TARGET_COLOURS: tuple[Colour, ...] = ("orange", "yellow", "green")
TARGET_STEPS = tuple(
    ColourStep(at, colour) for at, colour in zip(TARGETS.values(), TARGET_COLOURS, strict=True)
)
TARGET_LINES = tuple(
    Query(f"vector({step.value})", f"{name} target", step.colour)
    for name, step in zip(TARGETS, TARGET_STEPS, strict=True)
)

WORKERS = 'job="trellis"'
LIMIT = f"max({selected(Metric.MEMORY_LIMIT, WORKERS)})"
GUARD_THRESHOLDS: dict[str, Colour] = {"refuse": "purple", "cleanup": "blue"}
OPERATOR_THRESHOLDS: dict[str, tuple[Threshold, Colour]] = {
    "emergency": (EMERGENCY, "orange"),
    "high": (CORDON, "yellow"),
}
"""Shares of the limit at which the operator acts (the SN17Miner's rules.memory)."""


def _guard_threshold(name: str) -> str:
    ratio = selected(Metric.MEMORY_MARK_RATIO, f'{WORKERS},mark="{name}"')
    return f"max({ratio}) * scalar({LIMIT})"


MEMORY_LIMITS = (
    Query(LIMIT, "memory limit", "red"),
    *(
        Query(f"{at} * {LIMIT}", f"operator: {name}", colour)
        for name, (at, colour) in OPERATOR_THRESHOLDS.items()
    ),
    Query(f"max({selected(Metric.SWAP_THRESHOLD_RATIO, WORKERS)}) * scalar({LIMIT})", "swap due", "gray"),
    *(
        Query(_guard_threshold(name), f"worker's guard: {name}", colour)
        for name, colour in GUARD_THRESHOLDS.items()
    ),
)

ACTIONS = f"{Metric.ACTIONS}_total"
EXITS = 'action=~"Exit|Evict",outcome="ok"'
RECYCLES = Annotation(
    name="Recycles",
    expr=f"{increase(ACTIONS, EXITS, '$__rate_interval')} > 0",
    title="{{action}}: {{reason}}",
    colour="purple",
)
BOOTS = selected(Metric.BOOT_INFO)
RENEWALS = Annotation(
    name="Model processes renewed",
    expr="sum by (how, pod) ("
    + increase(f"{Metric.SWAPS}_total", f'{WORKERS},outcome="done"', "$__rate_interval")
    + ") > 0",
    title="{{how}}: {{pod}}",
    colour="yellow",
)
UPGRADES = Annotation(
    name="Upgrades",
    expr=f"count by (service, version) ({BOOTS}) unless count by (service, version) ({BOOTS} offset 5m)",
    title="{{service}} {{version}}",
    colour="blue",
)
MODELS = selected(Metric.MODEL_INFO, WORKERS)
CHECKPOINTS = Annotation(
    name="Checkpoint changes",
    expr=f"count by (model) ({MODELS}) unless count by (model) ({MODELS} offset 5m)",
    title="model: {{model}}",
    colour="green",
)
RESTARTS = Annotation(
    name="Worker restarts",
    expr=f"changes({selected('process_start_time_seconds', WORKERS)}[$__rate_interval]) > 0",
    title="restarted: {{pod}}",
    colour="red",
)
