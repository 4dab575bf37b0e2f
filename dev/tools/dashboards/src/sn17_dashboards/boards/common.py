"""Marks and annotations that several boards share."""

from __future__ import annotations

from sn17_contract.metrics import Metric

from sn17_dashboards.model import Annotation, Colour, Mark, Query, increase, selected

# The design's targets for the share of accepted tasks: least, expected, good.
TARGETS = (0.45, 0.55, 0.58)
TARGET_COLOURS: tuple[Colour, ...] = ("orange", "yellow", "green")
TARGET_MARKS = tuple(Mark(at, colour) for at, colour in zip(TARGETS, TARGET_COLOURS, strict=True))
TARGET_LINES = tuple(
    Query(f"vector({mark.value})", f"target {mark.value:.0%}", mark.colour) for mark in TARGET_MARKS
)

WORKERS = 'job="trellis"'
LIMIT = f"max({selected(Metric.MEMORY_LIMIT, WORKERS)})"
GUARD_MARKS: dict[str, Colour] = {"refuse": "purple", "cleanup": "blue"}
OPERATOR_MARKS: dict[str, tuple[float, Colour]] = {"emergency": (0.9, "orange"), "cordon": (0.8, "yellow")}
"""Shares of the limit at which the operator acts by default (the SN17Miner's rules.memory)."""


def _guard_mark(name: str) -> str:
    ratio = selected(Metric.MEMORY_MARK_RATIO, f'{WORKERS},mark="{name}"')
    return f"max({ratio}) * scalar({LIMIT})"


WALL = (
    Query(LIMIT, "wall (memory limit)", "red"),
    *(Query(f"{at} * {LIMIT}", f"operator: {name}", colour) for name, (at, colour) in OPERATOR_MARKS.items()),
    *(Query(_guard_mark(name), f"worker's guard: {name}", colour) for name, colour in GUARD_MARKS.items()),
)

ACTIONS = f"{Metric.ACTIONS}_total"
EXITS = 'action=~"Exit|Evict",outcome="ok"'
RECYCLES = Annotation(
    name="Recycles",
    expr=f"{increase(ACTIONS, EXITS, '$__rate_interval')} > 0",
    title="{{action}}: {{reason}}",
    colour="purple",
)
RESTARTS = Annotation(
    name="Worker restarts",
    expr=f"changes({selected('process_start_time_seconds', WORKERS)}[$__rate_interval]) > 0",
    title="restarted: {{pod}}",
    colour="red",
)
