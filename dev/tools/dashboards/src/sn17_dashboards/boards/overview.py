"""Is it earning, is it healthy: eight panels at most."""

from __future__ import annotations

from sn17_contract.metrics import Metric

from sn17_dashboards.boards.common import RECYCLES, RESTARTS, TARGET_LINES, TARGET_MARKS, WALL, WORKERS
from sn17_dashboards.model import Board, Mark, Panel, Query, increase, quantile, selected

TASKS = f"{Metric.TASKS}_total"
PULLED = f"{Metric.TASKS_PULLED}_total"
ACCEPTED = increase(TASKS, 'outcome="accepted"')
JUDGED = increase(TASKS, 'outcome!="skipped"')

OVERVIEW = Board(
    name="overview",
    title="sn17 / Overview",
    text="What the validators accepted, and whether the workers stay below the wall.",
    annotations=(RECYCLES, RESTARTS),
    panels=(
        Panel(
            "Success by validator",
            "Accepted of all tasks that were not skipped. Read it beside the yield: skipping must not look "
            "like winning. Targets 45, 55 and 58 %.",
            "percentunit",
            (
                Query(
                    f"sum by (validator) ({ACCEPTED}) / (sum by (validator) ({JUDGED}) > 0)",
                    "{{validator}}",
                ),
                Query(f"sum({ACCEPTED}) / (sum({JUDGED}) > 0)", "all"),
                *TARGET_LINES,
            ),
            base="red",
            marks=TARGET_MARKS,
            maximum=1,
        ),
        Panel(
            "Yield by validator",
            "Accepted of all tasks that were pulled, skipped ones included.",
            "percentunit",
            (
                Query(
                    f"sum by (validator) ({ACCEPTED}) / (sum by (validator) ({increase(PULLED)}) > 0)",
                    "{{validator}}",
                ),
                Query(f"sum({ACCEPTED}) / (sum({increase(PULLED)}) > 0)", "all"),
                *TARGET_LINES,
            ),
            base="red",
            marks=TARGET_MARKS,
            maximum=1,
        ),
        Panel(
            "Tasks by outcome",
            "How many tasks the two shares are made of.",
            "short",
            (Query(f"sum by (validator, outcome) ({increase(TASKS)}) > 0", "{{validator}} {{outcome}}"),),
            kind="bars",
        ),
        Panel(
            "Workers",
            "Workers by the operator's verdict.",
            "short",
            (Query(f"sum by (state) ({selected(Metric.WORKERS)}) > 0", "{{state}}"),),
            kind="number",
        ),
        Panel(
            "Memory against the wall",
            "What can not be reclaimed, by worker. Purple: the operator recycled one; red: one restarted.",
            "bytes",
            (
                Query(
                    f"max by (pod) ({selected(Metric.MEMORY_UNRECLAIMABLE, WORKERS)})",
                    "{{pod}}",
                ),
                *WALL,
            ),
        ),
        Panel(
            "Gaussians of recent tasks",
            "Mean over the last 30 min of this incarnation. Below 150,000 a worker counts as degraded; the "
            "acceptance run wants more than 350,000.",
            "short",
            (
                Query(f"max by (pod) ({selected(Metric.RECENT_GAUSSIANS_MEAN)})", "{{pod}}"),
                Query("vector(150000)", "degraded below", "orange"),
                Query("vector(350000)", "acceptance mean", "green"),
            ),
            base="red",
            marks=(Mark(150_000, "yellow"), Mark(350_000, "green")),
        ),
        Panel(
            "Delivery",
            "Pull to verdict. Up to 30 s cost nothing; beyond, every second costs throughput.",
            "s",
            (
                Query(quantile(0.5, Metric.DELIVERY, "validator"), "{{validator}} half"),
                Query(quantile(0.9, Metric.DELIVERY, "validator"), "{{validator}} 9 of 10"),
                Query("vector(30)", "free of cost below", "gray"),
            ),
            base="green",
            marks=(Mark(30, "yellow"), Mark(60, "red")),
        ),
        Panel(
            "Idle after a cooldown",
            "From the end of a cooldown to the next pull while a worker was free.",
            "s",
            (
                Query(quantile(0.5, Metric.COOLDOWN_IDLE, "validator"), "{{validator}} half"),
                Query(quantile(0.95, Metric.COOLDOWN_IDLE, "validator"), "{{validator}} 19 of 20"),
            ),
            base="green",
            marks=(Mark(1, "yellow"), Mark(5, "red")),
        ),
    ),
)
