"""Autoscaling by one value: what it renders, what it lets the operator do, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from chart_cases import ChartError
from sn17_contract.metrics import Metric
from sn17_operator.api import ReplicasOwner, Spec

pytestmark = pytest.mark.cluster


def scalers(release: Any) -> list[Any]:
    found = release.of("HorizontalPodAutoscaler", "ScaledObject")
    return [each for each in found if each["metadata"]["name"].endswith("-trellis")]


def test_off_it_grants_and_owns_nothing(rendered: Callable[[str], Any], preset: str) -> None:
    release = rendered(preset)
    assert not scalers(release)
    spec = Spec.model_validate(release.of("SN17Miner")[0]["spec"])
    assert (spec.scale.owner, spec.scale.deletion_cost) == (ReplicasOwner.DEPLOYMENT, False)


@pytest.mark.parametrize("kind", ["autoscaling-hpa", "autoscaling-keda"])
def test_the_miner_is_scaled_and_the_operator_may_follow_and_no_more(
    rendered: Callable[[str], Any], kind: str
) -> None:
    release, plain = rendered(kind), rendered("default")
    spec = Spec.model_validate(release.of("SN17Miner")[0]["spec"])
    assert (spec.scale.owner, spec.scale.deletion_cost, spec.replicas) == (
        ReplicasOwner.SN17MINER,
        True,
        None,
    )
    (scaler,) = scalers(release)
    target = {"apiVersion": "sn17.io/v1alpha1", "kind": "SN17Miner", "name": "sn17"}
    assert scaler["spec"]["scaleTargetRef"] == target
    given = plain.one("Role", "sn17-operator")["rules"]
    more = [rule for rule in release.one("Role", "sn17-operator")["rules"] if rule not in given]
    assert [(rule["resources"], rule["resourceNames"], rule["verbs"]) for rule in more] == [
        (["sn17miners"], ["sn17"], ["patch"]),
        (["deployments/scale"], ["sn17-trellis"], ["patch"]),
    ]


def test_both_ask_for_the_miners_metric_and_take_no_data_for_no_answer(
    rendered: Callable[[str], Any],
) -> None:
    (hpa,) = rendered("autoscaling-hpa").of("HorizontalPodAutoscaler")
    (metric,) = hpa["spec"]["metrics"]
    assert metric["external"]["metric"]["name"] == Metric.WORK_TASKS
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "1"}
    (keda,) = rendered("autoscaling-keda").of("ScaledObject")
    (trigger,) = keda["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    assert re.fullmatch(rf'sum\({Metric.WORK_TASKS}{{namespace="mining",release="sn17"}}\)', query)
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert trigger["metadata"]["serverAddress"] == "http://sn17-prometheus.mining.svc.cluster.local:9090"
    assert (keda["spec"]["minReplicaCount"], keda["spec"]["maxReplicaCount"]) == (0, 4)


def test_keda_gets_the_credentials_it_is_given_and_none_by_default(rendered: Callable[[str], Any]) -> None:
    (keda,) = rendered("autoscaling-keda-credentials").of("ScaledObject")
    (trigger,) = keda["spec"]["triggers"]
    assert trigger["authenticationRef"] == {"name": "prometheus", "kind": "TriggerAuthentication"}
    assert trigger["metadata"]["authModes"] == "tls,bearer"
    assert trigger["metadata"]["customHeaders"] == "X-Scope-OrgID=team"
    assert trigger["metadata"]["serverAddress"] == "https://prometheus.monitoring:9090"
    (plain,) = rendered("autoscaling-keda").of("ScaledObject")
    (trigger,) = plain["spec"]["triggers"]
    assert "authenticationRef" not in trigger
    assert not {"authModes", "customHeaders"} & trigger["metadata"].keys()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("kind=hpa", "goes to zero from Kubernetes 1.37 on"),
        ("kind=keda,trellis.autoscaling.minReplicas=9", "minReplicas must not be above maxReplicas"),
        ("kind=keda,operator.enabled=false", "only the operator carries the count"),
        ("kind=keda,miner.enabled=false", "only the miner knows how much work there is"),
        ("kind=vpa", "kind"),
        ("kind=keda,trellis.autoscaling.keda.authModes={bearer}", "name the TriggerAuthentication"),
        ("kind=keda,trellis.autoscaling.keda.authModes={token}", "authModes"),
        ("kind=keda,prometheus.headers.X-Team=a\\,b", "KEDA takes no header with a comma"),
    ],
)
def test_what_cannot_work_is_refused_with_a_way_out(chart: Any, values: str, said: str) -> None:
    with pytest.raises(ChartError, match=said):
        chart.render("--set", f"trellis.autoscaling.{values}")


def test_an_hpa_goes_to_zero_where_kubernetes_lets_it(chart: Any) -> None:
    newer = chart.render("--set", "trellis.autoscaling.kind=hpa", "--kube-version=1.37.0")
    assert newer.of("HorizontalPodAutoscaler")[0]["spec"]["minReplicas"] == 0
