"""The miner's sources of work beside the validators: settings, Secrets and network policy by values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from chart_cases import ChartError
from sn17_miner.settings import GatewaySettings

pytestmark = pytest.mark.cluster
HOME = "gateway.mining.svc.cluster.local:8404"


def env(pod: Mapping[str, Any]) -> dict[str, str]:
    return {e["name"]: e.get("value", "") for e in pod["spec"]["containers"][0]["env"]}


def sources(pod: Mapping[str, Any]) -> dict[str, GatewaySettings]:
    """As the miner reads them."""
    found = [GatewaySettings.model_validate(one) for one in json.loads(env(pod)["SN17_GATEWAYS"])]
    return {one.name: one for one in found}


@pytest.mark.parametrize("case", ["default", "single-gpu", "multi-gpu"])
def test_none_by_default(rendered: Callable[[str], Any], case: str) -> None:
    settings = env(rendered(case).pod("miner"))
    assert {"SN17_GATEWAYS", "SN17_FAST_LANE", "SN17_VALIDATORS_WEIGHT"}.isdisjoint(settings)


def test_the_releases_own_gateway_is_a_source(rendered: Callable[[str], Any]) -> None:
    pod = rendered("gateway").pod("miner")
    own = sources(pod)["own"]
    assert (own.url, own.weight, own.follow_nodes) == (f"http://sn17-{HOME}", 1, False)
    assert env(pod)["SN17_VALIDATORS_WEIGHT"] == "4"


def test_gateways_with_weights_and_secrets(rendered: Callable[[str], Any]) -> None:
    pod = rendered("miner-gateways").pod("miner")
    found = sources(pod)
    assert list(found) == ["own", "public", "plain"]
    assert (found["own"].url, found["own"].weight) == (f"https://sn17-{HOME}", 2)
    public = found["public"]
    assert (public.url, public.weight, public.task_seconds) == ("https://gateway.example", 0.5, 300)
    assert found["plain"].hotkey_file is None
    assert env(pod)["SN17_FAST_LANE"] == "deadline"
    mounts = {m["name"]: m["mountPath"] for m in pod["spec"]["containers"][0]["volumeMounts"]}
    volumes = {v["name"]: v.get("secret") for v in pod["spec"]["volumes"]}
    for name, secret, file in (
        ("gateway-hotkey-public", "second", public.hotkey_file),
        ("gateway-ca-public", "ca", public.ca_file),
        ("gateway-ca-own", "cert", found["own"].ca_file),
    ):
        assert file is not None
        assert mounts[name] == str(file.parent)
        assert volumes[name]["secretName"] == secret
        assert volumes[name]["items"] == [{"key": file.name, "path": file.name}]


def test_gateways_elsewhere_can_be_reached(rendered: Callable[[str], Any]) -> None:
    """A laptop's miner talks to its own pods alone, until a gateway elsewhere is named."""
    for case, expected in (("laptop", False), ("miner-gateways-laptop", True)):
        policies = rendered(case).of("NetworkPolicy")
        egress = next(p for p in policies if p["metadata"]["name"] == "sn17-miner")["spec"]["egress"]
        peers = [peer for rule in egress for peer in rule.get("to", [])]
        assert any("ipBlock" in peer for peer in peers) is expected
        components = [
            peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
            for peer in peers
            if "podSelector" in peer
        ]
        assert "gateway" in components


@pytest.mark.parametrize(
    "values",
    [
        '[{"name":"Upper","url":"http://a"}]',
        '[{"name":"a","url":"gateway:8404"}]',
        '[{"name":"a"}]',
        '[{"name":"a","url":"http://a","wieght":1}]',
    ],
)
def test_mistakes_are_refused(chart: Any, values: str) -> None:
    with pytest.raises(ChartError):
        chart.render("--set-json", f"miner.gateways={values}")
