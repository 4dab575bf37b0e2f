"""Every constraint of the SN17Miner: a value that the API server takes and one that it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from real_fleet import CRD
from sn17_cluster.client import Cluster, CommandError

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def namespace(api_with_crd: Cluster) -> Iterator[str]:
    with api_with_crd.namespace("crd") as name:
        yield name


def miner(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "sn17.io/v1alpha1",
        "kind": "SN17Miner",
        "metadata": {"name": "m"},
        "spec": {"targetRef": {"name": "workers"}, **spec},
    }


def create(cluster: Cluster, namespace: str, spec: dict[str, Any]) -> None:
    cluster.kubectl("create", "-n", namespace, "--dry-run=server", "-f", "-", stdin=json.dumps(miner(spec)))


def rule(name: str, **values: Any) -> dict[str, Any]:
    return {"rules": {name: values}}


CASES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"targetRef": {"name": "a.b-c"}}, {"targetRef": {"name": "A_b"}}, "targetRef.name"),
    ({"targetRef": {"name": "a"}}, {"targetRef": {"name": ""}}, "targetRef.name"),
    ({"targetRef": {"name": "a" * 253}}, {"targetRef": {"name": "a" * 254}}, "targetRef.name"),
    ({"minerRef": {"name": "a"}}, {"minerRef": {}}, "minerRef.name"),
    ({"minerRef": {"name": "a"}}, {"minerRef": {"name": "-"}}, "minerRef.name"),
    ({"hotkeySecretName": "k"}, {"hotkeySecretName": "K"}, "hotkeySecretName"),
    ({"mode": "Observe"}, {"mode": "Watch"}, "mode"),
    ({"strategy": "EvictPod"}, {"strategy": "DeletePod"}, "strategy"),
    ({"maxUnavailable": 1}, {"maxUnavailable": 0}, "maxUnavailable"),
    ({"maxUnavailable": "100%"}, {"maxUnavailable": "101%"}, "maxUnavailable"),
    ({"maxUnavailable": "1%"}, {"maxUnavailable": "0%"}, "maxUnavailable"),
    ({"maxUnavailable": 100000}, {"maxUnavailable": 100001}, "maxUnavailable"),
    ({"maxUnhealthy": "50%"}, {"maxUnhealthy": "half"}, "maxUnhealthy"),
    ({"maxUnhealthy": 3}, {"maxUnhealthy": -1}, "maxUnhealthy"),
    ({"workers": {"container": "w"}}, {"workers": {"container": "W"}}, "workers.container"),
    ({"workers": {"opsPort": 65535}}, {"workers": {"opsPort": 65536}}, "workers.opsPort"),
    ({"workers": {"opsPort": 1}}, {"workers": {"opsPort": 0}}, "workers.opsPort"),
    (rule("memory", clearPercent=79), rule("memory", clearPercent=80), "clearPercent must be below"),
    (rule("memory", emergencyPercent=81), rule("memory", emergencyPercent=80), "highPercent must be below"),
    (rule("memory", highForSeconds=600), rule("memory", highForSeconds=601), "highForSeconds"),
    (rule("memory", clearForSeconds=0), rule("memory", clearForSeconds=-1), "clearForSeconds"),
    (rule("memory", emergencyPercent=100), rule("memory", emergencyPercent=101), "emergencyPercent"),
    (rule("memory", clearPercent=1), rule("memory", clearPercent=0), "clearPercent"),
    (rule("memory", action="Off"), rule("memory", action="Never"), "action"),
    (rule("gaussians", minimumMean=1), rule("gaussians", minimumMean=0), "minimumMean"),
    (rule("gaussians", minimumGenerations=1), rule("gaussians", minimumGenerations=0), "minimumGenerations"),
    (rule("gaussians", windowSeconds=60), rule("gaussians", windowSeconds=59), "windowSeconds"),
    (rule("canary", driftPercent=100), rule("canary", driftPercent=101), "driftPercent"),
    (rule("slow", p50Seconds=1), rule("slow", p50Seconds=0), "p50Seconds"),
    (rule("slow", minimumGenerations=10000), rule("slow", minimumGenerations=10001), "minimumGenerations"),
    (rule("stalled", afterSeconds=10), rule("stalled", afterSeconds=9), "afterSeconds"),
    (rule("unreachable", afterSeconds=600), rule("unreachable", afterSeconds=601), "afterSeconds"),
    (rule("gpuErrors", maximum=0), rule("gpuErrors", maximum=-1), "maximum"),
    ({"drain": {"leaseSeconds": 30}}, {"drain": {"leaseSeconds": 29}}, "leaseSeconds must be at least 30"),
    ({"drain": {"timeoutSeconds": 1}}, {"drain": {"timeoutSeconds": 0}}, "timeoutSeconds"),
    ({"recycle": {"exitTimeoutSeconds": 10}}, {"recycle": {"exitTimeoutSeconds": 9}}, "exitTimeoutSeconds"),
    (
        {"recycle": {"replacementTimeoutSeconds": 30}},
        {"recycle": {"replacementTimeoutSeconds": 29}},
        "replacementTimeoutSeconds",
    ),
    ({"recycle": {"cooldownSeconds": 0}}, {"recycle": {"cooldownSeconds": -1}}, "cooldownSeconds"),
    ({"recycle": {"stormCooldownSeconds": 0}}, {"recycle": {"stormCooldownSeconds": -1}}, "stormCooldown"),
    ({"recycle": {"youngSeconds": 0}}, {"recycle": {"youngSeconds": -1}}, "youngSeconds"),
    ({"recycle": {"leftoverPercent": 1}}, {"recycle": {"leftoverPercent": 0}}, "leftoverPercent"),
    ({"recycle": {"maximumEvictions": 1}}, {"recycle": {"maximumEvictions": 0}}, "maximumEvictions"),
    (
        {"recycle": {"evictionWindowSeconds": 60}},
        {"recycle": {"evictionWindowSeconds": 59}},
        "evictionWindow",
    ),
    ({"nodeSuspect": {"minimumWorkers": 2}}, {"nodeSuspect": {"minimumWorkers": 1}}, "minimumWorkers"),
]


@pytest.mark.parametrize(
    ("accepted", "refused", "why"), CASES, ids=[json.dumps(case[1])[:60] for case in CASES]
)
def test_constraint(
    api_with_crd: Cluster, namespace: str, accepted: dict[str, Any], refused: dict[str, Any], why: str
) -> None:
    create(api_with_crd, namespace, accepted)
    with pytest.raises(CommandError, match=why.replace(".", r"\.")):
        create(api_with_crd, namespace, refused)


def test_spec_is_required_and_the_target_in_it(api_with_crd: Cluster, namespace: str) -> None:
    for body in ({}, {"spec": {}}):
        text = json.dumps(
            {"apiVersion": "sn17.io/v1alpha1", "kind": "SN17Miner", "metadata": {"name": "m"}, **body}
        )
        with pytest.raises(CommandError, match="Required"):
            api_with_crd.kubectl("create", "-n", namespace, "--dry-run=server", "-f", "-", stdin=text)


def test_unknown_field_is_told(api_with_crd: Cluster, namespace: str) -> None:
    text = json.dumps(miner({"maxUnavailible": 1}))
    with pytest.raises(CommandError, match="unknown field"):
        api_with_crd.kubectl(
            "create", "-n", namespace, "--validate=strict", "--dry-run=server", "-f", "-", stdin=text
        )


def test_target_is_immutable_and_defaults_are_those_of_the_models(
    api_with_crd: Cluster, namespace: str
) -> None:
    from sn17_operator.api import Spec

    api_with_crd.apply(miner({}), namespace=namespace)
    stored = api_with_crd.get("sn17miner", "m", namespace=namespace)["spec"]
    expected = Spec.model_validate({"targetRef": {"name": "workers"}}).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    assert stored == expected
    with pytest.raises(CommandError, match="targetRef may not change"):
        api_with_crd.apply(miner({"targetRef": {"name": "others"}}), namespace=namespace)
    api_with_crd.apply(miner({"mode": "Observe"}), namespace=namespace)


def test_columns(api_with_crd: Cluster, namespace: str) -> None:
    api_with_crd.apply(miner({}), namespace=namespace)
    narrow = api_with_crd.kubectl("get", "snm", "-n", namespace).splitlines()[0].split()
    assert narrow == [
        "NAME",
        "READY",
        "CORDONED",
        "RECYCLING",
        "GAUSSIANS",
        "MEMORY",
        "SUCCESS",
        "STATUS",
        "AGE",
    ]
    wide = api_with_crd.kubectl("get", "sn17", "-o", "wide", "-n", namespace).splitlines()[0].split()
    assert {"OOMS", "LAST-RECYCLE", "PAUSED", "PROMETHEUS"} <= set(wide)


def test_committed_definition_is_the_generated_one() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "sn17_operator", "crd"], capture_output=True, text=True, check=True
    ).stdout
    assert CRD.read_text() == made
