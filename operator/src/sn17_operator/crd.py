"""The CustomResourceDefinition, generated from the models of ``api``."""

from __future__ import annotations

from typing import Any

import yaml
from sn17_service.contract import GROUP, KIND, LABEL_PART_OF, PART_OF, PLURAL, SHORT_NAME, VERSION

from .api import Spec

HEADER = "# Generated: python -m sn17_operator crd. Edit the models in operator/src/sn17_operator/api.py instead.\n"


class _Plain(yaml.SafeDumper):
    """Repeats what is equal instead of pointing at it: people read this file."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def crd_text() -> str:
    """YAML as it stands in the chart."""
    return HEADER + yaml.dump(crd(), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


def crd() -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}", "labels": {LABEL_PART_OF: PART_OF}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": [SHORT_NAME],
                "categories": ["sn17"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(),
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }


def _columns() -> list[dict[str, Any]]:
    def column(
        name: str, path: str, kind: str = "string", wide: bool = False, about: str = ""
    ) -> dict[str, Any]:
        found: dict[str, Any] = {"name": name, "type": kind, "jsonPath": path}
        if about:
            found["description"] = about
        if wide:
            found["priority"] = 1
        return found

    return [
        column("Ready", ".status.ready", about="Workers in service of those wanted"),
        column("Cordoned", ".status.cordoned", "integer", about="Out of service on purpose, cure sought"),
        column("Recycling", ".status.recycling", "integer", about="Restarting or awaiting a replacement"),
        column("Gaussians", ".status.gaussians", about="Mean gaussians per recent generation"),
        column("Memory", ".status.memory", about="The fullest worker, share of its limit"),
        column("Success", ".status.success", about="Accepted of all but skipped tasks, last hour"),
        column("Status", ".status.status", about="The most useful word"),
        column("Age", ".metadata.creationTimestamp", "date"),
        column("OOMs", ".status.oomKills", "integer", wide=True),
        column("Last-Recycle", ".status.lastRecycleTime", "date", wide=True),
        column("Paused", ".status.conditions[?(@.type=='Paused')].status", wide=True),
        column("Prometheus", ".status.conditions[?(@.type=='MetricsAvailable')].status", wide=True),
        column("Yield", ".status.yield", wide=True, about="Accepted of all tasks, last hour"),
        column("Message", ".status.message", wide=True),
    ]


def _schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "A miner's TRELLIS workers: how they are judged and what may be done about sick ones.",
        "required": ["spec"],
        "properties": {"spec": _structural(Spec), "status": _status()},
    }


def _structural(model: type[Spec]) -> dict[str, Any]:
    """pydantic's JSON schema in the form that Kubernetes asks for: no references, no nulls, no titles."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs", {})

    def clean(node: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in node:
            target = dict(definitions[node["$ref"].rsplit("/", 1)[-1]])
            node = {**target, **{k: v for k, v in node.items() if k != "$ref"}}
        options = [o for o in node.get("anyOf", ()) if o.get("type") != "null"]
        if "anyOf" in node and len(options) == 1 and not node.get("x-kubernetes-int-or-string"):
            rest = {k: v for k, v in node.items() if k not in ("anyOf", "default")}
            return clean({**options[0], **rest})
        found = {k: v for k, v in node.items() if k not in ("title", "properties", "$defs")}
        if "description" in found:
            found["description"] = " ".join(found["description"].split())
        if "properties" in node:
            found["properties"] = {name: clean(child) for name, child in node["properties"].items()}
        if found.get("type") == "integer":
            found["format"] = "int64"
        return found

    return clean(schema)


def _status() -> dict[str, Any]:
    text = {"type": "string"}
    count = {"type": "integer", "format": "int64"}
    time = {"type": "string", "format": "date-time"}
    condition = {
        "type": "object",
        "required": ["type", "status", "reason", "lastTransitionTime"],
        "properties": {
            "type": {**text, "maxLength": 316},
            "status": {**text, "enum": ["True", "False", "Unknown"]},
            "reason": {
                **text,
                "maxLength": 1024,
                "minLength": 1,
                "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            },
            "message": {**text, "maxLength": 32768},
            "observedGeneration": count,
            "lastTransitionTime": time,
        },
    }
    worker = {
        "type": "object",
        "required": ["name", "state"],
        "properties": {
            "name": text,
            "node": text,
            "state": text,
            "reasons": {"type": "array", "items": text},
            "stage": text,
            "since": time,
            "message": text,
            "heldBackBy": text,
        },
    }
    eviction = {
        "type": "object",
        "required": ["uid", "time"],
        "properties": {
            "uid": text,
            "pod": text,
            "node": text,
            "reason": text,
            "time": time,
            "settled": {"type": "boolean"},
            "replacementUID": text,
        },
    }
    return {
        "type": "object",
        "description": "What the operator sees and does; text columns hold - where nothing is known.",
        "properties": {
            "observedGeneration": count,
            "status": text,
            "message": text,
            "ready": text,
            "cordoned": count,
            "recycling": count,
            "gaussians": text,
            "memory": text,
            "success": text,
            "yield": text,
            "success4h": text,
            "yield4h": text,
            "budget": count,
            "unavailable": count,
            "oomKills": count,
            "lastOOMTime": time,
            "recycles": count,
            "evicted": count,
            "lastRecycleTime": time,
            "lastStormTime": time,
            "workers": {
                "type": "array",
                "maxItems": 100,
                "items": worker,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
            "workersOmitted": count,
            "evictions": {
                "type": "array",
                "maxItems": 64,
                "items": eviction,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["uid"],
            },
            "conditions": {
                "type": "array",
                "maxItems": 16,
                "items": condition,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        },
    }
