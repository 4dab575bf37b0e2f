"""The page of decisions, generated from a result: one screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sn17_bench.ablation import Row, earns

DEFAULTS: Final = {
    "gate": "on",
    "three seeds": "on (`SN17_GATE__MAX_SEEDS`)",
    "validator first: urgency": "on",
    "give back what no worker does": "on",
    "move a stalled job": "on",
    "enhance, fall back": "off (`SN17_ENHANCE__*`)",
    "enhance always": "not offered",
    "everything": "",
}

_HEAD: Final = """# What every decision earns

<!-- python -m sn17_bench.decisions --page dev/bench/results/decisions.json docs/decisions.md -->

Accepted assets with the decision over the same without it, in virtual time: the real scheduler, fleet,
learning, gate and controller against the local validators' own rules. {days} days, {seeds} seeds, 95 %
intervals, for each world the worst and the best of acceptances from 10 to 90 % (commit {commit}, {date}). A
decision is on by default only where the lower end is at least 0.99 everywhere and above 1 somewhere. All
figures: `dev/bench/results/decisions.json`.

| decision | world | worst | at | best | at | by default |
|---|---|---|---|---|---|---|
"""

_OPERATOR: Final = """
The fleet of four workers that leak, fade and hang: good generations an hour (200,000 gaussians and more) in
eight hours. Nothing in it is random:

| decision | world | ratio | an hour | without | jobs lost | OOM kills |
|---|---|---|---|---|---|---|
"""

_FOOT: Final = """
The world is held against a live run on the local validators (`test_it_reproduces_the_live_run`): idle time,
cycle and acceptance within a few percent. What it cannot tell is whether enhancement raises quality: its rows
assume a gain.
"""


def _groups(rows: list[Row]) -> Iterable[tuple[str, str, list[Row]]]:
    names = dict.fromkeys((row.decision, row.world) for row in rows)
    for decision, world in names:
        yield decision, world, [row for row in rows if (row.decision, row.world) == (decision, world)]


def page(found: dict[str, Any]) -> str:
    """Markdown of a result that ``decisions --json`` wrote."""
    rows = [Row(**row) for row in found["miner"]]
    text = _HEAD.format(**{**found, "days": found["days"] or 10})
    for decision, world, group in _groups(rows):
        worst, best = min(group, key=lambda row: row.low), max(group, key=lambda row: row.low)
        default = DEFAULTS.get(decision, "")
        text += (
            f"| {decision} | {world} | {_interval(worst)} | {worst.acceptance:.0%} | {_interval(best)}"
            f" | {best.acceptance:.0%} | {default} |\n"
        )
    text += _OPERATOR
    for row in found["operator"]:
        text += (
            f"| {row['decision']} | {row['world']} | {row['ratio']:.3f} | {row['good_an_hour']:.0f}"
            f" | {row['good_without']:.0f} | {row['lost_jobs']} | {row['oom_kills']} |\n"
        )
    unproven = sorted(name for name, good in earning(found).items() if not good)
    note = found.get("note", "")
    return (
        text + _FOOT + f"\nNot shown to earn by that rule with so few seeds: {', '.join(unproven)}. {note}\n"
    )


def _interval(row: Row) -> str:
    return f"{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f})"


def earning(found: dict[str, Any]) -> dict[str, bool]:
    """Which of the miner's decisions earn, by name, over all worlds."""
    rows = [Row(**row) for row in found["miner"]]
    return {name: earns([r for r in rows if r.decision == name]) for name in {r.decision for r in rows}}
