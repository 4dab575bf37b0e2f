"""The documentation site's reference is written from the code and leaves out nothing."""

from __future__ import annotations

import importlib.util
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from sn17_contract.metrics import Metric
from sn17_gateway.metrics import GatewayMetrics
from sn17_miner.metrics import MinerMetrics
from sn17_operator.telemetry import Telemetry
from sn17_service.metrics import new_registry
from sn17_trellis.model_process.metrics import ModelMetrics

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
    shown = re.compile(r"^\| `(sn17_\w+?)(?:_total)?(?:\{[\w,]+\})?`(?: \(histogram\))? \|", re.MULTILINE)
    assert {metric.value for metric in Metric} - set(shown.findall(page)) == set()


def test_names_and_labels_are_those_that_prometheus_shows(reference: ModuleType) -> None:
    registry = new_registry()
    MinerMetrics(registry, ("validators", "home")).known(["5aaaaaaaaaaa"])
    for make in (GatewayMetrics, ModelMetrics, partial(Telemetry, monotonic=lambda: 0.0)):
        make(registry)
    folders = [folder for _, _, folder in reference.SERVICES.values()]
    known = {
        each.name: each
        for folder in folders
        for each in reference.described(reference.REPOSITORY / folder / "src")
    }
    samples = [
        (family, sample)
        for family in registry.collect()
        for sample in family.samples
        if family.name.startswith("sn17_")
    ]
    assert len({family.name for family, _ in samples}) > 15
    for family, sample in samples:
        each = known[family.name]
        assert each.kind == family.type, family.name
        assert set(sample.labels) - {"le"} == set(each.labels), family.name
        assert family.type == "histogram" or each.shown.startswith(f"`{sample.name}"), family.name


def test_some_lines_of_metrics(reference: ModuleType) -> None:
    page = reference.metrics()
    for line in (
        "| `sn17_tasks_pulled_total{door,validator,kind}` |",
        "| `sn17_self_recycles_total` |",
        "| `sn17_delivery_seconds{door,validator}` (histogram) |",
        "| `sn17_device_xids_total{uuid,xid}` |",
        "| `sn17_device_fault{uuid,reason}` |",
        "| `sn17_next_pull_timestamp_seconds{validator}` |",
        "| `sn17_gateway_nodes{door,phase}` |",
        "| `sn17_boot_info{boot_id,service,version}` |",
        "| `sn17_last_progress_timestamp_seconds` |",
    ):
        assert line in page, line


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
