"""What is made of a cluster's answers, without one: each check fails, passes and does not know."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17.doctor.model import Outcome, ProbeError
from sn17.doctor.release.access import (
    NEEDED_BY_OPERATOR,
    Definition,
    Right,
    Rights,
    judge_definition,
    judge_rights,
    needed_by_people,
)
from sn17.doctor.release.images import Answer, Image, judge_images
from sn17.doctor.release.objects import ReleaseObjects, models_missing, unscheduled
from sn17.doctor.release.policies import (
    End,
    Policies,
    Way,
    closed_by,
    judge_no_policies,
    judge_policies,
    selects,
)
from sn17.doctor.release.prometheus import service_path
from sn17.doctor.release.registry import DOCKER_HUB, Reference, logins_of
from sn17.doctor.release.scraping import NEEDED_LABELS, Scraping, Target, Worker, judge_scraping
from sn17.doctor.release.state import HotkeySecret, Workers, judge_nodes, judge_release_models, judge_secret
from sn17.doctor.release.ways import INSIDE, needed_ways
from sn17_operator.crd import crd

DOCS = Path(__file__).resolve().parents[3] / "docs" / "network.md"
NAMESPACE = "mining"
RIGHTS = Rights("https://api", "v1.34", "me", NAMESPACE)


def established(definition: Mapping[str, Any]) -> dict[str, Any]:
    return {**definition, "status": {"conditions": [{"type": "Established", "status": "True"}]}}


def test_rights_that_lack_are_granted_by_verb_and_nothing_more() -> None:
    assert judge_rights(RIGHTS).outcome is Outcome.OK
    found = judge_rights(
        replace(
            RIGHTS, lacks=(Right("get", "pods/proxy"), Right("list", "pods"), Right("patch", "x", "a.io"))
        )
    )
    assert found.outcome is Outcome.FAILED
    roles = re.findall(r"create role (\S+) -n mining --verb=(\S+) --resource=(\S+)", found.command)
    assert [role[1:] for role in roles] == [("get", "pods/proxy"), ("list", "pods"), ("patch", "x.a.io")]
    assert found.command.count("--user=me") == 3


def test_a_release_needs_its_admin_tokens_secret_and_no_other() -> None:
    assert not [right for right in needed_by_people(None) if right.resource == "secrets"]
    (secret,) = [right for right in needed_by_people("token") if right.resource == "secrets"]
    found = judge_rights(replace(RIGHTS, lacks=(secret, Right("get", "pods"))))
    assert "may not get secrets token, get pods" in found.said
    roles = re.findall(r"--verb=(\S+) --resource=(\S+)(?: --resource-name=(\S+))?", found.command)
    assert sorted(roles) == [("get", "pods", ""), ("get", "secrets", "token")]


def test_an_operator_whose_rights_nobody_tells_is_unknown() -> None:
    operator = f"system:serviceaccount:{NAMESPACE}:sn17-operator"
    assert judge_rights(replace(RIGHTS, operator=operator)).outcome is Outcome.OK
    assert judge_rights(replace(RIGHTS, operator=operator, operator_lacks=None)).outcome is Outcome.UNKNOWN
    lacking = judge_rights(replace(RIGHTS, operator=operator, operator_lacks=NEEDED_BY_OPERATOR[:2]))
    assert lacking.outcome is Outcome.FAILED
    assert f"--serviceaccount={NAMESPACE}:sn17-operator" in lacking.command


def test_a_definition_is_fine_only_with_just_the_fields_of_this_version() -> None:
    wanted = crd()
    assert judge_definition(Definition(established(wanted), wanted), "apply").outcome is Outcome.OK
    assert judge_definition(Definition(wanted, wanted), "apply").outcome is Outcome.UNKNOWN
    absent = judge_definition(Definition(None, wanted), "apply")
    assert (absent.outcome, absent.command) == (Outcome.FAILED, "apply")
    older = copy.deepcopy(wanted)
    spec = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    gone = sorted(spec)[0]
    spec["more"] = spec.pop(gone)
    found = judge_definition(Definition(established(older), wanted), "apply")
    assert found.outcome is Outcome.FAILED
    assert f"lacks spec.{gone}" in found.said
    assert "has besides spec.more" in found.said
    other = copy.deepcopy(wanted)
    other["spec"]["versions"][0]["name"] = "v1"
    assert "only v1" in judge_definition(Definition(established(other), wanted), "apply").said


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer.RUNNING, Outcome.OK),
        (Answer.THERE, Outcome.OK),
        (Answer.ABSENT, Outcome.FAILED),
        (Answer.REFUSED, Outcome.FAILED),
        (Answer.PULL_FAILED, Outcome.FAILED),
        (Answer.SILENT, Outcome.UNKNOWN),
        (Answer.PRELOADED, Outcome.UNKNOWN),
    ],
)
def test_an_image_is_fine_only_where_somebody_has_it(answer: Answer, outcome: Outcome) -> None:
    good = Image("r.io/a:1", Answer.RUNNING)
    assert judge_images([good, Image("r.io/b:1", answer)], NAMESPACE).outcome is outcome


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("prometheus", (DOCKER_HUB, "library/prometheus", "latest")),
        ("grafana/grafana:12", (DOCKER_HUB, "grafana/grafana", "12")),
        ("docker.io/grafana/grafana:12", (DOCKER_HUB, "grafana/grafana", "12")),
        ("quay.io/prometheus/prometheus:v3", ("quay.io", "prometheus/prometheus", "v3")),
        ("localhost:5000/a", ("localhost:5000", "a", "latest")),
        ("r.io/a/b/c@sha256:12", ("r.io", "a/b/c", "sha256:12")),
    ],
)
def test_references_are_read_as_docker_reads_them(text: str, parts: tuple[str, str, str]) -> None:
    found = Reference.parse(text)
    assert (found.host, found.repository, found.tag) == parts


def test_logins_of_pull_secrets_in_both_forms() -> None:
    text = b'{"auths": {"https://r.io": {"auth": "bWU6cHc="}, "q.io": {"username": "a", "password": "b"}}}'
    assert logins_of(text) == {"r.io": ("me", "pw"), "q.io": ("a", "b")}
    assert logins_of(b"[]") == {} == logins_of(b"{") == logins_of(b'{"auths": {"r.io": {}}}')


WORKER = Worker("w-1", "u-1", "10.0.0.1")
LABELS = {"pod_uid": "u-1", "pod": "w-1", "namespace": NAMESPACE, "release": "sn17"}


def scraping(*targets: Target) -> Scraping:
    return Scraping("http://p", "sn17", NAMESPACE, [WORKER], targets)


def test_a_worker_is_scraped_only_with_all_labels_and_an_answer() -> None:
    assert judge_scraping(scraping(Target(LABELS, True))).outcome is Outcome.OK
    assert "does not scrape w-1" in judge_scraping(scraping()).said
    assert "no answer" in judge_scraping(scraping(Target(LABELS, False))).said
    other = Target({**LABELS, "pod_uid": "u-9", "release": "theirs"}, True)
    assert "does not scrape w-1" in judge_scraping(scraping(other)).said
    assert judge_scraping(replace(scraping(), workers=[])).outcome is Outcome.NOT_USED


@pytest.mark.parametrize("label", NEEDED_LABELS)
def test_a_label_that_is_missing_or_wrong_is_named(label: str) -> None:
    without = {key: value for key, value in LABELS.items() if key != label}
    found = judge_scraping(scraping(Target(without, True)))
    assert found.outcome is Outcome.FAILED
    assert label in found.said
    assert f"target_label: {label}" in found.remedy


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://sn17-prometheus:9090", "mining/services/http:sn17-prometheus:9090/proxy/api/v1/query"),
        ("http://p.monitoring.svc:80/x/", "monitoring/services/http:p:80/proxy/x/api/v1/query"),
        ("https://p.monitoring.svc.cluster.local", "monitoring/services/https:p:443/proxy/api/v1/query"),
    ],
)
def test_a_prometheus_of_the_cluster_is_asked_through_the_api_server(url: str, path: str) -> None:
    assert service_path(url, NAMESPACE) == f"/api/v1/namespaces/{path}"


@pytest.mark.parametrize("url", ["http://10.1.2.3:9090", "https://prometheus.example.org", "nonsense"])
def test_another_address_is_not_looked_for_in_the_cluster(url: str) -> None:
    with pytest.raises(ProbeError, match="no Service"):
        service_path(url, NAMESPACE)


MINER = End("miner", {"c": "miner"}, NAMESPACE)
FIXER = End("fixer", {"c": "fixer"}, NAMESPACE)
WAY = Way(MINER, FIXER, 8080)


def policy(name: str, labels: Mapping[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels or {}}, "spec": {"podSelector": {}, **spec}}


def policies(*items: Mapping[str, Any]) -> Policies:
    return Policies("sn17", NAMESPACE, items, [WAY])


DENY = policy("deny", policyTypes=["Ingress", "Egress"])
OUT = policy("out", policyTypes=["Egress"], egress=[{}])
IN = policy("in", ingress=[{"from": [{"podSelector": {"matchLabels": {"c": "miner"}}}]}])


def test_policies_add_up_at_both_ends() -> None:
    assert closed_by(policies(), WAY) == ()
    assert closed_by(policies(DENY), WAY) == ("deny", "deny")
    assert closed_by(policies(DENY, OUT), WAY) == ("deny",)
    assert closed_by(policies(DENY, OUT, IN), WAY) == ()
    assert closed_by(policies(IN), Way(FIXER, MINER, 8080)) == ("in",)


@pytest.mark.parametrize(
    ("peer", "port", "open_"),
    [
        ({"namespaceSelector": {}}, {"port": 8080}, True),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}, {}, False),
        (
            {"podSelector": {"matchExpressions": [{"key": "c", "operator": "In", "values": ["miner"]}]}},
            {},
            True,
        ),
        ({"podSelector": {"matchExpressions": [{"key": "c", "operator": "DoesNotExist"}]}}, {}, False),
        ({"podSelector": {}}, {"port": 8000, "endPort": 8100}, True),
        ({"podSelector": {}}, {"port": 9000, "endPort": 9100}, False),
        ({"podSelector": {}}, {"port": 8080, "protocol": "UDP"}, False),
        ({"ipBlock": {"cidr": "0.0.0.0/0"}}, {}, False),
    ],
    ids=str,
)
def test_a_rule_means_whom_it_says(peer: Mapping[str, Any], port: Mapping[str, Any], open_: bool) -> None:
    rule = {"from": [peer], **({"ports": [port]} if port else {})}
    assert (closed_by(policies(policy("one", ingress=[rule])), WAY) == ()) is open_


@pytest.mark.parametrize(
    ("address", "port", "open_"),
    [
        ("203.0.113.7", 443, True),
        ("10.1.2.3", 443, False),
        ("203.0.113.7", 80, False),
        ("2001:db8::1", 443, False),
    ],
)
def test_an_address_is_judged_by_blocks(address: str, port: int, open_: bool) -> None:
    block = {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}
    one = policy(
        "out", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": block}], "ports": [{"port": 443}]}]
    )
    way = Way(MINER, End("outside", address=address), port)
    assert (closed_by(policies(one), way) == ()) is open_


@given(st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz")))
def test_a_selector_of_a_pods_own_labels_selects_it_and_the_empty_one_all(labels: dict[str, str]) -> None:
    assert selects({"matchLabels": labels}, labels)
    assert selects({}, labels)
    assert all(selects({"matchExpressions": [{"key": key, "operator": "Exists"}]}, labels) for key in labels)
    assert not selects({"matchLabels": {**labels, "d": "x"}}, labels)


def test_the_remedy_fits_whose_policy_it_is() -> None:
    assert judge_no_policies(policies()).outcome is Outcome.WARNING
    assert "networkPolicy.enabled=true" in judge_policies(policies(DENY)).command
    own = policy("own", {"app.kubernetes.io/instance": "sn17"}, egress=[], policyTypes=["Egress"])
    assert "helm upgrade" in judge_policies(policies(own)).command
    theirs = judge_policies(
        policies({**IN, "spec": {"podSelector": {}, "ingress": []}}, {**own, "spec": OUT["spec"]})
    )
    assert theirs.command == f"kubectl delete networkpolicy -n {NAMESPACE} in"


def test_the_ways_are_those_of_the_page_on_the_network() -> None:
    section = DOCS.read_text().split("## Inside the release")[1].split("## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()]
    said = {
        (row[0], row[1], int(port.partition("-")[0]))
        for row in rows
        if len(row) > 3 and row[2][:1].isdigit() and row[0] != "smoke"
        for port in row[2].split(", ")
    }
    assert set(INSIDE) == said - {("miner", "validators", 8100)}


def test_only_components_that_are_there_have_ways() -> None:
    api = [("10.96.0.1", 443)]
    ways = list(needed_ways({"miner": {}, "fixer": {}}, NAMESPACE, api, page=True))
    assert [str(way) for way in ways] == [
        "miner to fixer:8080", "miner to DNS:53", "miner to validators outside:8091",
    ]  # fmt: skip


def test_the_gateway_reads_from_the_miner_only_for_its_page() -> None:
    both = {"miner": {}, "gateway": {}}
    with_page, without = (
        {str(way) for way in needed_ways(both, NAMESPACE, [], page=page)} for page in (True, False)
    )
    assert with_page - without == {"gateway to miner:9090", "gateway to DNS:53"}
    assert without < with_page


def test_workers_without_node_or_model_and_secrets_that_cannot_sign() -> None:
    workers = Workers("sn17", NAMESPACE, 2, 2)
    assert judge_nodes(workers).outcome is Outcome.OK
    assert judge_nodes(replace(workers, unscheduled=[("w", "Insufficient gpu")])).outcome is Outcome.FAILED
    assert judge_nodes(replace(workers, pods=0)).outcome is Outcome.UNKNOWN
    assert judge_release_models(workers).outcome is Outcome.OK
    assert judge_release_models(replace(workers, ready=0)).outcome is Outcome.UNKNOWN
    assert judge_release_models(replace(workers, ready=1)).outcome is Outcome.WARNING
    assert judge_release_models(replace(workers, without_model=[("w", "x")])).outcome is Outcome.FAILED
    secret = HotkeySecret(NAMESPACE, "key", "hotkey", True, "5Abc")
    assert judge_secret(secret).outcome is Outcome.OK
    assert judge_secret(replace(secret, problem="no secret")).outcome is Outcome.FAILED
    assert "sn17 wallet secret -n mining" in judge_secret(replace(secret, there=False)).command
    assert judge_secret(None).outcome is Outcome.NOT_USED


def test_what_nodes_say_of_pods_is_read() -> None:
    pod = {
        "metadata": {"name": "w"},
        "spec": {"containers": [{"name": "a", "image": "r.io/a:1"}, {"name": "b", "image": "r.io/b:1"}]},
        "status": {
            "conditions": [{"type": "PodScheduled", "status": "False", "message": "Insufficient gpu"}],
            "containerStatuses": [
                {"name": "a", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}},
                {"name": "b", "state": {"terminated": {"message": "ModelMissing: a/b lacks x"}}},
            ],
        },
    }
    seen = ReleaseObjects([], [pod]).seen_by_nodes()
    assert seen["r.io/a:1"] == Image("r.io/a:1", Answer.PULL_FAILED, "no such tag")
    assert seen["r.io/b:1"].answer is Answer.RUNNING
    assert unscheduled([pod]) == [("w", "Insufficient gpu")]
    assert models_missing([pod]) == [("w", "a/b lacks x")]


def test_a_worker_that_has_found_its_model_since_a_restart_misses_none() -> None:
    """What it said before stays in ``lastState`` for as long as the pod lives."""
    pod = {
        "metadata": {"name": "w"},
        "status": {
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{"lastState": {"terminated": {"message": "ModelMissing: a/b lacks x"}}}],
        },
    }
    assert models_missing([pod]) == [("w", "a/b lacks x")]
    pod["status"]["conditions"][0]["status"] = "True"
    assert models_missing([pod]) == []
