"""Alert rules: each fires when it should and is silent when it should, by promtool on what is rendered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from sn17_cluster.plugin import unavailable
from sn17_cluster.requirements import MissingError, require_tools
from sn17_contract.metrics import GenerationOutcome, Metric
from sn17_contract.tasks import Outcome

ROOT = Path(__file__).resolve().parents[2]
RULES = (ROOT / "charts/sn17/rules/sn17.yaml", ROOT / "charts/sn17/rules/burn-rate.yaml")
RUNBOOKS = ROOT / "docs" / "runbooks"

HERE = 'namespace="mining",release="sn17"'
MINER = f'{HERE},job="miner",pod="sn17-miner-0",instance="m"'
WORKER = f'{HERE},job="trellis",pod="sn17-trellis-a",node="n1",instance="t"'
OPERATOR = f'{HERE},job="operator",pod="sn17-operator-a",instance="o"'
GATEWAY = f'{HERE},job="gateway",pod="sn17-gateway-a",instance="g"'
FIXER = f'{HERE},job="fixer",pod="sn17-fixer-a",instance="f"'
STRANGER = 'namespace="other",pod="x",instance="x"'
"""Of another project in the same Prometheus: its jobs may have names of ours, but no label `release`."""
NEIGHBOURS = ('namespace="mining",release="second"', 'namespace="mining2",release="sn17"')
"""Other releases in the same Prometheus."""


@dataclass(frozen=True)
class Case:
    """Series (values in promtool's notation, one a minute) and whether the alert fires by then."""

    alert: str
    fires: bool
    series: Mapping[str, str]
    minutes: int = 300
    why: str = ""


def tasks(outcome: str, values: str, validator: str = "5aaaaaaa") -> dict[str, str]:
    return _of_door("validators", validator, outcome, values)


def up(labels: str, values: str) -> dict[str, str]:
    return {f"up{{{labels}}}": values}


def ratio(used: float, limit: float = 100) -> dict[str, str]:
    return {
        f"sn17_memory_unreclaimable_bytes{{{WORKER}}}": f"{used}x300",
        f"sn17_memory_limit_bytes{{{WORKER}}}": f"{limit}x300",
    }


def gauge(name: str, labels: str, value: float) -> dict[str, str]:
    return {f"{name}{{{labels}}}": f"{value}x300"}


def counter(name: str, labels: str, step: float) -> dict[str, str]:
    return {f"{name}{{{labels}}}": f"0+{step}x300"}


def clients_tasks(outcome: str, values: str) -> dict[str, str]:
    return _of_door("home", "", outcome, values)


def _of_door(door: str, validator: str, outcome: str, values: str) -> dict[str, str]:
    labels = f'{MINER},door="{door}",validator="{validator}",kind="text",outcome="{outcome}"'
    return {f"sn17_tasks_total{{{labels}}}": values}


def breaches(rule: str, value: float) -> dict[str, str]:
    return gauge("sn17_rule_breaches", f'{OPERATOR},rule="{rule}"', value)


LOST = f'{WORKER},uuid="GPU-1",reason="lost"'
SUSPECT = f'{OPERATOR},uuid="GPU-1",node="n1"'
PULLED = f'{MINER},door="validators",validator="5aaaaaaa",kind="text"'
CLIENTS_PULLED = f'{MINER},door="home",validator="",kind="text"'
CASES = (
    Case("SN17SuccessLow", True, {**tasks("accepted", "0+0.04x300"), **tasks("rejected", "0+0.08x300")}),
    Case("SN17SuccessLow", False, {**tasks("accepted", "0+0.08x300"), **tasks("rejected", "0+0.04x300")}),
    Case(
        "SN17SuccessLow", False, tasks("rejected", "0+0.02x300"), why="five tasks in four hours prove nothing"
    ),
    Case(
        "SN17SuccessLow",
        False,
        {**tasks("accepted", "0+0.1x300"), **tasks("skipped", "0+1x300")},
        why="skipped tasks are not failed ones",
    ),
    Case(
        "SN17SuccessLow",
        True,
        {
            **tasks("accepted", "0+0.2x300", "5good"),
            **tasks("accepted", "0+0.02x300"),
            **tasks("expired", "0+0.1x300"),
        },
        why="one bad validator is seen behind a good one",
    ),
    Case("SN17SuccessLow", True, tasks("rejected", "0+0.3x300"), why="nothing was ever accepted"),
    Case("SN17SuccessLow", False, tasks("accepted", "0+0.3x300"), why="nothing has ever failed"),
    Case(
        "SN17SuccessLow",
        True,
        {**tasks("accepted", "0x300"), **tasks("rejected", "0+0.08x300")},
        why="a validator that never accepted anything: the counter is there, at 0",
    ),
    Case("SN17SuccessLow", False, clients_tasks("given_up", "0+1x300"), why="clients are no validators"),
    Case(
        "SN17YieldLow",
        True,
        counter("sn17_tasks_pulled_total", PULLED, 0.4),
        why="nothing was ever accepted",
    ),
    Case(
        "SN17YieldLow",
        True,
        {
            **clients_tasks("accepted", "0+9x300"),
            **counter("sn17_tasks_pulled_total", CLIENTS_PULLED, 9),
            **tasks("accepted", "0+0.1x300"),
            **counter("sn17_tasks_pulled_total", PULLED, 0.4),
        },
        why="a gateway's tasks do not hide a low yield",
    ),
    Case(
        "SN17YieldLow",
        True,
        {**tasks("accepted", "0+0.1x300"), **counter("sn17_tasks_pulled_total", PULLED, 0.4)},
        why="skipping does not look like winning",
    ),
    Case(
        "SN17YieldLow",
        False,
        {**tasks("accepted", "0+0.3x300"), **counter("sn17_tasks_pulled_total", PULLED, 0.4)},
    ),
    Case("SN17NoTasks", True, {**counter("sn17_tasks_pulled_total", PULLED, 0), **up(MINER, "1x300")}),
    Case(
        "SN17NoTasks",
        True,
        {
            **counter("sn17_tasks_pulled_total", PULLED, 0),
            **counter("sn17_tasks_pulled_total", CLIENTS_PULLED, 0.2),
            **up(MINER, "1x300"),
        },
        why="gateways' tasks are no validators' tasks",
    ),
    Case("SN17NoTasks", False, {**counter("sn17_tasks_pulled_total", PULLED, 0.2), **up(MINER, "1x300")}),
    Case(
        "SN17NoTasks", True, up(MINER, "1x300"), why="a miner that knows no validator has no counter of pulls"
    ),
    Case(
        "SN17NoTasks",
        False,
        up(f'{STRANGER},job="miner"', "1x300"),
        why="another project's miner is not ours",
    ),
    Case(
        "SN17NoTasks",
        True,
        {**counter("sn17_tasks_pulled_total", CLIENTS_PULLED, 0.2), **up(MINER, "1x300")},
        why="pulls from gateways are no validators' either where the validators' counter is missing",
    ),
    Case(
        "SN17NoTasks",
        False,
        {**counter("sn17_tasks_pulled_total", PULLED, 0), **up(MINER, "1x20")},
        minutes=20,
        why="a miner that has just started gets half an hour",
    ),
    Case(
        "SN17NoTasks",
        False,
        {**counter("sn17_tasks_pulled_total", PULLED, 0), **up(MINER, "0x300")},
        why="a miner that is down has an alert of its own",
    ),
    Case(
        "SN17CooldownViolations",
        True,
        counter("sn17_cooldown_violations_total", f'{MINER},validator="5a"', 0.2),
    ),
    Case(
        "SN17CooldownViolations",
        False,
        counter("sn17_cooldown_violations_total", f'{MINER},validator="5a"', 0.01),
    ),
    Case("SN17ClockSkew", True, gauge("sn17_clock_skew_seconds", MINER, 3.5)),
    Case("SN17ClockSkew", True, gauge("sn17_clock_skew_seconds", MINER, -3.5), why="fast or slow alike"),
    Case("SN17ClockSkew", False, gauge("sn17_clock_skew_seconds", MINER, 0.4)),
    Case(
        "SN17ClockSkew",
        False,
        {f"sn17_clock_skew_seconds{{{MINER}}}": "0x100 20 0x199"},
        minutes=112,
        why="one odd reading passes",
    ),
    Case("SN17NotRegistered", True, gauge("sn17_registered", f'{MINER},uid=""', 0)),
    Case("SN17NotRegistered", False, gauge("sn17_registered", f'{MINER},uid="7"', 1)),
    Case(
        "SN17PruningNear",
        True,
        {**gauge("sn17_prune_position", MINER, 1), **gauge("sn17_immunity_blocks_left", MINER, 0)},
    ),
    Case(
        "SN17PruningNear",
        False,
        {**gauge("sn17_prune_position", MINER, 1), **gauge("sn17_immunity_blocks_left", MINER, 500)},
        why="immune",
    ),
    Case(
        "SN17PruningNear",
        False,
        {**gauge("sn17_prune_position", MINER, 40), **gauge("sn17_immunity_blocks_left", MINER, 0)},
    ),
    Case("SN17ChainSnapshotOld", True, gauge("sn17_chain_snapshot_age_seconds", MINER, 4000)),
    Case("SN17ChainSnapshotOld", False, gauge("sn17_chain_snapshot_age_seconds", MINER, 900)),
    Case("SN17MemoryNearLimit", True, ratio(91)),
    Case("SN17MemoryNearLimit", False, ratio(85)),
    Case("SN17MemoryNearLimit", False, ratio(5, 0), why="no limit is no division"),
    Case(
        "SN17MemoryNearLimit",
        False,
        {**ratio(91), f"sn17_model_processes{{{WORKER}}}": "1x298 2x2"},
        why="two model processes live for the time of a swap",
    ),
    Case(
        "SN17MemoryNearLimit",
        True,
        {**ratio(91), f"sn17_model_processes{{{WORKER}}}": "1x200 2x100"},
        why="two that live on are no swap",
    ),
    Case(
        "SN17WorkerRestarts",
        True,
        {f"process_start_time_seconds{{{WORKER}}}": "0+1x300"},
        why="a new start at every sample",
    ),
    Case(
        "SN17WorkerRestarts",
        False,
        {f"process_start_time_seconds{{{WORKER}}}": "1x150 2x150"},
        minutes=170,
        why="one recycle is the operator's daily work",
    ),
    Case(
        "SN17WorkerRefusing",
        True,
        counter("sn17_generations_total", f'{WORKER},kind="task",outcome="memory_refused"', 0.5),
    ),
    Case(
        "SN17WorkerRefusing",
        False,
        counter("sn17_generations_total", f'{WORKER},kind="task",outcome="ok"', 0.5),
    ),
    Case("SN17GpuErrors", True, counter("sn17_gpu_errors_total", f'{WORKER},kind="launch"', 0.1)),
    Case(
        "SN17GpuErrors",
        True,
        {f'sn17_gpu_errors_total{{{WORKER},kind="launch"}}': "_x280 1x2"},
        minutes=283,
        why="the first of its kind, seen twice before the worker ends",
    ),
    Case("SN17GpuErrors", False, counter("sn17_gpu_errors_total", f'{WORKER},kind="launch"', 0)),
    *(
        Case(alert, fires, series, minutes=20, why=why)
        for alert, fires, series, why in (
            ("SN17DeviceUnhealthy", True, gauge("sn17_device_fault", LOST, 1), "the driver says so"),
            ("SN17DeviceUnhealthy", True, breaches("DeviceUnhealthy", 1), "kubelet alone says so"),
            ("SN17DeviceUnhealthy", False, breaches("DeviceUnhealthy", 0) | breaches("GpuError", 1), ""),
            ("SN17ModelFailing", True, gauge("sn17_model_failing_starts", WORKER, 5), ""),
            ("SN17ModelFailing", False, gauge("sn17_model_failing_starts", WORKER, 4), ""),
            ("SN17CanaryDisagrees", True, breaches("CanaryDisagrees", 1), ""),
            ("SN17CanaryDisagrees", False, breaches("CanaryDisagrees", 0), ""),
            ("SN17DeviceSuspect", True, gauge("sn17_suspect_devices", SUSPECT, 1), ""),
            ("SN17DeviceSuspect", False, up(OPERATOR, "1x300"), "no series: no suspect"),
        )
    ),
    Case(
        "SN17GaussiansLow",
        True,
        {
            **gauge("sn17_recent_gaussians_mean", WORKER, 90_000),
            **gauge("sn17_recent_generations", WORKER, 12),
        },
    ),
    Case(
        "SN17GaussiansLow",
        False,
        {
            **gauge("sn17_recent_gaussians_mean", WORKER, 90_000),
            **gauge("sn17_recent_generations", WORKER, 3),
        },
        why="three assets prove nothing",
    ),
    Case(
        "SN17GaussiansLow",
        False,
        {
            **gauge("sn17_recent_gaussians_mean", WORKER, 380_000),
            **gauge("sn17_recent_generations", WORKER, 12),
        },
    ),
    Case(
        "SN17UnrepairableHigh",
        True,
        {
            **counter("sn17_fixes_total", f'{FIXER},policy="measured",verdict="unrepairable"', 0.2),
            **counter("sn17_fixes_total", f'{FIXER},policy="measured",verdict="repaired"', 0.4),
        },
    ),
    Case(
        "SN17UnrepairableHigh",
        False,
        {
            **counter("sn17_fixes_total", f'{FIXER},policy="measured",verdict="unrepairable"', 0.02),
            **counter("sn17_fixes_total", f'{FIXER},policy="measured",verdict="repaired"', 0.4),
        },
    ),
    Case("SN17NoWorkerReady", True, gauge("sn17_ready", WORKER, 0)),
    Case(
        "SN17NoWorkerReady", True, {**up(OPERATOR, "1x300"), **up(WORKER, "0x300")}, why="none is even there"
    ),
    Case(
        "SN17NoWorkerReady",
        False,
        {**gauge("sn17_ready", WORKER, 1), **up(WORKER, "1x300"), **up(OPERATOR, "1x300")},
    ),
    *(
        Case(
            "SN17NoWorkerReady",
            fires,
            {**up(OPERATOR, "1x300"), **gauge("sn17_work_tasks", f'{MINER},state="due"', work)},
            why="scaled to zero",
        )
        for fires, work in ((False, 0), (True, 2))
    ),
    Case(
        "SN17NoWorkerReady",
        False,
        up(f'{STRANGER},job="operator"', "1x300"),
        why="another project's operator has no workers",
    ),
    Case("SN17OperatorDown", True, up(OPERATOR, "0x300")),
    *(
        Case(
            "SN17OperatorDown",
            True,
            up(OPERATOR.replace(HERE, neighbour), "1x300"),
            why="the operator of another release is not ours",
        )
        for neighbour in NEIGHBOURS
    ),
    Case("SN17OperatorDown", True, up(MINER, "1x300"), why="its target is gone altogether"),
    Case("SN17OperatorDown", False, up(OPERATOR, "1x300")),
    Case(
        "SN17OperatorDown",
        True,
        up(f'{STRANGER},job="operator"', "1x300"),
        why="another project's operator is not ours",
    ),
    Case(
        "SN17OperatorDown",
        False,
        {**up(OPERATOR, "1x300"), **up(f'{STRANGER},job="operator"', "0x300")},
        why="another project's operator is down",
    ),
    Case("SN17OperatorDown", False, up(OPERATOR, "1x100 0x2 1x198"), minutes=104, why="a restart"),
    Case("SN17OperatorTickStale", True, gauge("sn17_tick_age_seconds", OPERATOR, 200)),
    Case("SN17OperatorTickStale", False, gauge("sn17_tick_age_seconds", OPERATOR, 12)),
    Case(
        "SN17RemediationBlocked",
        True,
        counter("sn17_blocked_total", f'{OPERATOR},reason="TooManyUnhealthy"', 4),
    ),
    Case(
        "SN17RemediationBlocked",
        False,
        counter("sn17_blocked_total", f'{OPERATOR},reason="Paused"', 4),
        why="a person wanted it so",
    ),
    Case(
        "SN17RemediationBlocked",
        False,
        {f'sn17_blocked_total{{{OPERATOR},reason="Cooldown"}}': "0x100 4 8 8x198"},
        minutes=112,
        why="two ticks",
    ),
    Case(
        "SN17RemediationFailed",
        True,
        counter("sn17_actions_total", f'{OPERATOR},action="Exit",reason="MemoryHigh",outcome="timeout"', 0.2),
    ),
    *(
        Case(
            "SN17RemediationFailed",
            fires,
            {f'sn17_actions_total{{{OPERATOR},action="Exit",reason="MemoryHigh",outcome="timeout"}}': values},
            why=f"{values} ends of a kind that there was none of before",
        )
        for fires, values in ((True, "_x280 2x4 3x20"), (False, "_x280 1x4 2x20"))
    ),
    Case(
        "SN17RemediationFailed",
        False,
        counter("sn17_actions_total", f'{OPERATOR},action="Exit",reason="MemoryHigh",outcome="ok"', 0.2),
    ),
    Case(
        "SN17RemediationFailed",
        False,
        counter(
            "sn17_actions_total", f'{OPERATOR},action="Exit",reason="MemoryHigh",outcome="conflict"', 0.2
        ),
        why="the next tick plans it again",
    ),
    Case("SN17ReplacementPending", True, gauge("sn17_workers", f'{OPERATOR},state="Recycling"', 1)),
    Case("SN17ReplacementPending", False, gauge("sn17_workers", f'{OPERATOR},state="Recycling"', 0)),
    Case(
        "SN17MetricsUnavailable",
        True,
        counter("sn17_prometheus_errors_total", f'{OPERATOR},reason="timeout"', 4),
    ),
    Case(
        "SN17MetricsUnavailable",
        False,
        counter("sn17_prometheus_errors_total", f'{OPERATOR},reason="timeout"', 0),
    ),
    Case("SN17TargetDown", True, up(WORKER, "0x300")),
    Case("SN17TargetDown", False, {**up(WORKER, "1x300"), **up(MINER, "1x300"), **up(FIXER, "1x300")}),
    Case(
        "SN17TargetDown",
        False,
        {**up(WORKER, "1x300"), **up(f'{STRANGER},job="gateway"', "0x300")},
        why="another project's gateway",
    ),
    Case("SN17TargetDown", False, up(WORKER, "1x100 0x4 1x196"), minutes=104, why="a recycle"),
    Case("SN17InternalErrors", True, counter("sn17_internal_errors_total", f'{MINER},where="lane"', 0.1)),
    Case(
        "SN17InternalErrors",
        True,
        {f'sn17_internal_errors_total{{{MINER},where="lane"}}': "_x280 1x20"},
        why="the first of its kind",
    ),
    Case("SN17GatewayQueueWait", True, gauge("sn17_gateway_oldest_wait_seconds", GATEWAY, 400)),
    Case("SN17GatewayQueueWait", False, gauge("sn17_gateway_oldest_wait_seconds", GATEWAY, 30)),
    Case(
        "SN17GatewayErrors",
        True,
        counter("sn17_gateway_errors_total", f'{GATEWAY},route="/add_result",status="503"', 2),
    ),
    Case(
        "SN17GatewayErrors",
        False,
        counter("sn17_gateway_errors_total", f'{GATEWAY},route="/add_task",status="400"', 9),
        why="mistakes of a client",
    ),
    Case("SN17GatewayStorage", True, gauge("sn17_ready", GATEWAY, 0)),
    Case("SN17GatewayStorage", False, gauge("sn17_ready", GATEWAY, 1)),
    Case(
        "SN17GatewayNoWorker",
        True,
        {
            **gauge("sn17_gateway_open_tasks", f'{GATEWAY},state="waiting"', 3),
            **counter("sn17_gateway_deliveries_total", GATEWAY, 0),
        },
    ),
    Case(
        "SN17GatewayNoWorker",
        False,
        {
            **gauge("sn17_gateway_open_tasks", f'{GATEWAY},state="waiting"', 3),
            **counter("sn17_gateway_deliveries_total", GATEWAY, 1),
        },
        why="a long queue that is worked on",
    ),
    Case(
        "SN17GatewayNoWorker",
        False,
        {
            **gauge("sn17_gateway_open_tasks", f'{GATEWAY},state="waiting"', 0),
            **counter("sn17_gateway_deliveries_total", GATEWAY, 0),
        },
        why="nobody asks for anything",
    ),
    Case("SN17InternalErrors", False, counter("sn17_internal_errors_total", f'{MINER},where="lane"', 0)),
    Case(
        "SN17SuccessBurnFast",
        True,
        {**tasks("accepted", "0+0.02x300"), **tasks("rejected", "0+0.3x300")},
        why="nearly everything fails",
    ),
    Case(
        "SN17SuccessBurnFast",
        True,
        {**tasks("accepted", "0+0.02x300"), **tasks("skipped", "0+0.3x300")},
        why="a skipped task was handed out too",
    ),
    Case(
        "SN17SuccessBurnFast",
        False,
        {**tasks("accepted", "0+0.06x300"), **tasks("rejected", "0+0.2x300")},
        why="three of four fail: slower than the fast alert asks for",
    ),
    Case(
        "SN17SuccessBurnFast",
        False,
        {
            **tasks("accepted", "0x280 0+1x20"),
            **tasks("rejected", "0+0.5x280 140x20"),
        },
        why="the last quarter of an hour is well again",
    ),
    Case("SN17SuccessBurnFast", True, tasks("rejected", "0+0.3x300"), why="nothing was ever accepted"),
    Case("SN17SuccessBurnFast", False, tasks("accepted", "0+0.3x300"), why="nothing has ever failed"),
    Case("SN17SuccessBurnFast", False, tasks("rejected", "0+0.1x300"), why="twelve tasks prove nothing"),
    Case(
        "SN17SuccessBurnFast",
        False,
        {**tasks("accepted", "0+0.3x300"), **clients_tasks("given_up", "0+9x300")},
        why="clients are no validators",
    ),
    Case(
        "SN17SuccessBurnFast",
        True,
        {
            **tasks("accepted", "0+0.02x300"),
            **tasks("rejected", "0+0.3x300"),
            **clients_tasks("accepted", "0+9x300"),
        },
        why="a gateway's tasks do not hide it",
    ),
    Case(
        "SN17SuccessBurnSlow",
        False,
        {**tasks("accepted", "0+0.2x1500"), **clients_tasks("given_up", "0+9x1500")},
        minutes=1480,
        why="clients are no validators",
    ),
    Case(
        "SN17SuccessBurnSlow",
        True,
        {**tasks("accepted", "0+0.1x1500"), **tasks("rejected", "0+0.2x1500")},
        minutes=1480,
    ),
    Case(
        "SN17SuccessBurnSlow",
        False,
        {**tasks("accepted", "0+0.2x1500"), **tasks("rejected", "0+0.2x1500")},
        minutes=1480,
        why="as the objective allows",
    ),
    Case(
        "SN17SuccessBurnSlow",
        False,
        {**tasks("accepted", "0+0.01x1500"), **tasks("rejected", "0+0.03x1500")},
        minutes=1480,
        why="sixty tasks in a day prove nothing",
    ),
)


def alerts() -> Iterator[Mapping[str, Any]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


@pytest.fixture(scope="module")
def promtool() -> str:
    try:
        return require_tools(["prometheus"])["promtool"]
    except MissingError as missing:
        unavailable(missing)


def unit(case: Case) -> Mapping[str, Any]:
    firing = f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}}) > bool 0'
    return {
        "name": f"{case.alert}: {'fires' if case.fires else 'silent'} {case.why}".strip(),
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [
            {
                "expr": firing,
                "eval_time": f"{case.minutes}m",
                "exp_samples": [{"labels": "{}", "value": 1}] if case.fires else [],
            }
        ],
    }


def unit_of_others() -> Mapping[str, Any]:
    """Every firing case at once, as series of other releases; a missing operator is this one's own affair."""
    cases = [case for case in CASES if case.fires and case.alert != "SN17OperatorDown"]
    series = [
        {"series": name.replace(HERE, f'namespace="{namespace}",release="{release}"'), "values": values}
        for number, case in enumerate(cases)
        for namespace, release in (("mining", f"second-{number}"), (f"mining-{number}", "sn17"))
        for name, values in case.series.items()
    ]
    expr = 'count by (alertname) (ALERTS{alertname!="SN17OperatorDown",alertstate="firing"})'
    times = sorted({case.minutes for case in cases})
    return {
        "name": "other releases have rules of their own",
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [{"expr": expr, "eval_time": f"{each}m", "exp_samples": []} for each in times],
    }


def rules_as_rendered(chart: Any) -> str:
    release = chart.render("--set", "monitoring.rules.burnRate.enabled=true")
    text: str = release.one("ConfigMap", "sn17-prometheus")["data"]["rules.yml"]
    return text


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_rules_fire_and_stay_silent(chart: Any, promtool: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(rules_as_rendered(chart))
    body = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [unit(c) for c in CASES]}
    (tmp_path / "tests.yml").write_text(json.dumps(body))
    chart.run("promtool", "check", "rules", "--lint=all", str(tmp_path / "rules.yml"))
    chart.run("promtool", "test", "rules", str(tmp_path / "tests.yml"))


@pytest.mark.cluster
def test_rules_judge_their_own_release_only(chart: Any, promtool: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(rules_as_rendered(chart))
    body = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [unit_of_others()]}
    (tmp_path / "tests.yml").write_text(json.dumps(body))
    chart.run("promtool", "test", "rules", str(tmp_path / "tests.yml"))


@pytest.mark.cluster
def test_the_rendered_annotations_read_well(chart: Any, promtool: str, tmp_path: Path) -> None:
    """One alert in full, with its runbook: templates are filled in, not printed."""
    (tmp_path / "rules.yml").write_text(rules_as_rendered(chart))
    case = next(c for c in CASES if c.alert == "SN17MemoryNearLimit" and c.fires)
    expected = {
        "summary": "sn17-trellis-a holds 91% of its memory limit",
        "description": "The operator should have recycled it by now; beyond the limit the kernel kills it.",
        "runbook": "docs/runbooks/SN17MemoryNearLimit.md",
    }
    labels = {"severity": "critical", "pod": "sn17-trellis-a", "namespace": "mining", "release": "sn17"}
    alert = {"exp_labels": labels, "exp_annotations": expected}
    body = {
        **unit(case),
        "promql_expr_test": [],
        "alert_rule_test": [{"eval_time": "300m", "alertname": case.alert, "exp_alerts": [alert]}],
    }
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": [body]}))
    chart.run("promtool", "test", "rules", str(tmp_path / "tests.yml"))


@pytest.mark.cluster
def test_a_missing_operator_is_named_by_its_release(chart: Any, promtool: str, tmp_path: Path) -> None:
    """Without any series of it, so that Alertmanager can route the alert."""
    (tmp_path / "rules.yml").write_text(rules_as_rendered(chart))
    (rule,) = (each for each in alerts() if each["alert"] == "SN17OperatorDown")
    alert = {
        "exp_labels": {"severity": "warning", "namespace": "mining", "release": "sn17"},
        "exp_annotations": {**rule["annotations"], "runbook": "docs/runbooks/SN17OperatorDown.md"},
    }
    expected = {"eval_time": "20m", "alertname": "SN17OperatorDown", "exp_alerts": [alert]}
    body = {"interval": "1m", "input_series": [], "alert_rule_test": [expected]}
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": [body]}))
    chart.run("promtool", "test", "rules", str(tmp_path / "tests.yml"))


@pytest.mark.cluster
def test_a_release_without_an_operator_does_not_miss_it(chart: Any) -> None:
    release = chart.render("--set", "operator.enabled=false")
    text = release.one("ConfigMap", "sn17-prometheus")["data"]["rules.yml"]
    assert "SN17OperatorDown" not in text
    assert "SN17YieldLow" in text


@pytest.mark.cluster
def test_a_wrong_expectation_is_noticed(chart: Any, promtool: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(rules_as_rendered(chart))
    wrong = Case("SN17MemoryNearLimit", False, ratio(99))
    (tmp_path / "tests.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": [unit(wrong)]}))
    with pytest.raises(Exception, match="FAILED"):
        chart.run("promtool", "test", "rules", str(tmp_path / "tests.yml"))


@pytest.mark.cluster
def test_an_alert_can_be_left_out(chart: Any) -> None:
    release = chart.render("--set", "monitoring.rules.disabled={SN17NoTasks}")
    text = release.one("ConfigMap", "sn17-prometheus")["data"]["rules.yml"]
    assert "SN17NoTasks" not in text
    assert "SN17YieldLow" in text


@pytest.mark.cluster
def test_burn_rate_alerts_are_off_by_default_and_refuse_what_cannot_fire(chart: Any) -> None:
    assert "SN17SuccessBurn" not in chart.render().one("ConfigMap", "sn17-prometheus")["data"]["rules.yml"]
    with pytest.raises(
        Exception, match=r"burnRate\.fast: a burn rate of 3 cannot be reached .* most is 2\.00"
    ):
        chart.render("--set-json", 'monitoring.rules.burnRate={"enabled":true,"fast":3}')


def test_every_alert_has_a_firing_and_a_silent_case() -> None:
    names = {rule["alert"] for rule in alerts()}
    assert names == {c.alert for c in CASES if c.fires} == {c.alert for c in CASES if not c.fires}


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    names = {rule["alert"] for rule in alerts()}
    assert {path.stem for path in RUNBOOKS.glob("SN17*.md")} == names
    for name in names:
        text = (RUNBOOKS / f"{name}.md").read_text()
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings == ["Meaning", "Impact", "Diagnosis", "Mitigation"], name


def test_alerts_are_complete_and_scoped() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in {"warning", "critical"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]
        selectors = re.findall(r"\b(?:sn17_\w+|up|process_\w+)\b(.{0,6})", rule["expr"])
        assert selectors, rule["alert"]
        assert all(each.startswith("{@own@") for each in selectors), rule["alert"]


def exported(name: str) -> bool:
    """Whether a service exports a metric of that name, as the contract has it."""
    known = {metric.value for metric in Metric}
    base = re.sub(r"_(total|bucket|sum|count)$", "", name)
    return name in known or base in known


def test_rules_name_only_metrics_and_outcomes_of_the_contract() -> None:
    for rule in alerts():
        expr = rule["expr"]
        for name in re.findall(r"\bsn17_[a-z0-9_]+", expr):
            assert exported(name), (rule["alert"], name)
        outcomes = {o.value for o in Outcome} | {o.value for o in GenerationOutcome} | {"ok"}
        for value in re.findall(r'outcome!?="(\w+)"', expr):
            assert value in outcomes, (rule["alert"], value)
