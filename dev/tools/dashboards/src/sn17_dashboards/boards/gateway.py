"""The gateway: what clients wait for, what workers bring, and what is refused."""

from __future__ import annotations

from sn17_contract.metrics import Metric

from sn17_dashboards.boards.thresholds import GATEWAY_WAIT
from sn17_dashboards.model import Board, ColourStep, Panel, Query, increase, quantile, selected

TASKS = f"{Metric.GATEWAY_TASKS}_total"
RESULTS = f"{Metric.GATEWAY_RESULTS}_total"
ERRORS = f"{Metric.GATEWAY_ERRORS}_total"
GATEWAY_JOB = 'job="gateway"'

GATEWAY = Board(
    name="gateway",
    title="sn17 / Gateway",
    text="Prompts of your own clients: how long they wait, who works on them, what goes wrong.",
    panels=(
        Panel(
            "Ready",
            "Replicas whose storage answers.",
            "none",
            (Query(f"sum({selected(Metric.READY, GATEWAY_JOB)})", "replicas"),),
            kind="number",
            base="red",
            steps=(ColourStep(1, "green"),),
            width=6,
            height=5,
        ),
        Panel(
            "Oldest waiting task",
            "Since it was handed in; tasks fail at their deadline, 600 s unless set otherwise.",
            "s",
            (Query(f"max({selected(Metric.GATEWAY_OLDEST_WAIT)})", "wait"),),
            kind="number",
            base="green",
            steps=(ColourStep(GATEWAY_WAIT, "red"),),
            width=6,
            height=5,
        ),
        Panel(
            "Open tasks",
            "All replicas share one queue.",
            "short",
            (Query(f"max by (state) ({selected(Metric.GATEWAY_OPEN_TASKS)})", "{{state}}"),),
        ),
        Panel(
            "Wait for a worker",
            "From add_task to the first worker.",
            "s",
            (
                Query(quantile(0.5, Metric.GATEWAY_WAIT, "release"), "p50"),
                Query(quantile(0.95, Metric.GATEWAY_WAIT, "release"), "p95"),
            ),
            steps=(ColourStep(GATEWAY_WAIT, "red"),),
        ),
        Panel(
            "From pull to result",
            "Generation, repair and transport of tasks that succeeded.",
            "s",
            (
                Query(quantile(0.5, Metric.GATEWAY_GENERATION, "release"), "p50"),
                Query(quantile(0.95, Metric.GATEWAY_GENERATION, "release"), "p95"),
            ),
        ),
        Panel(
            "Tasks taken in",
            "By what clients call themselves.",
            "short",
            (Query(f"sum by (origin, kind) ({increase(TASKS)}) > 0", "{{origin}} {{kind}}"),),
            kind="bars",
        ),
        Panel(
            "Results",
            "failure: the worker said so; refused: not an asset; timeout: nobody brought one.",
            "short",
            (Query(f"sum by (outcome) ({increase(RESULTS)})", "{{outcome}}"),),
            kind="bars",
        ),
        Panel(
            "Deliveries",
            "Tasks handed to workers, and handed out again after a lease ended.",
            "short",
            (
                Query(f"sum({increase(f'{Metric.GATEWAY_DELIVERIES}_total')})", "handed out"),
                Query(f"sum({increase(f'{Metric.GATEWAY_RETURNED}_total')})", "again"),
            ),
            kind="bars",
        ),
        Panel(
            "Errors by route",
            "Every refusal: 4xx is the caller's, 5xx the gateway's.",
            "short",
            (Query(f"sum by (route, status) ({increase(ERRORS)}) > 0", "{{route}} {{status}}"),),
            kind="bars",
        ),
    ),
)
