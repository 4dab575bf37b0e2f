"""Every setting the chart writes is one that the service knows: a name that drifts is found here."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from sn17_devnet.settings import DevnetSettings
from sn17_fixer.settings import FixerSettings
from sn17_gateway.settings import GatewaySettings
from sn17_miner.settings import MinerSettings
from sn17_operator.settings import OperatorSettings
from sn17_service.settings import ServiceSettings, unknown_settings
from sn17_trellis.settings import WorkerSettings

pytestmark = pytest.mark.cluster

SERVICES: Mapping[str, type[ServiceSettings]] = {
    "trellis": WorkerSettings,
    "fixer": FixerSettings,
    "miner": MinerSettings,
    "operator": OperatorSettings,
    "validators": DevnetSettings,
    "gateway": GatewaySettings,
}


@pytest.mark.parametrize("component", SERVICES)
def test_services_know_their_settings(rendered: Callable[[str], Any], variant: str, component: str) -> None:
    pods = dict(rendered(variant).pods())
    if component not in pods:
        return
    environment = {e["name"]: e.get("value", "x") for e in pods[component]["spec"]["containers"][0]["env"]}
    assert unknown_settings(SERVICES[component], environment) == []


@pytest.mark.parametrize(
    ("case", "component"),
    [
        *(("laptop", component) for component in SERVICES),
        *(("single-gpu", component) for component in SERVICES if component not in ("validators", "gateway")),
        *((case, "gateway") for case in ("gateway", "gateway-replicas")),
    ],
)
def test_services_take_their_settings(
    rendered: Callable[[str], Any], case: str, component: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The values parse: the settings class of each service accepts the environment as rendered."""
    pod = rendered(case).pod(component)
    for entry in pod["spec"]["containers"][0]["env"]:
        if entry["name"].startswith("SN17_"):
            monkeypatch.setenv(entry["name"], entry.get("value", "192.0.2.1"))
    guests = tmp_path / "guests"
    guests.write_text(str(uuid.UUID(int=0)))
    if "SN17_GENERIC_KEY_FILE" in os.environ:
        monkeypatch.setenv("SN17_GENERIC_KEY_FILE", str(guests))
    settings = SERVICES[component]()  # type: ignore[call-arg,unused-ignore]
    assert settings.host == "any"
    assert settings.log_format == "json"
