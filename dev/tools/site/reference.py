"""Pages of the reference, written from the code: settings, metrics, the SN17Miner resource, chart values."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Described:
    """A metric as the code makes it."""

    name: str
    labels: tuple[str, ...]
    kind: str
    text: str

    @property
    def shown(self) -> str:
        """Its name in Prometheus with its labels; a histogram has three."""
        labels = f"{{{','.join(self.labels)}}}" if self.labels else ""
        ends = "_total" if self.kind == "counter" else ""
        return f"`{self.name}{ends}{labels}`{' (histogram)' if self.kind == 'histogram' else ''}"


def metrics() -> str:
    """All metrics with their labels and the help text that the exposition gives."""
    parts = [
        "# Metrics\n\nFor whoever writes queries or alerts. Names and labels are as Prometheus shows them. It"
        " adds `namespace`, `release`, `job`, `pod` and others by its configuration. A histogram is three:"
        " `NAME_bucket` with the label `le`, `NAME_sum` and `NAME_count`.\n"
    ]
    sources = {"Every service": SHARED_SOURCE} | {title: folder for title, (_, _, folder) in SERVICES.items()}
    for title, folder in sources.items():
        found = {each.name: each for each in described(REPOSITORY / folder / "src")}
        if found:
            table = "\n".join(
                f"| {found[name].shown} | {_cell(found[name].text)} |" for name in sorted(found)
            )
            parts.append(f"## {title}\n\n| metric | meaning |\n|---|---|\n{table}\n")
    return "\n".join(parts)


def described(folder: Path) -> Iterator[Described]:
    """Metrics wherever a call or a tuple has a metric's name followed by a text."""
    for file in sorted(folder.rglob("*.py")):
        tree = ast.parse(file.read_text())
        dictionaries = dict(_dictionaries(tree))
        for node in ast.walk(tree):
            items = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
            match items:
                case [ast.Attribute(value=ast.Name(id="Metric" | "MetricName"), attr=name), text, *rest]:
                    if (sentence := _sentence(text)).endswith("."):
                        named = _labels(node, rest, dictionaries)
                        device = ("uuid",) if name.startswith("DEVICE_") else ()
                        yield Described(Metric[name].value, (*device, *named), _kind(node), sentence)


def _dictionaries(tree: ast.AST) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names of a file that stand for labels and their values."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict(keys=keys)):
                yield name, _texts(keys)


def _labels(
    node: ast.AST, rest: list[ast.expr], dictionaries: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """Label names: a list after the text, ``labels=[...]``, or a row's labels with their values."""
    for keyword in getattr(node, "keywords", []):
        if keyword.arg == "labels" and isinstance(keyword.value, ast.List):
            return _texts(keyword.value.elts)
    match rest:
        case [ast.List(elts=names), *_]:
            return _texts(names)
        case [ast.Dict(keys=keys), *_]:
            return _texts(keys)
        case [ast.Name(id=name), *_]:
            return dictionaries.get(name, ())
        case [ast.Constant(value=str(label)), *_] if _function(node) != "Metric":
            return (label,)
    return ()


def _texts(nodes: Iterable[ast.expr | None]) -> tuple[str, ...]:
    return tuple(
        each.value for each in nodes if isinstance(each, ast.Constant) and isinstance(each.value, str)
    )


def _function(node: ast.AST) -> str:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _kind(node: ast.AST) -> str:
    match _function(node):
        case "Counter" | "_counter" | "Metric":
            return "counter"
        case "Histogram":
            return "histogram"
    return "gauge"


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
