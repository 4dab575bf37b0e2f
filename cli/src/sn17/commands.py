"""The commands of ``sn17``."""

from __future__ import annotations

from sn17 import exits
from sn17.lazy import Entry, lazy_app

_STEERING = "sn17.ops.command"

COMMANDS = {
    "up": Entry(
        "sn17.up.command",
        "Run validators, workers, fixer and miner on this machine and show what is accepted.",
        "up",
    ),
    "status": Entry(
        "sn17.up.status",
        "Show submissions and workers of a run on this machine, or of a release in a cluster.",
        "status",
    ),
    "doctor": Entry(
        "sn17.doctor.command",
        "Check what stops a run or a release: one line per check, with its remedy.",
        "doctor",
    ),
    "accept": Entry(
        "sn17.accept.command",
        "Check a stack against its targets: fixed prompts and seeds, PASS or FAIL per target.",
        "accept",
    ),
    "watch": Entry(
        "sn17.accept.command",
        "Follow the miner's journal and judge success and yield: of all tasks, and of each validator.",
        "watch",
    ),
    "cordon": Entry(
        _STEERING,
        "Take a worker out of service until `uncordon`: it finishes its job and takes no other, also after a "
        "restart.",
        part=True,
    ),
    "uncordon": Entry(_STEERING, "End a cordon that you made.", part=True),
    "recycle": Entry(
        _STEERING, "Drain a worker and restart it, within the budget and without losing a task.", part=True
    ),
    "pause": Entry(
        _STEERING,
        "The operator starts nothing more and gives back what it has cordoned; `resume` ends it.",
        part=True,
    ),
    "resume": Entry(_STEERING, "End `pause`.", part=True),
    "explain": Entry(
        _STEERING,
        "Show why a worker has its verdict: query, value, sample age, threshold and dwell of each rule, and "
        "what comes next.",
        part=True,
    ),
    "replay": Entry(
        _STEERING,
        "Dry-run the operator over recorded metrics.",
        part=True,
    ),
    "generate": Entry(
        "sn17.generate.command",
        "Make splats of your own prompts through a gateway, and write them to files.",
        "generate",
    ),
    "splat": Entry("sn17.splat.command", "Inspect, repair, render, convert and compare gaussian splats."),
    "tasks": Entry("sn17.tasks.command", "List what the miner did, and explain why."),
    "gateway": Entry("sn17.gateway.command", "Make, list and revoke the keys of your clients."),
    "wallet": Entry("sn17.wallet.command", "The hotkey for a cluster, without the coldkey."),
}

app = lazy_app(
    COMMANDS,
    name="sn17",
    help="Run, inspect and control a 3D-generation miner of Bittensor subnet 17.",
    epilog=exits.epilog(""),
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
