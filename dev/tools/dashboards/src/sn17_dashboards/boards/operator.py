"""What the operator sees, does, and does not do."""

from __future__ import annotations

from sn17_contract.metrics import Metric

from sn17_dashboards.boards.common import ACTIONS, RECYCLES, RENEWALS, RESTARTS, WORKERS
from sn17_dashboards.model import Board, ColourStep, Panel, Query, increase, quantile, selected

OTHERS = 'job!="trellis"'

OPERATOR = Board(
    name="operator",
    title="sn17 / Operator",
    text="Verdicts, actions, and every reason why nothing was done.",
    annotations=(RENEWALS, RECYCLES, RESTARTS),
    panels=(
        Panel(
            "Workers by state",
            "At each tick.",
            "short",
            (Query(f"sum by (state) ({selected(Metric.WORKERS)})", "{{state}}"),),
        ),
        Panel(
            "Work for the workers",
            "What autoscaling counts: tasks that run, wait, are due or soon due, against ready workers.",
            "short",
            (
                Query(f"sum by (state) ({selected(Metric.WORK_TASKS)})", "{{state}}"),
                Query(f"sum({selected(Metric.READY, WORKERS)})", "ready workers", "gray"),
            ),
        ),
        Panel(
            "Actions",
            "Acts on workers by reason and end.",
            "short",
            (
                Query(
                    f"sum by (action, reason, outcome) ({increase(ACTIONS)}) > 0",
                    "{{action}} {{reason}} {{outcome}}",
                ),
            ),
            kind="bars",
        ),
        Panel(
            "Held back",
            "Ticks at which an action was held back, and why: budget, short-circuit, roll-out, no metrics.",
            "short",
            (Query(f"sum by (reason) ({increase(f'{Metric.BLOCKED}_total')}) > 0", "{{reason}}"),),
            kind="bars",
        ),
        Panel(
            "Rules breached",
            "Workers by rule, also rules that are observed only.",
            "short",
            (Query(f"sum by (rule) ({selected(Metric.RULE_BREACHES)}) > 0", "{{rule}}"),),
        ),
        Panel(
            "Suspect GPUs",
            "Two remediations in a row failed there: to be tested by a person.",
            "short",
            (Query(f"max by (uuid, node) ({selected(Metric.SUSPECT_DEVICES)})", "{{uuid}} on {{node}}"),),
        ),
        Panel(
            "Queries without a usable answer",
            "No data is not bad data: nothing is done on it.",
            "short",
            (
                Query(
                    f"sum by (reason) ({increase(f'{Metric.PROMETHEUS_ERRORS}_total')}) > 0",
                    "{{reason}}",
                ),
            ),
            kind="bars",
        ),
        Panel(
            "Age of the last tick",
            "The liveness probe restarts an operator that has stopped ticking.",
            "s",
            (Query(f"max by (pod) ({selected(Metric.TICK_AGE)})", "{{pod}}"),),
            base="green",
            steps=(ColourStep(30, "yellow"), ColourStep(60, "red")),
        ),
        Panel(
            "Tick duration",
            "p50 and p95.",
            "s",
            (
                Query(quantile(0.5, Metric.TICK_DURATION, "pod"), "p50"),
                Query(quantile(0.95, Metric.TICK_DURATION, "pod"), "p95"),
            ),
        ),
        Panel(
            "Success as the operator sees it",
            "Accepted of all but skipped tasks, windows of the SN17Miner's status.",
            "percentunit",
            (Query(f"max by (window) ({selected(Metric.SUCCESS_RATIO)})", "{{window}}"),),
            maximum=1,
        ),
        Panel(
            "Memory of the services",
            "Resident memory of operator, miner and fixer: a leak of their own shows here.",
            "bytes",
            (
                Query(
                    f"max by (pod) ({selected('process_resident_memory_bytes', OTHERS)})",
                    "{{pod}}",
                ),
            ),
        ),
    ),
)
