"""NVSentinel's custom drain against a real API server: the test is its node-drainer, and kubelet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17_chaos.operator_process import OperatorProcess, running
from sn17_chaos.real_fleet import Fleet
from sn17_chaos.waiting import wait_for
from sn17_cluster.client import Cluster
from sn17_operator.core.drains import DrainRequest, answer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

KIND = "drainrequests.nvsentinel.nvidia.com"
NODE = "gpu-node"


@given(
    pods=st.dictionaries(st.sampled_from(["ours", "theirs"]), st.lists(st.sampled_from("abc"), unique=True)),
    present=st.dictionaries(st.sampled_from("abc"), st.booleans()),
)
def test_done_is_said_when_every_listed_pod_is_gone_and_of_no_others(
    pods: dict[str, list[str]], present: dict[str, bool]
) -> None:
    request = DrainRequest("r", NODE, {space: tuple(names) for space, names in pods.items()})
    found = answer(request, "ours", present)
    left = set(pods.get("ours", ())) & set(present)
    assert found.done == (not left and not pods.get("theirs"))
    assert set(found.evict) == {name for name in left if not present[name]}


@pytest.fixture
def sentinel(api_with_crd: Cluster) -> Iterator[str]:
    """The namespace of NVSentinel, with the kind that a drain plug-in brings."""
    text = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    pods = {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}}
    spec = {"type": "object", "properties": {"nodeName": {"type": "string"}, "podsToDrain": pods}}
    schema = {"type": "object", "properties": {"spec": spec, "status": text}}
    api_with_crd.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": KIND},
            "spec": {
                "group": "nvsentinel.nvidia.com",
                "scope": "Namespaced",
                "names": {"kind": "DrainRequest", "plural": "drainrequests", "singular": "drainrequest"},
                "versions": [
                    {
                        "name": "v1alpha1",
                        "served": True,
                        "storage": True,
                        "subresources": {"status": {}},
                        "schema": {"openAPIV3Schema": schema},
                    }
                ],
            },
        }
    )
    api_with_crd.wait_established(KIND)
    with api_with_crd.namespace("nvsentinel") as namespace:
        yield namespace


def grant(fleet: Fleet, sentinel: str) -> None:
    """What operator.nvsentinel.namespace adds to the operator's rights."""
    rules = [
        {"apiGroups": ["nvsentinel.nvidia.com"], "resources": ["drainrequests"], "verbs": ["list"]},
        {"apiGroups": ["nvsentinel.nvidia.com"], "resources": ["drainrequests/status"], "verbs": ["patch"]},
    ]
    api, name = "rbac.authorization.k8s.io", {"name": "sn17-operator"}
    subject = {"kind": "ServiceAccount", **name, "namespace": fleet.namespace}
    fleet.cluster.apply(
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": name, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": name,
            "roleRef": {"apiGroup": api, "kind": "Role", **name},
            "subjects": [subject],
        },
        namespace=sentinel,
    )


def pod(name: str) -> Mapping[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "sn17"}},
        "spec": {
            "nodeName": NODE,
            "terminationGracePeriodSeconds": 180,
            "containers": [{"name": "trellis", "image": "none"}],
        },
    }


def test_a_drain_request_is_done_when_the_jobs_are(fleet: Fleet, sentinel: str, tmp_path: Path) -> None:
    cluster, namespace = fleet.cluster, fleet.namespace
    cluster.apply(pod("a"), pod("b"), pod("stays"), namespace=namespace)
    operator = OperatorProcess(fleet, tmp_path, SN17_NVSENTINEL_NAMESPACE=sentinel)
    grant(fleet, sentinel)

    def request(name: str, pods: Mapping[str, list[str]]) -> None:
        spec = {"nodeName": NODE, "podsToDrain": pods}
        body = {"apiVersion": "nvsentinel.nvidia.com/v1alpha1", "kind": "DrainRequest", "spec": spec}
        cluster.apply({**body, "metadata": {"name": name}}, namespace=sentinel)

    def said(name: str) -> tuple[str, str]:
        status = cluster.get(KIND, name, namespace=sentinel).get("status") or {}
        found = {c["type"]: (c["status"], c["reason"]) for c in status.get("conditions", [])}
        return found.get("DrainComplete", ("", ""))

    def end(name: str) -> None:
        """kubelet's part: the container has ended."""
        cluster.kubectl("delete", "pod", name, "-n", namespace, "--grace-period=0", "--force")

    def ending() -> set[str]:
        pods = cluster.get("pods", namespace=namespace)
        return {p["metadata"]["name"] for p in pods if "deletionTimestamp" in p["metadata"]}

    with running(operator):
        request("ours", {namespace: ["a", "b", "gone"]})
        wait_for("the eviction", lambda: ending() == {"a", "b"})
        wait_for("the answer", lambda: said("ours") == ("False", "WaitingForJobs"))
        end("a")
        assert said("ours")[0] == "False"
        end("b")
        wait_for("the end", lambda: said("ours") == ("True", "Drained"))
        request("mixed", {namespace: [], "default": ["somebody-elses"]})
        wait_for("the answer", lambda: said("mixed") == ("False", "OtherNamespaces"))
        assert ending() == set()
    end("stays")
    assert json.loads(cluster.kubectl("get", "pods", "-n", namespace, "-o", "json"))["items"] == []
