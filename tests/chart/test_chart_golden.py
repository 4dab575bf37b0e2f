"""The manifests of each preset as committed: a change of the chart is seen as a change of what it installs.

SN17_UPDATE_GOLDEN=1 (make chart-docs) writes them anew.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.cluster
GOLDEN = Path(__file__).with_name("golden")
# Held by tests of their own, and long.
LEFT_OUT = ("-dashboard-",)


def stable(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without what differs from one render to the next: made-up secrets, and hashes of long texts."""
    if obj["kind"] == "Secret" and "data" in obj:
        return {**obj, "data": dict.fromkeys(obj["data"], "random")}
    if obj["kind"] == "ConfigMap" and "rules.yml" in obj["data"]:
        return {**obj, "data": {**obj["data"], "rules.yml": "rules/sn17.yaml"}}
    template = obj.get("spec", {}).get("template", {}).get("metadata", {})
    if "checksum/config" in template.get("annotations", {}):
        template["annotations"]["checksum/config"] = "hash"
    return obj


def test_manifests_are_the_committed_ones(rendered: Callable[[str], Any], preset: str) -> None:
    objects = [
        stable(copy.deepcopy(obj))
        for obj in rendered(preset).objects
        if not any(part in obj["metadata"]["name"] for part in LEFT_OUT)
    ]
    objects.sort(key=lambda o: (o["kind"], o["metadata"]["name"]))
    text = yaml.safe_dump_all(objects, sort_keys=True, width=110)
    path = GOLDEN / f"{preset}.yaml"
    if os.environ.get("SN17_UPDATE_GOLDEN") == "1":
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text, "run: make chart-docs, and look at the difference"
