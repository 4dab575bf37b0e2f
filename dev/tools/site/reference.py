"""Pages of the reference, written from the code: settings, metrics, the SN17Miner resource, chart values."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from sn17_contract import metrics as contract
from sn17_contract.metrics import Metric
from sn17_service.settings import describe_settings

REPOSITORY = Path(__file__).resolve().parents[3]

SERVICES = {
    "Worker": ("sn17_trellis.settings", "WorkerSettings", "services/trellis"),
    "Fixer": ("sn17_fixer.settings", "FixerSettings", "services/fixer"),
    "Miner": ("sn17_miner.settings", "MinerSettings", "services/miner"),
    "Gateway": ("sn17_gateway.settings", "GatewaySettings", "services/gateway"),
    "Operator": ("sn17_operator.settings", "OperatorSettings", "operator"),
    "Local validators": ("sn17_devnet.settings", "DevnetSettings", "dev/devnet"),
}
SHARED_SOURCE = "libs/service"


def pages() -> dict[str, str]:
    """Path below docs/ and text of every generated page."""
    return {
        "reference/settings.md": settings(),
        "reference/metrics.md": metrics(),
        "reference/sn17miner.md": resource(),
        "reference/values.md": values(),
    }


def settings() -> str:
    """All environment settings of all services."""
    parts = [
        "# Settings\n\nFor whoever runs a service by itself or sets `settings` in the chart. Every service"
        " reads the environment; `--help` prints the same list. A value that does not validate ends the"
        " process with exit code 2.\n"
    ]
    for title, (module, name, _) in SERVICES.items():
        model = getattr(importlib.import_module(module), name)
        rows = [line.strip().split(None, 1) for line in describe_settings(model).splitlines()]
        table = "\n".join(f"| `{row[0]}` | {_cell(row[1] if len(row) > 1 else '')} |" for row in rows)
        parts.append(f"## {title}\n\n| name | default and meaning |\n|---|---|\n{table}\n")
    return "\n".join(parts)


def metrics() -> str:
    """All metrics with the help text that the exposition gives."""
    parts = ["# Metrics\n\nFor whoever writes queries or alerts. Counters end in `_total` in Prometheus.\n"]
    sources = {"Every service": SHARED_SOURCE} | {title: folder for title, (_, _, folder) in SERVICES.items()}
    for title, folder in sources.items():
        found = dict(sorted(_described(REPOSITORY / folder / "src")))
        if found:
            table = "\n".join(f"| `{name}` | {_cell(text)} |" for name, text in found.items())
            parts.append(f"## {title}\n\n| metric | meaning |\n|---|---|\n{table}\n")
    return "\n".join(parts)


def _described(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and help text wherever a call or a tuple has a metric's name followed by a text."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            items = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
            match items:
                case [ast.Attribute(value=ast.Name(id="Metric" | "MetricName"), attr=name), text, *_]:
                    if (sentence := _sentence(text)).endswith("."):
                        yield Metric[name].value, sentence


def _sentence(node: ast.expr) -> str:
    """A text in the code, with the contract's constants filled in; empty where it is something else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_sentence(part) for part in parts)
        case ast.FormattedValue(value=ast.Name(id=name)):
            return f"{getattr(contract, name):g}"
    return ""


def resource() -> str:
    """The fields of SN17Miner, from the CustomResourceDefinition."""
    (path,) = (REPOSITORY / "charts/sn17/crds").glob("*.yaml")
    version = yaml.safe_load(path.read_text())["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]["properties"]
    parts = [
        f"# SN17Miner\n\nFor whoever writes or reads the resource. API version `sn17.io/{version['name']}`."
        " `kubectl explain sn17miners.spec` prints the same.\n"
    ]
    for part in ("spec", "status"):
        table = "\n".join(_fields(schema[part], part))
        parts.append(f"## {part}\n\n| field | type | default | meaning |\n|---|---|---|---|\n{table}\n")
    return "\n".join(parts)


def _fields(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        default = "" if "default" not in field else f"`{yaml.safe_dump(field['default']).split(chr(10))[0]}`"
        kind = " or ".join(field["enum"]) if "enum" in field else field.get("type", "")
        if not isinstance(field.get("default"), dict):
            yield f"| `{here}` | {_cell(str(kind))} | {default} | {_cell(field.get('description', ''))} |"
        inner = field.get("items", field) if field.get("type") == "array" else field
        yield from _fields(inner, here + ("[]" if inner is not field else ""))


def values() -> str:
    """The chart's own README, whose links are made to fit this site."""
    text = (REPOSITORY / "charts/sn17/README.md").read_text()
    return text.replace("](../../docs/", "](../").replace("# The sn17 chart", "# Chart values", 1)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
