"""What a GitOps tool meets, which renders the chart without a cluster each time it compares."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.cluster

EVERYTHING = ("--set", "gateway.enabled=true,gateway.guests.enabled=true,admissionPolicies.enabled=true")
NAMED = (
    "--set",
    "adminToken.existingSecret=admin,grafana.existingSecret=grafana,gateway.guests.existingSecret=guests",
)


@pytest.mark.parametrize("tool", ["helm", "helm3"])
def test_two_renders_are_the_same_once_the_secrets_are_named(chart: Any, tool: str) -> None:
    first, second = (chart.text(*EVERYTHING, *NAMED, tool=tool) for _ in range(2))
    assert first == second


def test_else_these_three_secrets_differ_and_nothing_that_restarts_a_pod(chart: Any) -> None:
    first, second = (chart.render(*EVERYTHING).objects for _ in range(2))
    different = [a for a, b in zip(first, second, strict=True) if a != b]
    assert {(o["kind"], o["metadata"]["name"]) for o in different} == {
        ("Secret", "sn17-admin-token"),
        ("Secret", "sn17-grafana"),
        ("Secret", "sn17-gateway-guests"),
    }


def test_hooks_are_the_test_and_the_upgrade_of_the_crd(chart: Any) -> None:
    hooks = {
        (o["kind"], o["metadata"]["name"], o["metadata"].get("annotations", {}).get("helm.sh/hook"))
        for o in chart.render(*EVERYTHING).objects
    }
    assert {each for each in hooks if each[2]} == {
        ("ServiceAccount", "sn17-smoke", "test"),
        ("Pod", "sn17-smoke", "test"),
    }


def test_the_number_of_workers_is_the_only_field_that_an_autoscaler_changes(chart: Any) -> None:
    release = chart.render("--set", "trellis.autoscaling.kind=keda,fixer.autoscaling.enabled=true")
    assert release.one("Deployment", "sn17-trellis")["spec"]["replicas"] == 1
    assert "replicas" not in release.one("Deployment", "sn17-fixer")["spec"]
    assert "replicas" not in release.one("SN17Miner", "sn17")["spec"]
