"""The page of decisions, generated from a result: one screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sn17_bench.ablation import NEVER_BELOW
from sn17_bench.ablation_scenes import ablations

DEFAULTS: Final = {
    "gate": "on",
    "three seeds": "on (`SN17_GATE__MAX_SEEDS`)",
    "five seeds, not three": "off",
    "give back what no worker does": "on",
    "move a stalled job": "on",
    "enhance, fall back": "off (`SN17_ENHANCE__*`)",
    "enhance always": "not offered",
    "everything": "",
    "operator": "on",
    "swap, not a restart": "on (`strategy`), but for a device error, which restarts the container",
    "restart, not a swap": "a choice (`strategy`)",
    "recycle, not cordon alone": "on (`mode`)",
    "cordon alone, not observe": "a choice (`mode`)",
    "guard": "on",
    "rule: gaussians": "kept: it sees output that falls while memory is fine (recycling: x 1.5 to 1.9)",
    "guard without an operator": "on",
    "fixer policy measured": "on (`SN17_POLICY` of the fixer)",
    "fixer policy phase1": "a choice",
}

_HEAD: Final = """# What every decision earns

<!-- cd dev/bench/results; python -m sn17_bench.decisions --page decisions.json postmortem.json PAGE -->

For whoever asks whether an automatic decision is worth having. Each row compares the decision with the same
set-up without it: worst and best of all its worlds, with the 95 % interval. A decision is on by default only
where the lower end is at least 0.99 everywhere and above 1 somewhere. Every row:
`dev/bench/results/decisions.json`.

**Miner**: accepted assets, in virtual time: the real scheduler, fleet, learning, gate and parsing of answers
against the local validators' own rules and records, at acceptances from 10 to 90 %. Both meet the same tasks,
and differences by chance are subtracted.
"""

_OPERATOR: Final = """
**Operator**: good generations of four workers that start and leak differently, in two hours: the real
controller against a fleet in virtual time.
"""

_FIXER: Final = """
**Fixer**: accepted a day at three local validators of different strictness; the damages are those of
`python -m sn17_bench.fixer`, the scorer is the local validators'. The interval is over assets.
"""

_TABLE: Final = """
| decision | worlds | worst | in | best | in | earns | by default |
|---|---|---|---|---|---|---|---|
"""

_FOOT: Final = """
Taken out: which validator first when workers are scarce, weighed by stake, acceptance and delivery (five
worlds, 0.9994 to 1.0006, lowest bound 0.995). Whoever has waited longest goes first.

The world is held against a live run on the local validators (`test_it_reproduces_the_live_run`): idle time,
cycle and acceptance within a few percent. What it cannot tell is whether enhancement raises quality: its rows
assume a gain or a loss.
"""


_POSTMORTEM: Final = """
## The post-mortem, replayed

`make postmortem` (a minute, no GPU), a demonstration on local validators and not on the subnet: one opacity
for all, 50,000 gaussians as memory fills, threshold restarts and 85 steps, against sn17. Accepted share, and
accepted a day with the factor on the old set-up.

| set-up | strict | a day | lenient | a day |
|---|---|---|---|---|
"""


def page(found: dict[str, Any], postmortem: dict[str, Any]) -> str:
    """Markdown of the results that ``decisions --json`` and ``postmortem --json`` wrote."""
    parts = ((_HEAD, "miner"), (_OPERATOR, "operator"), (_FIXER, "fixer"))
    tables = "".join(head + _TABLE + _lines(found[part]) for head, part in parts)
    return tables + _missing(found["miner"]) + _FOOT + _POSTMORTEM + _setups(postmortem["rows"])


def not_played(rows: list[dict[str, Any]]) -> list[str]:
    """Worlds of the miner's decisions that a result does not hold at every acceptance."""
    there = {(row["decision"], row["world"], row["acceptance"]) for row in rows}
    return [
        f"{each.decision} ({each.world})"
        for each in ablations()
        if any((each.decision, each.world, acceptance) not in there for acceptance in each.acceptances)
    ]


def _missing(rows: list[dict[str, Any]]) -> str:
    missing = not_played(rows)
    return (
        f"\nListed, but not played at every acceptance in this result: {', '.join(missing)}.\n"
        if missing
        else ""
    )


def _setups(rows: list[dict[str, Any]]) -> str:
    old = {row["validator"]: row["accepted_a_day"] for row in rows if row["setup"] == "old"}
    text = ""
    for setup in dict.fromkeys(row["setup"] for row in rows):
        cells = [
            f"{row['acceptance']:.0%} | {row['accepted_a_day']:.0f}"
            f" (x {row['accepted_a_day'] / max(old[row['validator']], 0.1):.1f})"
            for row in rows
            if row["setup"] == setup
        ]
        text += f"| {setup} | {' | '.join(cells)} |\n"
    return text


def _lines(rows: list[dict[str, Any]]) -> str:
    text = ""
    for decision, group in _groups(rows):
        worst, best = min(group, key=lambda row: row["low"]), max(group, key=lambda row: row["low"])
        worlds = len({row["world"] for row in group})
        text += (
            f"| {decision} | {worlds} | {_interval(worst)} | {_where(worst)} | {_interval(best)}"
            f" | {_where(best)} | {'yes' if _earns(group) else 'no'} | {DEFAULTS.get(decision, 'on')} |\n"
        )
    return text


def _groups(rows: list[dict[str, Any]]) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    for decision in dict.fromkeys(row["decision"] for row in rows):
        yield decision, [row for row in rows if row["decision"] == decision]


def _where(row: dict[str, Any]) -> str:
    return f"{row['world']}, at {row['acceptance']:.0%}" if "acceptance" in row else str(row["world"])


def _interval(row: dict[str, Any]) -> str:
    return f"{row['ratio']:.2f} ({row['low']:.3f} to {row['high']:.3f})"


def _earns(rows: list[dict[str, Any]]) -> bool:
    return min(row["low"] for row in rows) >= NEVER_BELOW and max(row["low"] for row in rows) > 1.0


def earning(found: dict[str, Any]) -> dict[str, bool]:
    """Which decisions earn, by name, over all worlds."""
    parts = [found[part] for part in ("miner", "operator", "fixer") if part in found]
    return {name: _earns(group) for part in parts for name, group in _groups(part)}
