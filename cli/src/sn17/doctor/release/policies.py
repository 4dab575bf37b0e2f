"""Network policies: does one close a way that the release needs?"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sn17.doctor.model import Finding, failed, ok, warning


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: a component's pods, or with ``address`` something outside the cluster."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""


@dataclass(frozen=True, slots=True)
class Way:
    """A connection that the release needs."""

    source: End
    target: End
    port: int
    protocol: str = "TCP"

    def __str__(self) -> str:
        return f"{self.source.name} to {self.target.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Policies:
    """NetworkPolicies of the release's namespace as the API server returns them, and the ways needed."""

    release: str
    namespace: str
    items: Sequence[Mapping[str, Any]]
    ways: Sequence[Way]


def judge_policies(found: Policies) -> Finding:
    blocked = [(way, closing) for way in found.ways if (closing := closed_by(found, way))]
    if not blocked:
        return ok(f"{len(found.items)} policies leave all {len(found.ways)} ways open that the release needs")
    names = sorted({name for _, closing in blocked for name in closing})
    said = f"{', '.join(names)} closes {'; '.join(str(way) for way, _ in blocked)}"
    in_namespace = f"-n {shlex.quote(found.namespace)}"
    own = [policy["metadata"]["name"] for policy in found.items if _is_own(policy, found.release)]
    if not own:
        return failed(
            said,
            "policies add up: let the chart render its own, which open what the release needs",
            f"helm upgrade {shlex.quote(found.release)} charts/sn17 {in_namespace} --reuse-values "
            "--set networkPolicy.enabled=true",
        )
    foreign = [name for name in names if name not in own]
    if foreign and all(name in foreign for name in names):
        return failed(
            said,
            "values below networkPolicy open it in the release's own policies; or delete the other one",
            f"kubectl delete networkpolicy {in_namespace} {' '.join(map(shlex.quote, foreign))}",
        )
    return failed(
        said,
        "the release's policies were changed, or values below networkPolicy are too narrow for this cluster "
        "(apiServer.ports, dnsPorts, prometheusTo, minerTo)",
        f"helm upgrade {shlex.quote(found.release)} charts/sn17 {in_namespace} --reuse-values",
    )


def judge_no_policies(found: Policies) -> Finding:
    """As :func:`judge_policies`; no policy at all is worth a word."""
    if not found.items:
        return warning(
            f"namespace {found.namespace} has no policies, so every pod of the cluster reaches the release",
            "the chart renders them with networkPolicy.enabled=true, its default",
        )
    return judge_policies(found)


def closed_by(found: Policies, way: Way) -> tuple[str, ...]:
    """Names of the policies that close the way; empty where it is open.

    As Kubernetes decides, at each end: open where no policy selects the pod, or a rule of one lets it pass.
    """
    return (
        *_closing(found, way.source, way.target, way, "Egress", "egress", "to"),
        *_closing(found, way.target, way.source, way, "Ingress", "ingress", "from"),
    )


def _closing(
    found: Policies, own: End, other: End, way: Way, kind: str, rules: str, side: str
) -> tuple[str, ...]:
    if own.address or own.namespace != found.namespace:
        return ()
    selecting = [
        policy
        for policy in found.items
        if kind in _kinds(policy["spec"]) and selects(policy["spec"].get("podSelector") or {}, own.labels)
    ]
    opened = any(
        _passes(rule, side, other, way, found.namespace)
        for policy in selecting
        for rule in policy["spec"].get(rules) or ()
    )
    return () if opened else tuple(str(policy["metadata"]["name"]) for policy in selecting)


def _kinds(spec: Mapping[str, Any]) -> Sequence[str]:
    return spec.get("policyTypes") or (["Ingress", "Egress"] if "egress" in spec else ["Ingress"])


def _passes(rule: Mapping[str, Any], side: str, other: End, way: Way, namespace: str) -> bool:
    ports = rule.get("ports") or ()
    if ports and not any(_has_port(port, way) for port in ports):
        return False
    peers = rule.get(side) or ()
    return not peers or any(_means(peer, other, namespace) for peer in peers)


def _has_port(port: Mapping[str, Any], way: Way) -> bool:
    if port.get("protocol", "TCP") != way.protocol:
        return False
    number = port.get("port")
    if number is None:
        return True
    if not isinstance(number, int):
        # A named port is that of the pod behind it, which is not asked for here.
        return True
    return number <= way.port <= int(port.get("endPort", number))


def _means(peer: Mapping[str, Any], other: End, namespace: str) -> bool:
    if block := peer.get("ipBlock"):
        if not other.address:
            return False
        address = ipaddress.ip_address(other.address)
        return address in ipaddress.ip_network(block["cidr"], strict=False) and not any(
            address in ipaddress.ip_network(each, strict=False) for each in block.get("except") or ()
        )
    if other.address:
        return False
    if "namespaceSelector" in peer:
        labels = {"kubernetes.io/metadata.name": other.namespace, **other.namespace_labels}
        if not selects(peer["namespaceSelector"] or {}, labels):
            return False
    elif other.namespace != namespace:
        return False
    return selects(peer.get("podSelector") or {}, other.labels)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Kubernetes' label selector: every part of it must agree."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_agrees(part, labels) for part in selector.get("matchExpressions") or ())


def _agrees(part: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = part["key"], part.get("values") or ()
    match part["operator"]:
        case "In":
            return bool(labels.get(key) in values)
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def _is_own(policy: Mapping[str, Any], release: str) -> bool:
    labels = policy["metadata"].get("labels") or {}
    return bool(labels.get("app.kubernetes.io/instance") == release)
