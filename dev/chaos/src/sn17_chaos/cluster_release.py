"""What a release that is going to be broken is installed with."""

from __future__ import annotations

from typing import Any

from sn17_cluster.release import FAST_MEMORY_RULE, values

from sn17_chaos.cluster_bed import SHARED_CLASS

VALIDATORS = 6
CORDON_THRESHOLD = FAST_MEMORY_RULE["highPercent"] / 100
SPEED = 20.0
"""How many times as fast the network's time runs."""


def release_values(workers: int, speed: float = SPEED, **changes: Any) -> dict[str, Any]:
    """Two healthy workers, judged quickly; the miner's journal on a volume that any node can mount."""
    rules = {
        "gaussians": {"minimumMean": 5_000, "minimumGenerations": 4},
        "slow": {"action": "Off"},
        "stalled": {"afterSeconds": 15},
        "unreachable": {"afterSeconds": 30},
    }
    recycle = {"exitTimeoutSeconds": 10, "cooldownSeconds": 0, "youngSeconds": 0, "stormCooldownSeconds": 0}
    chosen = values(
        guard=True, operator=True, replicas=workers, leak_mib=0, rules=rules, recycle=recycle, **changes
    )
    del chosen["trellis"]["settings"]["SN17_FAULTS"]
    chosen["log"] = {"format": "human"}
    chosen["localValidators"] |= {"count": VALIDATORS, "timeScale": 1 / speed}
    chosen["operator"]["spec"]["drain"] = {"timeoutSeconds": 15, "leaseSeconds": 30}
    chosen["trellis"]["terminationGracePeriodSeconds"] = 20
    chosen["trellis"]["spool"] = {"sizeLimit": "128Mi"}
    chosen["trellis"]["settings"] |= {"SN17_SELF_RECYCLE_INTERVAL_SECONDS": 0, "SN17_CANARY_EVERY": 0}
    chosen["miner"]["persistence"] = {"enabled": True, "size": "1Gi", "storageClassName": SHARED_CLASS}
    chosen["miner"]["terminationGracePeriodSeconds"] = 20
    chosen["miner"]["settings"] = {
        # Tasks live in the network's fast motion, machines do not: a restart takes its seconds.
        "SN17_TASK_DEADLINE_SECONDS": 120,
        "SN17_SUBMIT_DEADLINE_SECONDS": 240,
        "SN17_STALL_SECONDS": 5,
        "SN17_WORKER_REST_SECONDS": 1,
        "SN17_WORKER_POLL_SECONDS": 0.5,
        "SN17_WORKER_DISCOVER_SECONDS": 1,
        "SN17_CHAIN__INTERVAL_SECONDS": 5,
        "SN17_DISK_MIN_FREE_BYTES": 1 << 20,
    }
    return chosen
