"""Marks and annotations that several boards share."""

from __future__ import annotations

from sn17_service.contract import Metric

from sn17_dashboards.model import Annotation, Mark, Query, increase, selected

# The design's targets for the share of accepted tasks: least, expected, good.
TARGETS = (0.45, 0.55, 0.58)
TARGET_MARKS = (Mark(TARGETS[0], "orange"), Mark(TARGETS[1], "yellow"), Mark(TARGETS[2], "green"))

WORKERS = 'job="trellis"'
LIMIT = f"max({selected(Metric.MEMORY_LIMIT, WORKERS)})"
GUARD_MARK = f"max by (mark) ({selected(Metric.MEMORY_MARK_RATIO, WORKERS)})"
OPERATOR_MARKS = {"cordon": 0.8, "emergency": 0.9}
"""Shares of the limit at which the operator acts by default (the SN17Miner's rules.memory)."""

WALL = (
    Query(LIMIT, "wall (memory limit)", fixed=True),
    Query(f"{GUARD_MARK} * scalar({LIMIT})", "worker's guard: {{mark}}", fixed=True),
    *(Query(f"{share} * {LIMIT}", f"operator: {name}", fixed=True) for name, share in OPERATOR_MARKS.items()),
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
