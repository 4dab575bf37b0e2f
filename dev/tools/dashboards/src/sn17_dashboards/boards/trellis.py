"""What the workers do, and the fixer behind them."""

from __future__ import annotations

from sn17_contract.metrics import Metric

from sn17_dashboards.boards.common import (
    CHECKPOINTS,
    MEMORY_LIMITS,
    RECYCLES,
    RENEWALS,
    RESTARTS,
    WORKERS,
)
from sn17_dashboards.boards.thresholds import ACCEPTANCE_SECONDS, CANARY_DRIFT
from sn17_dashboards.model import Board, ColourStep, Panel, Query, increase, quantile, selected

TASK = 'kind="task"'
GENERATIONS = selected(f"{Metric.GENERATIONS}_total", TASK)

TRELLIS = Board(
    name="trellis",
    title="sn17 / TRELLIS and fixer",
    text="Generations, memory, canary and repair, by worker.",
    annotations=(CHECKPOINTS, RENEWALS, RECYCLES, RESTARTS),
    panels=(
        Panel(
            "Generations by outcome",
            "Per second, task generations only; canary and warm-up are left out.",
            "ops",
            (Query(f"sum by (outcome) (rate({GENERATIONS}[$__rate_interval])) > 0", "{{outcome}}"),),
            kind="bars",
        ),
        Panel(
            "Generation duration",
            f"Task generations by stage; the whole should take at most {ACCEPTANCE_SECONDS} s.",
            "s",
            (
                Query(quantile(0.5, Metric.GENERATION_DURATION, "stage", TASK), "{{stage}} p50"),
                Query(
                    quantile(0.95, Metric.GENERATION_DURATION, "stage", f'{TASK},stage="total"'),
                    "{{stage}} p95",
                ),
                Query(f"vector({ACCEPTANCE_SECONDS})", "acceptance limit", "red"),
            ),
            base="green",
            steps=(ColourStep(ACCEPTANCE_SECONDS, "red"),),
        ),
        Panel(
            "Gaussians of an asset",
            "Distribution over task generations.",
            "short",
            (
                Query(quantile(0.1, Metric.GENERATION_GAUSSIANS, "kind", TASK), "p10"),
                Query(quantile(0.5, Metric.GENERATION_GAUSSIANS, "kind", TASK), "p50"),
                Query(quantile(0.9, Metric.GENERATION_GAUSSIANS, "kind", TASK), "p90"),
            ),
        ),
        Panel(
            "Jobs in flight",
            "The most at a time, by worker.",
            "short",
            (
                Query(
                    f"max by (pod) (max_over_time({selected(Metric.JOBS_IN_FLIGHT)}[$__rate_interval]))",
                    "{{pod}}",
                ),
            ),
        ),
        Panel(
            "Unreclaimable memory",
            "By worker, against the limit and the thresholds below it.",
            "bytes",
            (
                Query(f"max by (pod) ({selected(Metric.MEMORY_UNRECLAIMABLE, WORKERS)})", "{{pod}}"),
                *MEMORY_LIMITS,
            ),
        ),
        Panel(
            "Model processes renewed",
            "A swap has the next one ready before the last one ends; a replacement starts it afterwards.",
            "short",
            (
                Query(
                    f"sum by (pod, how, outcome) ({increase(f'{Metric.SWAPS}_total')}) > 0",
                    "{{pod}} {{how}} {{outcome}}",
                ),
            ),
            kind="bars",
        ),
        Panel(
            "Duration of a renewal",
            "By phase, and for how long the device was held meanwhile.",
            "s",
            (
                Query(quantile(0.5, Metric.SWAP_SECONDS, "phase"), "{{phase}} p50"),
                Query(quantile(0.95, Metric.SWAP_DEVICE_SECONDS, "pod"), "{{pod}} held the device, p95"),
            ),
        ),
        Panel(
            "Working set",
            "Counts active file pages too: what kubectl top shows, no reason to act.",
            "bytes",
            (Query(f"max by (pod) ({selected(Metric.MEMORY_WORKING_SET, WORKERS)})", "{{pod}}"),),
        ),
        Panel(
            "Canary drift",
            "The worker's fixed-seed canary against its first one, scaled to one threshold.",
            "percentunit",
            (
                Query(f"max by (pod) ({selected(Metric.CANARY_DRIFT)})", "{{pod}}"),
                Query(f"vector({CANARY_DRIFT})", "drift", "red"),
            ),
            base="green",
            steps=(ColourStep(CANARY_DRIFT, "red"),),
        ),
        Panel(
            "Out of service",
            "Drain leases by who holds them: the operator's lapse, a person's do not.",
            "short",
            (Query(f"sum by (pod, by) ({selected(Metric.DRAINING, WORKERS)}) > 0", "{{pod}} by {{by}}"),),
        ),
        Panel(
            "Refusals",
            "Requests answered with an error, by code.",
            "short",
            (
                Query(
                    f"sum by (job, code) ({increase(f'{Metric.REFUSALS}_total')}) > 0",
                    "{{job}} {{code}}",
                ),
            ),
            kind="bars",
        ),
        Panel(
            "GPU",
            "Device memory by kind; empty without a GPU.",
            "bytes",
            (Query(f"sum by (pod, kind) ({selected(Metric.GPU_MEMORY)})", "{{pod}} {{kind}}"),),
        ),
        Panel(
            "GPU faults and throttling",
            "What the driver reports of a broken GPU, and why its clocks are lowered.",
            "short",
            (
                Query(
                    f"max by (pod, uuid, reason) ({selected(Metric.DEVICE_FAULT)})",
                    "{{pod}} {{uuid}} {{reason}}",
                    "red",
                ),
                Query(
                    f"max by (pod, reason) ({selected(Metric.DEVICE_THROTTLED)}) > 0",
                    "{{pod}} {{reason}}",
                ),
            ),
        ),
        Panel(
            "GPU memory errors",
            "Since the driver was loaded, as the driver counts them.",
            "short",
            (
                Query(
                    f"max by (pod, kind) ({selected(f'{Metric.DEVICE_ECC_ERRORS}_total')})",
                    "{{pod}} {{kind}}",
                ),
                Query(
                    f"max by (pod, xid) ({increase(f'{Metric.DEVICE_XIDS}_total')}) > 0",
                    "{{pod}} Xid {{xid}}",
                ),
            ),
        ),
        Panel(
            "Model starts that failed",
            "In a row; 0 while one serves. From 5 on the operator restarts the worker.",
            "short",
            (Query(f"max by (pod) ({selected(Metric.MODEL_FAILING_STARTS)}) > 0", "{{pod}}"),),
        ),
        Panel(
            "Fixes by verdict",
            "What the fixer made of the splats.",
            "short",
            (
                Query(
                    f"sum by (policy, verdict) ({increase(f'{Metric.FIXES}_total')}) > 0",
                    "{{policy}} {{verdict}}",
                ),
            ),
            kind="bars",
        ),
        Panel(
            "Fix duration",
            "By stage.",
            "s",
            (Query(quantile(0.95, Metric.FIX_DURATION, "stage"), "{{stage}} p95"),),
        ),
    ),
)
