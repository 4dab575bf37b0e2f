"""How the local stack is set up to be broken: in fast motion, with clocks and tokens that can be touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from sn17.up.health import local_spec
from sn17_operator.api import Spec

MAX_GAUSSIANS = 30_000
SLOW_SECONDS = 1.3
"""Of every generation: long enough to hit its middle, and longer than the second between two tasks, so
that even on a quick machine both workers are in use."""
CLOCK = Path(__file__).parent / "clock"
"""On PYTHONPATH it lets the wall clock of a child be shifted."""


def quick_spec() -> Spec:
    """`sn17 up`'s rules with shorter times for what hangs; validated limits are for clusters."""
    spec = local_spec(MAX_GAUSSIANS)
    rules = spec.rules.model_copy(
        update={
            "unreachable": spec.rules.unreachable.model_copy(update={"after_seconds": 8}),
            "stalled": spec.rules.stalled.model_copy(update={"after_seconds": 6}),
        }
    )
    recycle = spec.recycle.model_copy(update={"exit_timeout_seconds": 4, "young_seconds": 0})
    drain = spec.drain.model_copy(update={"timeout_seconds": 10})
    return spec.model_copy(update={"rules": rules, "recycle": recycle, "drain": drain})


def shifted_clock(file: Path) -> dict[str, str]:
    """Environment of a Python process whose wall clock is off by the seconds in ``file``."""
    path = [str(CLOCK), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path), "CHAOS_CLOCK_FILE": str(file)}


def quick_settings(
    workers: int,
    clock_file: Callable[[str], Path],
    token_file: Callable[[str], Path],
    more: Mapping[str, Mapping[str, str]],
) -> dict[str, dict[str, str]]:
    """Environment of the stack's processes by name; ``more`` comes on top of it."""
    worker = {
        "SN17_SELF_RECYCLE_AFTER_SECONDS": "20",
        "SN17_SELF_RECYCLE_INTERVAL_SECONDS": "0",
        "SN17_CANARY_EVERY": "0",
    }
    miner = {
        # Tasks live in the network's fast motion, machines do not: a restart takes its seconds.
        "SN17_TASK_DEADLINE_SECONDS": "120",
        "SN17_SUBMIT_DEADLINE_SECONDS": "240",
        "SN17_STALL_SECONDS": "5",
        "SN17_WORKER_REST_SECONDS": "1",
        "SN17_WORKER_POLL_SECONDS": "0.5",
        "SN17_CHAIN__INTERVAL_SECONDS": "5",
        "SN17_DISK_MIN_FREE_BYTES": str(1 << 20),
    }
    # A task that was handed out and never arrived is handed out again after its lease.
    gateway = {"SN17_LEASE_SECONDS": "15", "SN17_SWEEP_SECONDS": "0.5"}
    by_name = {"miner": miner, "gateway": gateway}
    names = ("validators", "fixer", "miner", "gateway", *(f"trellis-{n}" for n in range(1, workers + 1)))
    found: dict[str, dict[str, str]] = {}
    for name in names:
        token = {"SN17_ADMIN_TOKEN_FILE": str(token_file(name))} if name != "validators" else {}
        own = worker if name.startswith("trellis") else by_name.get(name, {})
        found[name] = {**shifted_clock(clock_file(name)), **own, **token, **more.get(name, {})}
    return found
