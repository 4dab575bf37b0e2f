"""Releases of sn17 whose workers are degraded on purpose, for the tests that watch them recover."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sn17_cluster.stack import Recorder, Stack

PROMETHEUS = "docker.io/sn17/prometheus"
PROMETHEUS_TAG = "built"

LEAK_MIB = 20
"""What a worker of these tests loses at each generation: 2 % of its limit of 1Gi, or 0.5 % a second."""

FAST_MEMORY_RULE = {
    "highPercent": 60,
    "highForSeconds": 10,
    "clearPercent": 50,
    "clearForSeconds": 10,
    "emergencyPercent": 90,
}
"""The defaults' order with a lower threshold and shorter times: a leak of a minute passes through them."""


def values(
    *,
    guard: bool,
    operator: bool,
    replicas: int = 1,
    prometheus_image: bool = True,
    leak_mib: float = LEAK_MIB,
    faults: Mapping[str, Any] | None = None,
    rules: Mapping[str, Any] | None = None,
    recycle: Mapping[str, Any] | None = None,
    self_recycle_after: int = 600,
    validators: Mapping[str, Any] | None = None,
    strategy: str = "RestartContainer",
) -> dict[str, Any]:
    """A release whose workers leak, judged quickly: on the laptop preset, 1Gi, small jobs and short times.

    A worker is one process, which only its restart helps, except where ``strategy`` is Swap.
    """
    settings = {
        "SN17_GUARD": "on" if guard else "off",
        "SN17_PROCEDURAL_MAX_GAUSSIANS": 20_000,
        "SN17_FAULTS": json.dumps({"leak_mib_per_generation": leak_mib, **(faults or {})}),
        "SN17_SELF_RECYCLE_AFTER_SECONDS": self_recycle_after,
        "SN17_MODEL_PROCESS": "on" if strategy == "Swap" else "off",
    }
    spec = {
        "strategy": strategy,
        "rules": {"memory": FAST_MEMORY_RULE, "gaussians": {"action": "Off"}, **(rules or {})},
        "recycle": dict(recycle or {}),
    }
    # Several releases share the node's processors.
    little = {"resources": {"requests": {"cpu": "10m"}}}
    workers = {"memory": {"limit": "1Gi"}, "cpu": {"request": "10m"}, "settings": settings}
    chosen: dict[str, Any] = {
        "trellis": {"replicas": replicas, **workers},
        "localValidators": {"count": 4, "timeScale": 0.05, "settings": dict(validators or {}), **little},
        "operator": {"enabled": operator, "settings": {"SN17_TICK_SECONDS": 3}, "spec": spec, **little},
        "prometheus": {"scrapeIntervalSeconds": 2, **little},
        "fixer": little,
        "gateway": {"enabled": False},
        "miner": {"terminationGracePeriodSeconds": 30, **little},
    }
    if not operator:
        # Nobody would ask it.
        chosen["prometheus"]["url"] = "http://prometheus.invalid:9090"
    elif prometheus_image:
        chosen["prometheus"]["image"] = {"repository": PROMETHEUS, "tag": PROMETHEUS_TAG}
    return chosen


@dataclass(frozen=True)
class Release:
    """An installed stack, and the record of its pods since before the installation."""

    stack: Stack
    pods: Recorder


class Install(Protocol):
    """Installs a release in a namespace that begins with `name`."""

    def __call__(self, name: str, chosen: Mapping[str, Any]) -> Release: ...
