"""Which pod reaches which, computed from the rendered policies, is what docs/network.md says."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.cluster
DOCS = Path(__file__).resolve().parents[2] / "docs" / "network.md"
NAMESPACE = "mining"
PORTS = (53, 80, 443, 3000, 6443, 8080, 8099, 8100, 8131, 8132, 9090, 9093, 8404, 5432, 10006)

Flow = tuple[str, str, int]


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod with its labels, or an address outside the cluster."""

    name: str
    labels: Mapping[str, str]
    namespace: str = NAMESPACE
    address: str = ""


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, f"the calculator knows no {selector}"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def matches(entry: Mapping[str, Any], peer: Peer) -> bool:
    """Whether a `from` or `to` entry of a policy in NAMESPACE means this peer."""
    if block := entry.get("ipBlock"):
        if not peer.address:
            return False  # pods are judged by selectors: their addresses are the cluster's business
        address = ipaddress.ip_address(peer.address)
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(x) for x in block.get("except", []))
    if peer.address:
        return False
    if "namespaceSelector" in entry:
        if not selects(entry["namespaceSelector"], {"kubernetes.io/metadata.name": peer.namespace}):
            return False
    elif peer.namespace != NAMESPACE:
        return False
    return selects(entry.get("podSelector", {}), peer.labels)


def opens(rule: Mapping[str, Any], side: str, peer: Peer, port: int) -> bool:
    ports: Sequence[Mapping[str, Any]] = rule.get("ports", [])
    if ports and not any(
        p.get("protocol", "TCP") == "TCP" and p["port"] <= port <= p.get("endPort", p["port"]) for p in ports
    ):
        return False
    peers = rule.get(side, [])
    return not peers or any(matches(entry, peer) for entry in peers)


def allowed(policies: Sequence[Mapping[str, Any]], source: Peer, target: Peer, port: int) -> bool:
    """As Kubernetes decides: at both ends, no policy selects the pod or a rule of one opens the way."""

    def end(own: Peer, other: Peer, kind: str, rules: str, side: str) -> bool:
        if own.address or own.namespace != NAMESPACE:
            return True
        own_policies = [
            p["spec"]
            for p in policies
            if kind in p["spec"]["policyTypes"] and selects(p["spec"]["podSelector"], own.labels)
        ]
        return not own_policies or any(
            opens(rule, side, other, port) for policy in own_policies for rule in policy.get(rules) or []
        )

    return end(source, target, "Egress", "egress", "to") and end(target, source, "Ingress", "ingress", "from")


def peers(release: Any) -> dict[str, Peer]:
    return {component: Peer(component, pod["metadata"]["labels"]) for component, pod in release.pods()}


def reachable(release: Any, ends: Mapping[str, Peer]) -> set[Flow]:
    policies = release.of("NetworkPolicy")
    return {
        (a.name, b.name, port)
        for a in ends.values()
        for b in ends.values()
        for port in PORTS
        if a is not b and allowed(policies, a, b, port)
    }


def documented() -> Iterator[Flow]:
    """Rows of the first table of docs/network.md, port ranges by their ends."""
    section = DOCS.read_text().split("## Inside the release")[1].split("## ")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or cells[0] in {"from", "---"}:
            continue
        for part in cells[2].split(","):
            for port in part.strip().split("-"):
                yield cells[0], cells[1], int(port)


@pytest.mark.parametrize(
    "case", ["default", "laptop", "single-gpu", "multi-gpu", "no-grafana", "no-miner", "gateway"]
)
def test_pods_reach_each_other_just_as_documented(rendered: Callable[[str], Any], case: str) -> None:
    release = rendered(case)
    ends = peers(release)
    # DNS is open to any resolver, so port 53 between pods is left out: nothing listens there.
    found = {flow for flow in reachable(release, ends) if flow[2] != 53}
    assert found == {flow for flow in documented() if flow[0] in ends and flow[1] in ends}


def test_every_pod_is_closed_in_both_directions(rendered: Callable[[str], Any], variant: str) -> None:
    release = rendered(variant)
    for component, pod in release.pods():
        closing = [
            kind
            for policy in release.of("NetworkPolicy")
            if selects(policy["spec"]["podSelector"], pod["metadata"]["labels"])
            for kind in policy["spec"]["policyTypes"]
        ]
        expected = [] if variant == "no-network-policies" else ["Egress", "Ingress"]
        assert sorted(closing) == expected, component


def test_the_calculator_sees_a_hole(chart: Any) -> None:
    """Without policies everything is open: an empty comparison cannot pass for a closed one."""
    release = chart.render("--set", "networkPolicy.enabled=false")
    ends = peers(release)
    assert len(reachable(release, ends)) == len(ends) * (len(ends) - 1) * len(PORTS)


def test_a_stranger_in_the_cluster_reaches_nothing(rendered: Callable[[str], Any]) -> None:
    release = rendered("laptop")
    stranger = Peer("stranger", {"app": "other"})
    neighbour = Peer("neighbour", {"app.kubernetes.io/name": "sn17"}, namespace="elsewhere")
    for outsider in (stranger, neighbour):
        ends = {**peers(release), outsider.name: outsider}
        assert not {flow for flow in reachable(release, ends) if flow[0] == outsider.name}


def test_another_release_in_the_same_namespace_is_a_stranger(chart: Any) -> None:
    first, second = chart.render(release="first"), chart.render(release="second")
    other = Peer("their-operator", second.pod("operator")["metadata"]["labels"])
    ends = {**peers(first), other.name: other}
    assert not {flow for flow in reachable(first, ends) if flow[0] == other.name}


OUTSIDE = {
    "validator": ("203.0.113.7", 8100),
    "any port": ("203.0.113.7", 9090),
    "hub": ("203.0.113.7", 443),
    "plain": ("203.0.113.7", 80),
    "metadata service": ("169.254.169.254", 80),
    "neighbour": ("10.1.2.3", 443),
    "API server": ("10.96.0.1", 6443),
}


@pytest.mark.parametrize(
    ("case", "component", "reaches"),
    [
        ("default", "miner", {"validator", "any port", "hub", "plain"}),
        ("laptop", "miner", set()),
        ("default", "trellis", set()),
        ("single-gpu", "trellis", {"hub"}),
        ("existing-claim", "trellis", set()),
        ("default", "fixer", set()),
        ("default", "grafana", set()),
        ("laptop", "gateway", set()),
        ("gateway-replicas", "gateway", set()),
        ("default", "operator", {"hub", "neighbour", "API server"}),
        ("default", "prometheus", {"hub", "neighbour", "API server"}),
        ("external-prometheus", "operator", {"hub", "neighbour", "API server"}),
    ],
)
def test_ways_out_of_the_cluster(
    rendered: Callable[[str], Any], case: str, component: str, reaches: set[str]
) -> None:
    release = rendered(case)
    pod = peers(release)[component]
    found = {
        name
        for name, (address, port) in OUTSIDE.items()
        if allowed(release.of("NetworkPolicy"), pod, Peer(name, {}, address=address), port)
    }
    assert found == reaches


@pytest.mark.parametrize(
    ("case", "component", "port"),
    [
        ("external-prometheus", "operator", 9090),
        ("external-prometheus", "grafana", 9090),
        ("alertmanager", "prometheus", 9093),
        ("gateway-replicas", "gateway", 5432),
    ],
)
def test_monitoring_of_ones_own_is_reached(
    rendered: Callable[[str], Any], case: str, component: str, port: int
) -> None:
    release = rendered(case)
    theirs = Peer("theirs", {"app": "monitoring"}, namespace="monitoring")
    assert allowed(release.of("NetworkPolicy"), peers(release)[component], theirs, port)


def test_a_prometheus_of_ones_own_may_be_let_in(rendered: Callable[[str], Any]) -> None:
    release = rendered("peers")
    theirs = Peer("theirs", {"app": "prometheus"}, namespace="monitoring")
    ends = peers(release)
    for component in ("trellis", "fixer", "miner", "operator"):
        assert allowed(release.of("NetworkPolicy"), theirs, ends[component], 9090)
        assert not allowed(release.of("NetworkPolicy"), theirs, ends[component], 10006)
    assert allowed(release.of("NetworkPolicy"), theirs, ends["grafana"], 3000)


@dataclass(frozen=True)
class Site:
    """Where a cluster keeps its API server and its DNS, as its documentation says."""

    api_server: str
    api_port: int
    dns_port: int = 53
    validator: str = "203.0.113.7"


SITES = {
    "kubeadm": Site("10.0.0.10", 6443),
    "kind": Site("172.18.0.2", 6443),
    "kind, IPv6 only": Site("fc00:f853:ccd:e793::2", 6443, validator="2001:db8::7"),
    "k3s": Site("192.168.1.10", 6443),
    "k3d": Site("172.20.0.3", 6443),
    "minikube": Site("192.168.49.2", 8443),
    "MicroK8s": Site("192.168.1.20", 16443),
    "OpenShift": Site("10.0.142.9", 6443, dns_port=5353),
    "RKE2": Site("10.11.12.13", 6443),
    "EKS": Site("10.0.37.4", 443),
    "GKE": Site("172.16.0.2", 443),
    "AKS": Site("20.50.1.1", 443),
    "dual stack": Site("fd00:10::10", 6443, validator="2001:db8::7"),
    "public address": Site("198.51.100.9", 443),
}


def resolves(policies: Sequence[Mapping[str, Any]], pod: Peer, port: int) -> bool:
    """Whether a pod may ask a DNS server at this port, by UDP and by TCP."""
    own = [p["spec"] for p in policies if selects(p["spec"]["podSelector"], pod.labels)]
    open_ports = {
        (entry["protocol"], entry["port"])
        for policy in own
        for rule in policy["egress"] or []
        if "to" not in rule
        for entry in rule["ports"]
    }
    return {("UDP", port), ("TCP", port)} <= open_ports


@pytest.mark.parametrize("name", list(SITES))
def test_the_defaults_work_on_the_clusters_that_people_run(rendered: Callable[[str], Any], name: str) -> None:
    site = SITES[name]
    release = rendered("single-gpu")
    policies = release.of("NetworkPolicy")
    ends = peers(release)
    server = Peer("API server", {}, address=site.api_server)
    for component in ("operator", "prometheus"):
        assert allowed(policies, ends[component], server, site.api_port), component
    for component in ("operator", "prometheus", "miner", "trellis", "grafana"):
        assert resolves(policies, ends[component], site.dns_port), component
    validator = Peer("validator", {}, address=site.validator)
    assert allowed(policies, ends["miner"], validator, 8100)
    assert not allowed(policies, ends["fixer"], validator, 8100)


@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.7.7", "fd12::7"])
def test_a_subtensor_at_a_private_address_is_reached_by_a_value(chart: Any, address: str) -> None:
    target = Peer("subtensor", {}, address=address)
    closed = chart.render()
    assert not allowed(closed.of("NetworkPolicy"), peers(closed)["miner"], target, 9944)
    width = 128 if ":" in address else 32
    block = f'[{{"ipBlock":{{"cidr":"{address}/{width}"}}}}]'
    opened = chart.render("--set-json", f"networkPolicy.minerTo={block}")
    assert allowed(opened.of("NetworkPolicy"), peers(opened)["miner"], target, 9944)
    assert not allowed(opened.of("NetworkPolicy"), peers(opened)["fixer"], target, 9944)


def test_exceptions_are_of_their_ranges_family(rendered: Callable[[str], Any], variant: str) -> None:
    """The API server refuses a block whose exceptions lie outside of it."""
    blocks = [
        entry["ipBlock"]
        for policy in rendered(variant).of("NetworkPolicy")
        for rule in policy["spec"]["egress"] or []
        for entry in rule.get("to", [])
        if "ipBlock" in entry
    ]
    for block in blocks:
        outer = ipaddress.ip_network(block["cidr"])
        for text in block.get("except", []):
            inner = ipaddress.ip_network(text)
            assert inner.version == outer.version
            assert inner.prefixlen > outer.prefixlen
