"""The documentation site's reference is written from the code and leaves out nothing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from sn17_contract.metrics import Metric

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "dev/tools/site/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module
    spec.loader.exec_module(module)
    return module


def test_every_metric_has_its_line(reference: ModuleType) -> None:
    page = reference.metrics()
    assert [metric.value for metric in Metric if f"| `{metric.value}` |" not in page] == []


def test_every_service_has_its_settings(reference: ModuleType) -> None:
    page = reference.settings()
    assert all(f"## {title}\n" in page for title in reference.SERVICES)
    assert page.count("| `SN17_OPS_PORT` |") == len(reference.SERVICES)


def test_every_field_of_the_resource_has_its_line(reference: ModuleType) -> None:
    page = reference.resource()
    (path,) = (ROOT / "charts/sn17/crds").glob("*.yaml")
    schema = yaml.safe_load(path.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for part in ("spec", "status"):
        for name in schema["properties"][part]["properties"]:
            assert f"`{part}.{name}" in page


def test_no_page_has_a_row_that_breaks_its_table(reference: ModuleType) -> None:
    for name, page in reference.pages().items():
        if name == "reference/values.md":
            continue
        rows = [line for line in page.splitlines() if line.startswith("|")]
        assert rows
        assert all(line.replace("\\|", "").count("|") in (3, 5) for line in rows)
