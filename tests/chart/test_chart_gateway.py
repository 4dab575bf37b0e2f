"""The gateway's pod: storage, keys, TLS and replicas by values."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from chart_cases import PRELOADED, ChartError

pytestmark = pytest.mark.cluster
NAME = "sn17-gateway"


def env(pod: Mapping[str, Any]) -> dict[str, Any]:
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in pod["spec"]["containers"][0]["env"]}


def volumes(pod: Mapping[str, Any]) -> dict[str, Any]:
    return {v["name"]: v for v in pod["spec"]["volumes"]}


@pytest.mark.parametrize("case", ["default", "single-gpu", "multi-gpu"])
def test_it_is_off_where_money_is_earned(rendered: Callable[[str], Any], case: str) -> None:
    component = "app.kubernetes.io/component"
    assert not [o for o in rendered(case).objects if o["metadata"]["labels"].get(component) == "gateway"]


def test_sqlite_and_a_volume_are_the_default(rendered: Callable[[str], Any]) -> None:
    release = rendered("gateway")
    deployment = release.one("Deployment", NAME)["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    claim = release.one("PersistentVolumeClaim", NAME)
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    pod = release.pod("gateway")
    assert volumes(pod)["data"]["persistentVolumeClaim"]["claimName"] == NAME
    assert {"SN17_DATABASE", "SN17_GENERIC_KEY", "SN17_TLS_CERT_FILE"}.isdisjoint(env(pod))
    assert env(pod)["SN17_NODE_DOMAIN"] == "sn17-gateway.mining.svc.cluster.local"
    assert NAME not in {b["metadata"]["name"] for b in release.of("PodDisruptionBudget")}
    assert not release.of("Ingress")


def test_the_page_reads_the_miner_and_is_turned_off_by_a_value(
    rendered: Callable[[str], Any], chart: Any
) -> None:
    release = rendered("gateway")
    pod = release.pod("gateway")
    assert env(pod)["SN17_PAGE"] == "true"
    assert env(pod)["SN17_MINER_URL"] == "http://sn17-miner.mining.svc.cluster.local:9090"
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}
    assert env(pod)["SN17_MINER_TOKEN_FILE"] == f"{mounts['admin-token']}/token"
    assert volumes(pod)["admin-token"] == volumes(release.pod("miner"))["admin-token"]
    assert env(release.pod("miner"))["SN17_KEEP_ASSETS"] == "20"

    values = "gateway.enabled=true,gateway.page.enabled=false,miner.keepAssets=200"
    off = chart.render(*PRELOADED, "--set", values)
    assert env(off.pod("gateway"))["SN17_PAGE"] == "false"
    assert {"SN17_MINER_URL", "SN17_MINER_TOKEN_FILE"}.isdisjoint(env(off.pod("gateway")))
    assert env(off.pod("miner"))["SN17_KEEP_ASSETS"] == "200"


def test_the_laptops_guests_have_a_key_without_limits(rendered: Callable[[str], Any]) -> None:
    release = rendered("laptop")
    key = base64.b64decode(release.one("Secret", f"{NAME}-guests")["data"]["key"]).decode()
    assert str(uuid.UUID(key)) == key
    pod = release.pod("gateway")
    assert env(pod)["SN17_GENERIC_KEY_FILE"] == "/var/run/sn17/guests/key"
    assert volumes(pod)["guests"]["secret"]["secretName"] == f"{NAME}-guests"
    assert env(pod)["SN17_GUEST_DAILY"] == "0"


def test_several_replicas_share_postgres_and_a_volume(rendered: Callable[[str], Any]) -> None:
    release = rendered("gateway-replicas")
    assert release.one("Deployment", NAME)["spec"]["strategy"] == {"type": "RollingUpdate"}
    assert release.one("PodDisruptionBudget", NAME)["spec"]["maxUnavailable"] == 1
    pod = release.pod("gateway")
    assert env(pod)["SN17_DATABASE"] == "postgres"
    assert volumes(pod)["database"]["secret"]["secretName"] == "database"


@pytest.mark.parametrize(
    "values",
    [
        "gateway.replicas=2",
        "gateway.replicas=2,gateway.postgres.existingSecret=d",
        "gateway.replicas=2,gateway.persistence.accessModes={ReadWriteMany}",
    ],
)
def test_replicas_that_would_not_share_are_refused(chart: Any, values: str) -> None:
    with pytest.raises(ChartError, match=r"gateway\.replicas: several replicas need Postgres"):
        chart.render("--set", f"gateway.enabled=true,{values}")


def test_ingress_tls_and_secrets_of_ones_own(rendered: Callable[[str], Any]) -> None:
    release = rendered("gateway-public")
    ingress = release.one("Ingress", NAME)["spec"]
    assert ingress["tls"] == [{"hosts": ["splats.example"], "secretName": "splats"}]
    assert ingress["rules"][0]["host"] == "splats.example"
    pod = release.pod("gateway")
    assert env(pod)["SN17_NODE_DOMAIN"] == "splats.example"
    assert env(pod)["SN17_NODE_PORT"] == "443"
    assert env(pod)["SN17_TRUSTED_PROXIES"] == '["10.0.0.0/8"]'
    secrets = {name: volumes(pod)[name]["secret"]["secretName"] for name in ("tls", "key-hash")}
    assert secrets == {"tls": "cert", "key-hash": "hash"}
    assert f"{NAME}-guests" not in {s["metadata"]["name"] for s in release.of("Secret")}


def test_the_service_stays_inside_unless_a_value_says_otherwise(chart: Any) -> None:
    enabled = (*PRELOADED, "--set", "gateway.enabled=true")
    assert chart.render(*enabled).one("Service", NAME)["spec"]["type"] == "ClusterIP"
    clients = 'networkPolicy.gatewayFrom=[{"ipBlock":{"cidr":"192.168.1.0/24"}}]'
    release = chart.render(*enabled, "--set", "gateway.service.type=NodePort", "--set-json", clients)
    service = release.one("Service", NAME)["spec"]
    assert (service["type"], service["ports"]) == (
        "NodePort",
        [{"name": "data", "port": 8404, "targetPort": "data"}],
    )
    rules = release.one("NetworkPolicy", NAME)["spec"]["ingress"]
    assert [rule["ports"] for rule in rules if rule["from"] == [{"ipBlock": {"cidr": "192.168.1.0/24"}}]] == [
        [{"port": 8404, "protocol": "TCP"}]
    ]
    with pytest.raises(ChartError, match="type"):
        chart.render(*enabled, "--set", "gateway.service.type=ExternalName")


def test_an_ingress_needs_a_host(chart: Any) -> None:
    with pytest.raises(ChartError, match=r"gateway\.ingress\.host"):
        chart.render("--set", "gateway.enabled=true,gateway.ingress.enabled=true")
