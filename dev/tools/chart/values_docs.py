#!/usr/bin/env python3
"""Writes what is derived from the chart's values.yaml: values.schema.json and README.md.

    python dev/tools/chart/values_docs.py            write both
    python dev/tools/chart/values_docs.py --check    exit 1 when one of them is not current

In values.yaml a comment `# -- text` documents the key below it and makes it a leaf: its default and its type
are listed. `# @schema {...}` (YAML, one line, before or after the text) adds constraints to the type. Keys
without a comment are sections; a section takes no key that values.yaml does not have, so a typing error fails
the install.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[3] / "charts" / "sn17"
HEAD = CHART / "README.head.md"

QUANTITY = {"type": ["string", "integer"], "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|[KMGTP]i?)?$"}
RESOURCES = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        part: {"type": "object", "additionalProperties": {"type": ["string", "number"]}}
        for part in ("requests", "limits")
    },
}
SETTINGS = {
    "type": "object",
    "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}


def fields(*names: str) -> dict[str, Any]:
    """An object of these fields only, whose values the API server judges."""
    return {"type": "object", "additionalProperties": False, "properties": {name: {} for name in names}}


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


PEERS = listed(fields("podSelector", "namespaceSelector", "ipBlock"))
SECURITY = (
    *("runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile", "appArmorProfile"),
    *("seLinuxOptions", "windowsOptions"),
)
POD_SECURITY = (
    *("fsGroup", "fsGroupChangePolicy", "supplementalGroups", "supplementalGroupsPolicy"),
    *("seLinuxChangePolicy", "sysctls"),
)
CONTAINER_SECURITY = (
    *("allowPrivilegeEscalation", "capabilities", "privileged", "procMount"),
    "readOnlyRootFilesystem",
)
VOLUMES = (
    *("configMap", "secret", "emptyDir", "persistentVolumeClaim", "ephemeral", "projected", "downwardAPI"),
    *("hostPath", "nfs", "csi", "image"),
)
MOUNTS = ("name", "mountPath", "mountPropagation", "readOnly", "recursiveReadOnly", "subPath", "subPathExpr")
SPREAD = (
    *("maxSkew", "minDomains", "topologyKey", "whenUnsatisfiable", "labelSelector", "matchLabelKeys"),
    *("nodeAffinityPolicy", "nodeTaintsPolicy"),
)


def of_the_crd(node: Any) -> Any:
    """What the custom resource takes, as a part of it: nothing is required, nothing else is taken."""
    if isinstance(node, list):
        return [of_the_crd(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {
        name: {key: of_the_crd(each) for key, each in value.items()}
        if name == "properties"
        else of_the_crd(value)
        for name, value in node.items()
        if name not in ("required", "default", "description", "format") and not name.startswith("x-")
    }
    return {**kept, "additionalProperties": False} if "properties" in kept else kept


def _spec() -> dict[str, Any]:
    (path,) = (CHART / "crds").glob("*.yaml")
    (version,) = yaml.safe_load(path.read_text())["spec"]["versions"]
    spec: dict[str, Any] = of_the_crd(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    return spec


# Keys that mean the same wherever they stand.
KNOWN: dict[str, dict[str, Any]] = {
    "spec": _spec(),
    "commonLabels": STRINGS,
    "additionalLabels": STRINGS,
    "labels": STRINGS,
    "podAnnotations": STRINGS,
    "podLabels": STRINGS,
    "annotations": STRINGS,
    "extraEnv": listed(fields("name", "value", "valueFrom")),
    "extraVolumes": listed(fields("name", *VOLUMES)),
    "extraVolumeMounts": listed(fields(*MOUNTS)),
    "nodeSelector": STRINGS,
    "affinity": fields("nodeAffinity", "podAffinity", "podAntiAffinity"),
    "tolerations": listed(fields("key", "operator", "value", "effect", "tolerationSeconds")),
    "topologySpreadConstraints": listed(fields(*SPREAD)),
    **dict.fromkeys(
        ("pullSecrets", "imagePullSecrets"), listed({"anyOf": [{"type": "string"}, fields("name")]})
    ),
    "alertmanagers": listed({"type": "string"}),
    "disabled": listed({"type": "string"}),
    "cidrs": listed({"type": "string"}),
    "except": listed({"type": "string"}),
    "fetchPorts": listed({"type": "integer"}),
    **dict.fromkeys(
        ("modelHubTo", "minerTo", "metricsFrom", "grafanaFrom", "prometheusTo", "alertmanagerTo"), PEERS
    ),
    "podSecurityContext": fields(*SECURITY, *POD_SECURITY),
    "containerSecurityContext": fields(*SECURITY, *CONTAINER_SECURITY),
    "resources": RESOURCES,
    "settings": SETTINGS,
    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    "pullPolicy": {"type": "string", "enum": ["Always", "IfNotPresent", "Never"]},
    "size": QUANTITY,
    "sizeLimit": QUANTITY,
    "url": {"type": "string", "pattern": "^(https?://.+)?$"},
    "terminationGracePeriodSeconds": {"type": "integer", "minimum": 20},
}


# In this order: a bool is an int to Python.
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


class ValuesError(ValueError):
    """values.yaml holds something this tool cannot document; the message says where."""


@dataclass(frozen=True)
class Leaf:
    """A documented key: its path, what it means, its default and its JSON schema."""

    path: tuple[str, ...]
    text: str
    default: Any
    schema: dict[str, Any]


@dataclass
class Section:
    """A key that groups others."""

    path: tuple[str, ...]
    children: list[Section | Leaf] = field(default_factory=list)


def read_values(source: str) -> Section:
    """The tree of a values file with its comments.

    Raises:
        ValuesError: a scalar without documentation, or an `@schema` that is no mapping.
    """
    node = yaml.compose(source, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise ValuesError("values.yaml is not a mapping")
    return _section(node, (), source.splitlines())


def _section(node: yaml.MappingNode, path: tuple[str, ...], lines: list[str]) -> Section:
    section = Section(path)
    for key, value in node.value:
        here = (*path, key.value)
        text, constraints = _comment(lines, key.start_mark.line, here)
        if text:
            section.children.append(_leaf(here, text, value, constraints))
        elif isinstance(value, yaml.MappingNode) and value.value:
            section.children.append(_section(value, here, lines))
        else:
            raise ValuesError(f"values.yaml:{key.start_mark.line + 1}: {'.'.join(here)} is not documented")
    return section


def _comment(lines: list[str], line: int, path: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    words: list[str] = []
    constraints: dict[str, Any] = {}
    while line > 0 and (comment := lines[line - 1].strip()).startswith("#"):
        line -= 1
        body = comment.removeprefix("#").strip()
        if body.startswith("@schema "):
            parsed = yaml.safe_load(body.removeprefix("@schema "))
            if not isinstance(parsed, dict):
                raise ValuesError(f"{'.'.join(path)}: @schema is not a mapping")
            constraints = parsed
        elif body.startswith("-- "):
            words.append(body.removeprefix("-- "))
    return " ".join(reversed(words)), constraints


def _leaf(path: tuple[str, ...], text: str, node: yaml.Node, constraints: dict[str, Any]) -> Leaf:
    default = yaml.safe_load(yaml.serialize(node))
    schema = dict(constraints or KNOWN.get(path[-1], {}))
    if "type" not in schema and "enum" not in schema and "anyOf" not in schema:
        schema["type"] = _type(default, path)
    return Leaf(path, text, default, {"description": text, **schema})


def _type(default: Any, path: tuple[str, ...]) -> str:
    for python, name in (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (list, "array"),
    ):
        if isinstance(default, python):
            return name
    if isinstance(default, dict):
        return "object"
    raise ValuesError(f"{'.'.join(path)}: no type for the default {default!r}")


def schema(section: Section) -> dict[str, Any]:
    """JSON schema (draft 7, the one that every Helm reads) of the whole tree."""
    properties = {
        child.path[-1]: child.schema if isinstance(child, Leaf) else schema(child)
        for child in section.children
    }
    if not section.path:
        # Helm hands it to every chart that is used as a dependency.
        properties["global"] = {"type": "object", "additionalProperties": True}
    result: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    return (
        {"$schema": "http://json-schema.org/draft-07/schema#", "title": "sn17", **result}
        if not section.path
        else result
    )


def leaves(section: Section) -> Iterator[Leaf]:
    for child in section.children:
        if isinstance(child, Leaf):
            yield child
        else:
            yield from leaves(child)


def readme(section: Section, head: str) -> str:
    """The chart's README: its hand-written head and one table per part of the values."""
    tables: dict[str, list[Leaf]] = {}
    for leaf in leaves(section):
        tables.setdefault(leaf.path[0] if len(leaf.path) > 1 else "", []).append(leaf)
    parts = [head.rstrip(), "", "## Values", ""]
    for name, rows in tables.items():
        parts += [f"### {name or 'General'}", "", "| value | default | meaning |", "|---|---|---|"]
        for row in rows:
            text = row.text.replace("|", "\\|")
            parts.append(f"| `{'.'.join(row.path)}` | `{json.dumps(row.default)}` | {text} |")
        parts.append("")
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit 1 when a file is not current"
    )
    check = parser.parse_args().check
    tree = read_values((CHART / "values.yaml").read_text())
    wanted = {
        CHART / "values.schema.json": json.dumps(schema(tree), indent=2) + "\n",
        CHART / "README.md": readme(tree, HEAD.read_text()),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{'not current' if check else 'written'}: {path.name}")
        if not check:
            path.write_text(wanted[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
