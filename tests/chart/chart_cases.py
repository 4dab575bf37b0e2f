"""What several test files of the chart share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "sn17"

PRELOADED = ("--set", "image.preloaded=true")
"""Images that the nodes have, so that no registry must be named."""


REVISION = "0123456789abcdef0123456789abcdef01234567"
COMMITS = (
    "--set",
    ",".join(f"trellis.model.{part}revision={REVISION}" for part in ("", "decoders.", "textEncoder.")),
)
"""The commits that fetching a model takes."""


class ChartError(Exception):
    """Helm refused the values; the message is what it said."""


def scaled_objects() -> dict[str, Any]:
    """KEDA's ScaledObject, as far as the chart uses it; any other field is refused or dropped."""
    whole, text = {"type": "integer", "format": "int32"}, {"type": "string"}
    texts = {"type": "object", "additionalProperties": text}

    def fields(**properties: Any) -> dict[str, Any]:
        return {"type": "object", "properties": properties}

    behavior = fields(scaleDown=fields(stabilizationWindowSeconds=whole))
    reference = fields(name=text, kind=text) | {"required": ["name"]}
    trigger = fields(type=text, metricType=text, metadata=texts, authenticationRef=reference)
    trigger |= {"required": ["type", "metadata"]}
    spec = fields(
        scaleTargetRef=fields(apiVersion=text, kind=text, name=text) | {"required": ["name"]},
        minReplicaCount=whole,
        maxReplicaCount=whole,
        pollingInterval=whole,
        cooldownPeriod=whole,
        advanced=fields(horizontalPodAutoscalerConfig=fields(behavior=behavior)),
        triggers={"type": "array", "items": trigger},
    )
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": fields(spec=spec | {"required": ["scaleTargetRef", "triggers"]})},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "scaledobjects.keda.sh"},
        "spec": {
            "group": "keda.sh",
            "scope": "Namespaced",
            "names": {"kind": "ScaledObject", "plural": "scaledobjects", "singular": "scaledobject"},
            "versions": [version],
        },
    }
