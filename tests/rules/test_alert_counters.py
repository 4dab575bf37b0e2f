"""Alerts see the first event: what they count stands at 0 in a service that has just started."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry
from sn17_fixer.app import FixerApp
from sn17_fixer.settings import FixerSettings
from sn17_gateway.metrics import GatewayMetrics
from sn17_miner.metrics import MinerMetrics
from sn17_operator.telemetry import Telemetry
from sn17_service import Service
from sn17_trellis.metrics import RecentTasks, WorkerMetrics
from sn17_trellis.model_process.metrics import ModelMetrics

ROOT = Path(__file__).parents[2]
COUNTED = re.compile(r"(?:increase|rate)\((sn17_\w+_total)(?:\{([^}]*)\})?\[")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
SCRAPED = frozenset({"job", "namespace", "release", "pod", "node"})
"""Labels that Prometheus adds."""
LATER = {
    "SN17RemediationFailed": "too many labels to count each from 0; it takes several failures anyway",
}
TESTS: dict[str, Callable[[str, str], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "=~": lambda value, pattern: re.fullmatch(pattern, value) is not None,
    "!~": lambda value, pattern: re.fullmatch(pattern, value) is None,
}


def rules() -> Iterator[tuple[str, str]]:
    for file in sorted((ROOT / "charts/sn17/rules").glob("*.yaml")):
        text = file.read_text().replace("{@own@}", "").replace("@own@,", "")
        for group in yaml.safe_load(re.sub(r"@\w+@", "1", text))["groups"]:
            for rule in group["rules"]:
                yield rule["alert"], rule["expr"]


def counted() -> Iterator[tuple[str, str, str]]:
    """Alert, counter and its matchers, wherever the rule does not take a young series at its value."""
    for alert, expression in rules():
        for name, matchers in COUNTED.findall(expression):
            if alert not in LATER and f"unless {name} offset" not in expression:
                yield alert, name, matchers


@pytest.fixture(scope="module")
def fresh() -> list[tuple[str, dict[str, str]]]:
    """What services export before anything has happened; the miner has read which validators there are."""
    registries = [CollectorRegistry() for _ in range(4)]
    MinerMetrics(registries[0], ("validators", "home")).known(["5aaaaaaaaaaa"])
    GatewayMetrics(registries[1])
    Telemetry(registries[2], lambda: 0.0)
    WorkerMetrics(
        registries[3],
        RecentTasks(lambda: 0.0),
        gpu_memory=dict,
        self_recycles=lambda: 0,
        jobs_in_flight=lambda: 0,
        failing=lambda: False,
    )
    ModelMetrics(registries[3])
    settings = FixerSettings(warm_up=False)
    service = Service("fixer", "0", settings)
    FixerApp(service, settings).close()
    return [
        (sample.name, sample.labels)
        for registry in (*registries, service.registry)
        for family in registry.collect()
        for sample in family.samples
    ]


def test_rules_count_something() -> None:
    assert len(set(counted())) >= 12


@pytest.mark.parametrize(("alert", "name", "matchers"), sorted(set(counted())))
def test_a_counter_of_an_alert_begins_at_zero(
    fresh: list[tuple[str, dict[str, str]]], alert: str, name: str, matchers: str
) -> None:
    wanted = [found for found in MATCHER.findall(matchers) if found[0] not in SCRAPED]
    assert any(
        sample == name and all(TESTS[sign](labels.get(label, ""), value) for label, sign, value in wanted)
        for sample, labels in fresh
    ), f"{alert}: no fresh service exports {name}{{{matchers}}}"
