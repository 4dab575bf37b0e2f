"""Is it earning, why not, and is it healthy: eight panels at most."""

from __future__ import annotations

from sn17_contract.metrics import Metric

from sn17_dashboards.boards.common import (
    CHECKPOINTS,
    MEMORY_LIMITS,
    RECYCLES,
    RENEWALS,
    RESTARTS,
    TARGET_LINES,
    TARGET_STEPS,
    UPGRADES,
    WORKERS,
)
from sn17_dashboards.boards.thresholds import ACCEPTANCE_GAUSSIANS, DEGRADED_GAUSSIANS
from sn17_dashboards.model import (
    VALIDATOR,
    VALIDATORS_DOOR,
    Board,
    Colour,
    ColourStep,
    Panel,
    Query,
    increase,
    quantile,
    selected,
)

TASKS = f"{Metric.TASKS}_total"
PULLED = f"{Metric.TASKS_PULLED}_total"
OF_VALIDATORS = f"{VALIDATORS_DOOR},{VALIDATOR}"
ACCEPTED = increase(TASKS, f'outcome="accepted",{OF_VALIDATORS}')
JUDGED = increase(TASKS, f'outcome!="skipped",{OF_VALIDATORS}')
SUCCESS = f"sum by (validator) ({ACCEPTED}) / (sum by (validator) ({JUDGED}) > 0)"
HANDED_OUT = increase(PULLED, OF_VALIDATORS)
SCORE = Metric.TASK_SCORE
UID = selected(Metric.VALIDATOR_UID, VALIDATOR)


def yesterday(matchers: str) -> str:
    return (
        f"sum by (validator) (increase({selected(TASKS, f'{matchers},{OF_VALIDATORS}')}[$window] offset 1d))"
    )


SUCCESS_YESTERDAY = f"""{yesterday('outcome="accepted"')} / ({yesterday('outcome!="skipped"')} > 0)"""

OUTCOME_COLOURS: tuple[tuple[str, Colour], ...] = (
    ("accepted", "green"),
    ("rejected", "red"),
    ("unvalidated", "orange"),
    ("expired", "purple"),
    ("given_up", "yellow"),
    ("skipped", "gray"),
)

OVERVIEW = Board(
    name="overview",
    title="sn17 / Overview",
    text="What each validator accepted, why the rest was not accepted, and whether the workers are healthy.",
    annotations=(UPGRADES, CHECKPOINTS, RENEWALS, RECYCLES, RESTARTS),
    panels=(
        Panel(
            "Validators",
            "Of validators' tasks alone. Success: accepted of all that were not skipped. "
            "Yield: accepted of all that were pulled. "
            "The change is against the same window a day before.",
            "percentunit",
            (
                Query(f"max by (validator) ({UID})", "uid", unit="none"),
                Query(SUCCESS, "Success"),
                Query(
                    f"sum by (validator) ({ACCEPTED}) / (sum by (validator) ({HANDED_OUT}) > 0)",
                    "Yield",
                ),
                Query(f"sum by (validator) ({HANDED_OUT})", "Tasks", unit="short"),
                Query(
                    f"sum by (validator) ({increase(f'{SCORE}_sum', VALIDATOR)})"
                    f" / (sum by (validator) ({increase(f'{SCORE}_count', VALIDATOR)}) > 0)",
                    "Mean score",
                    unit="none",
                ),
                Query(f"{SUCCESS} - {SUCCESS_YESTERDAY}", "Change in a day", unit="none"),
            ),
            kind="table",
            key="validator",
            base="red",
            steps=TARGET_STEPS,
            minimum=None,
            width=24,
            height=6,
        ),
        Panel(
            "Success by validator",
            "Accepted of all tasks that were not skipped, with the targets.",
            "percentunit",
            (Query(SUCCESS, "{{validator}}"), *TARGET_LINES),
            base="red",
            steps=TARGET_STEPS,
            maximum=1,
        ),
        Panel(
            "Tasks by outcome",
            "How the validators' tasks of the window ended.",
            "short",
            (Query(f"sum by (outcome) ({increase(TASKS, OF_VALIDATORS)}) > 0", "{{outcome}}"),),
            kind="bars",
            colours=OUTCOME_COLOURS,
        ),
        Panel(
            "Why tasks were not accepted",
            "Outcomes other than accepted by validator, and the reasons for giving up. One task's story: "
            "`sn17 tasks explain N`.",
            "short",
            (
                Query(
                    "sum by (outcome, validator) ("
                    + increase(TASKS, f'outcome=~"rejected|unvalidated|expired|skipped",{OF_VALIDATORS}')
                    + ") > 0",
                    "{{validator}} {{outcome}}",
                ),
                Query(
                    f"sum by (reason) ({increase(f'{Metric.GIVEN_UP}_total', VALIDATORS_DOOR)}) > 0",
                    "given up: {{reason}}",
                ),
            ),
            kind="bars",
        ),
        Panel(
            "Delivery",
            "From the pull to the verdict. Up to 30 s cost nothing; beyond, every second costs throughput.",
            "s",
            (
                Query(quantile(0.5, Metric.DELIVERY, "validator", OF_VALIDATORS), "{{validator}} p50"),
                Query(quantile(0.95, Metric.DELIVERY, "validator", OF_VALIDATORS), "{{validator}} p95"),
                Query("vector(30)", "free of cost below", "gray"),
            ),
            base="green",
            steps=(ColourStep(30, "yellow"), ColourStep(60, "red")),
        ),
        Panel(
            "Memory against the limit",
            "Memory that cannot be reclaimed, by worker. Yellow: a model process was renewed; "
            "purple: the operator recycled a container; red: a restart.",
            "bytes",
            (
                Query(
                    f"max by (pod) ({selected(Metric.MEMORY_UNRECLAIMABLE, WORKERS)})",
                    "{{pod}}",
                ),
                *MEMORY_LIMITS,
            ),
        ),
        Panel(
            "Gaussians of recent tasks",
            f"Mean over the last 30 min. Below {DEGRADED_GAUSSIANS} a worker counts as degraded; the "
            f"acceptance run wants more than {ACCEPTANCE_GAUSSIANS}.",
            "short",
            (
                Query(f"max by (pod) ({selected(Metric.RECENT_GAUSSIANS_MEAN)})", "{{pod}}"),
                Query(f"vector({DEGRADED_GAUSSIANS})", "degraded below", "orange"),
                Query(f"vector({ACCEPTANCE_GAUSSIANS})", "acceptance mean", "green"),
            ),
            base="red",
            steps=(ColourStep(DEGRADED_GAUSSIANS, "yellow"), ColourStep(ACCEPTANCE_GAUSSIANS, "green")),
        ),
        Panel(
            "Workers",
            "Workers by the operator's verdict.",
            "short",
            (Query(f"sum by (state) ({selected(Metric.WORKERS)}) > 0", "{{state}}"),),
            kind="number",
            width=24,
            height=5,
        ),
    ),
)
