"""Values that the docs show are taken by the chart, and settings in them by the services."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_cases import CHART, REVISION, ROOT
from sn17_miner.settings import MinerSettings
from sn17_operator.settings import OperatorSettings
from sn17_service.settings import unknown_settings

pytestmark = pytest.mark.cluster
KEYS = frozenset(yaml.safe_load((CHART / "values.yaml").read_text()))
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown() -> dict[str, Any]:
    """Blocks of values by page and line; of an Argo CD Application its `valuesObject`."""
    found = {}
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text()
        for block in BLOCK.finditer(text):
            content = yaml.safe_load(block[1].replace("COMMIT", REVISION))
            if isinstance(content, dict) and content.get("kind") == "Application":
                content = content["spec"]["source"]["helm"]["valuesObject"]
            if isinstance(content, dict) and content.keys() <= KEYS:
                found[f"{page.name}:{text.count(chr(10), 0, block.start()) + 1}"] = content
    return found


SHOWN = shown()


@pytest.mark.parametrize("where", SHOWN)
def test_the_chart_takes_the_values(chart: Any, where: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(SHOWN[where]))
    pods = dict(chart.render("-f", str(file)).pods())
    for component, settings in (("miner", MinerSettings), ("operator", OperatorSettings)):
        if component in pods:
            environment = {each["name"]: "x" for each in pods[component]["spec"]["containers"][0]["env"]}
            assert unknown_settings(settings, environment) == []


def test_the_pages_show_some() -> None:
    assert len(SHOWN) >= 6
    assert {where.partition(":")[0] for where in SHOWN} >= {"chart.md", "miner.md", "scaling.md"}


def test_a_second_hotkeys_release_has_no_worker_no_claim_for_a_model_and_no_operator(
    chart: Any, tmp_path: Path
) -> None:
    (values,) = (each for where, each in SHOWN.items() if where.startswith("miner.md"))
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    release = chart.render("-f", str(file), namespace="mining2")
    assert release.one("Deployment", "sn17-trellis")["spec"]["replicas"] == 0
    assert not release.of("PersistentVolumeClaim")
    assert "operator" not in dict(release.pods())
    environment = {e["name"]: e.get("value") for e in release.pod("miner")["spec"]["containers"][0]["env"]}
    assert environment["SN17_WORKERS_DNS"] == "sn17-trellis-workers.mining.svc.cluster.local:10006"
    peers = [
        peer
        for rule in release.one("NetworkPolicy", "sn17-miner")["spec"]["egress"]
        for peer in rule.get("to", ())
    ]
    assert values["networkPolicy"]["minerTo"][0] in peers
