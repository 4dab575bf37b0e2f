"""What raw series prove, and what they do not."""

from __future__ import annotations

import math

import pytest
from sn17_operator.adapters.local import default_spec
from sn17_operator.core.evidence import Raw, Samples, attribute, within_fleet
from sn17_operator.core.model import Finding, Outcome, Phase, Pod
from sn17_operator.core.policy import judge
from sn17_operator.core.readings import Monitoring, Signal

NOW = 1_700_000_000.0
SPEC = default_spec()
MONITORING = Monitoring(NOW, 35.0, 15.0, {}, NOW - 5, 12.0, 155.0)
"""Prometheus itself and other fleets are scraped fine, and have been for minutes."""


def up(*values: float) -> Raw:
    """The newest scrapes of a worker, a quarter of a minute apart."""
    samples: Samples = tuple((NOW - 5 - 15 * place, value) for place, value in enumerate(values))[::-1]
    return Raw((), {Signal.UP: [samples]} if values else {})


def unreachable(raw: Raw, fleet: list[Raw]) -> Finding:
    pod = Pod("u", "w", "n", 0.0, phase=Phase.RUNNING, container_id="c", started_at=NOW - 3_600, ready=True)
    monitoring = within_fleet(MONITORING, fleet)
    verdict = judge(SPEC, pod, attribute(raw, pod.started_at, {}), monitoring)
    return next(found for found in verdict.findings if found.rule == "Unreachable")


def test_worker_that_cannot_be_scraped_is_unreachable() -> None:
    silent = up(*[0.0] * 10)
    assert unreachable(silent, [silent]).outcome is Outcome.BREACH
    assert unreachable(silent, [silent, silent]).outcome is Outcome.BREACH


def test_worker_that_is_no_target_among_targets_is_unreachable() -> None:
    assert unreachable(up(), [up(), up(1.0, 1.0)]).outcome is Outcome.BREACH


@pytest.mark.parametrize("size", [1, 2, 4])
def test_fleet_that_nobody_tries_to_scrape_is_no_fault_of_its_workers(size: int) -> None:
    """A scrape job that is gone, or whose labels have changed: other targets go on working."""
    assert unreachable(up(), [up()] * size).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("values", [[math.nan] * 10, [math.nan, 1.0], [1.0, math.nan]])
def test_up_that_is_no_number_proves_nothing(values: list[float]) -> None:
    assert unreachable(up(*values), [up(*values)]).outcome is Outcome.UNKNOWN
