"""Every constraint of the SN17Miner: a value that the API server takes and one that it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from kubernetes.aio import config
from kubernetes.aio.client.configuration import Configuration
from sn17_chaos.real_fleet import CRD
from sn17_cluster.client import Cluster, CommandError
from sn17_operator.adapters.kube import ApiError, KubeApi
from sn17_operator.crd import crd

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


@pytest.fixture
async def kube(api_with_crd: Cluster) -> AsyncIterator[KubeApi]:
    configuration = Configuration()
    await config.load_kube_config(str(api_with_crd.kubeconfig), client_configuration=configuration)
    api = KubeApi(configuration)
    yield api
    await api.close()


# --- every constraint that the generated definition has ------------------------------------------------


@dataclass(frozen=True)
class Constraint:
    """One keyword of the schema at one field."""

    path: tuple[str, ...]
    keyword: str
    bound: Any

    def __str__(self) -> str:
        return f"{'.'.join(self.path)} {self.keyword} {self.bound}"


KEYWORDS = ("minimum", "maximum", "minLength", "maxLength", "pattern", "enum", "required")
NOT_CONSTRAINTS = {
    "type", "format", "default", "description", "properties", "anyOf",
    "x-kubernetes-validations", "x-kubernetes-int-or-string",
}  # fmt: skip


def constraints(node: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[Constraint]:
    assert set(node) <= {*KEYWORDS, *NOT_CONSTRAINTS}, f"{path}: no test knows {set(node)}"
    for keyword in KEYWORDS:
        for bound in node.get(keyword, ()) if keyword == "required" else [node.get(keyword)]:
            if bound is not None:
                yield Constraint(path, keyword, bound)
    for validation in node.get("x-kubernetes-validations", ()):
        yield Constraint(path, "CEL", validation["message"])
    for name, child in node.get("properties", {}).items():
        yield from constraints(child, (*path, name))


SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
ALL = tuple(constraints(SCHEMA))

COMPANIONS: dict[tuple[str, str], dict[str, int]] = {
    # The three marks of memory must stay in order, so their outermost values need the others' company.
    ("highPercent", "minimum"): {"highPercent": 2, "clearPercent": 1},
    ("highPercent", "maximum"): {"highPercent": 99, "emergencyPercent": 100},
    ("clearPercent", "maximum"): {"clearPercent": 98, "highPercent": 99, "emergencyPercent": 100},
    ("emergencyPercent", "minimum"): {"emergencyPercent": 3, "highPercent": 2, "clearPercent": 1},
}

SHARE = "must be a number of workers from 1, or a share from 1% to 100%"
CEL: dict[tuple[str, str], tuple[list[Any], list[Any]]] = {
    ("maxUnavailable", SHARE): (
        [1, 100_000, "1%", "25%", "100%"],
        [0, -1, 100_001, "0%", "101%", "half", "5"],
    ),
    ("maxUnhealthy", SHARE): ([1, 100_000, "1%", "50%", "100%"], [0, -1, 100_001, "0%", "101%", "half", "5"]),
    ("rules.memory", "clearPercent must be below highPercent"): (
        [{"clearPercent": 79}],
        [{"clearPercent": 80}, {"highPercent": 70}],
    ),
    ("rules.memory", "highPercent must be below emergencyPercent"): (
        [{"emergencyPercent": 81}],
        [{"emergencyPercent": 80}, {"highPercent": 90}],
    ),
}
"""Accepted and refused values of each rule; the one about changes has a test of its own."""
OF_CHANGES = {("targetRef", "targetRef may not change: create another SN17Miner instead")}


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    found: dict[str, Any] = value
    return found


def cases(constraint: Constraint) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Specs that keep just within the constraint, and specs that are just beyond it."""
    path, keyword, bound = constraint.path, constraint.keyword, constraint.bound
    match keyword:
        case "minimum" | "maximum":
            beyond = bound - 1 if keyword == "minimum" else bound + 1
            companions = COMPANIONS.get((path[-1], keyword))
            within = nested(path, bound) if companions is None else nested(path[:-1], companions)
            return [within], [nested(path, beyond)]
        case "minLength":
            return [nested(path, "a" * bound)], [nested(path, "a" * (bound - 1))]
        case "maxLength":
            return [nested(path, "a" * bound)], [nested(path, "a" * (bound + 1))]
        case "pattern":
            return [nested(path, "a-b")], [nested(path, text) for text in ("A", "a_b", "-a", "a-")]
        case "enum":
            return [nested(path, value) for value in bound], [nested(path, bound[0].lower())]
        case "required":
            return [nested((*path, bound), {"name": "a"} if bound == "targetRef" else "a")], (
                [nested(path, {})] if path else [{"targetRef": None}]
            )
        case _:
            accepted, refused = CEL[".".join(path), bound]
            return [nested(path, value) for value in accepted], [nested(path, value) for value in refused]


def test_every_rule_of_the_definition_has_its_cases() -> None:
    rules = {(".".join(c.path), c.bound) for c in ALL if c.keyword == "CEL"}
    assert rules == {*CEL, *OF_CHANGES}


@pytest.mark.parametrize(
    "constraint",
    [c for c in ALL if c.keyword != "CEL" or (".".join(c.path), c.bound) not in OF_CHANGES],
    ids=str,
)
async def test_constraint_accepts_and_refuses(kube: KubeApi, namespace: str, constraint: Constraint) -> None:
    accepted, refused = cases(constraint)
    path = f"/apis/sn17.io/v1alpha1/namespaces/{namespace}/sn17miners"
    for spec in accepted:
        await kube.request("POST", path, query={"dryRun": "All"}, body=miner(spec))
    for spec in refused:
        with pytest.raises(ApiError) as error:
            await kube.request("POST", path, query={"dryRun": "All"}, body=miner(spec))
        assert error.value.status == 422
        where = (*constraint.path, *([constraint.bound] if constraint.keyword == "required" else []))
        assert ".".join(("spec", *where)) in str(error.value)
        if constraint.keyword == "CEL":
            assert constraint.bound in str(error.value)


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
    assert {"OOMS", "SWAPS", "LAST-RECYCLE", "PAUSED", "PROMETHEUS"} <= set(wide)


def test_committed_definition_is_the_generated_one() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "sn17_operator", "crd"], capture_output=True, text=True, check=True
    ).stdout
    assert CRD.read_text() == made
