"""The chart and the table of the ways to live with workers that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sn17_simulation.recycling.case import Fault
from sn17_simulation.recycling.score import GUARD, NO_FAULT, PM2, SELF_EXIT, SN17

LEAKS: Final = (Fault.LEAK_02, Fault.LEAK_15, Fault.LEAK_5, Fault.LEAK_10)
FLEET: Final = (Fault.FADING, Fault.BAD_CARD, Fault.TMPFS_LEAK, Fault.HUNG)
OOM: Final = "restart when killed (OOM)"
SHORT: Final = {
    NO_FAULT: "no fault",
    OOM: "OOM restart",
    PM2: "PM2, best threshold",
    SELF_EXIT: "self-exit, best threshold",
    GUARD: "our guard alone",
    SN17: "sn17",
}


def find(found: dict[str, Any], fault: Fault, load: float) -> dict[str, Any]:
    """The case in the middle of the grid."""
    return next(
        case
        for case in found["cases"]
        if (case["fault"], case["load"], case["load_seconds"], case["job_seconds"])
        == (fault.value, load, 25.0, 20.0)
    )


def table(found: dict[str, Any], load: float) -> str:
    """The middle of the grid at a load, in Markdown."""
    names = [name for name in SHORT if name != NO_FAULT]
    lines = [
        f"| | {' | '.join(SHORT[name] for name in names)} | accepted, sn17 / best rival |",
        "|" + "---|" * (len(names) + 2),
    ]
    for fault in Fault:
        arms = {arm["arm"]: arm for arm in find(found, fault, load)["arms"]}
        cells = [
            f"{arm['lost'][0]:,.0f}; {arm['accepted_per_hour'][0]:,.0f}; {arm['interrupted'][0]:.0f},"
            f" {arm['oom_kills'][0]:.0f}"
            for arm in (arms[name] for name in names)
        ]
        mean, low, high = arms[SN17]["vs_best_rival"]
        lines.append(f"| {fault} | {' | '.join(cells)} | {mean:.3f} ({low:.3f} to {high:.3f}) |")
    return "\n".join(lines)


def edges(found: dict[str, Any]) -> str:
    """The whole grid by fault, in Markdown: worst and best of sn17 against the best rival, and where."""
    lines = ["| | cases | below 0.99 | worst | at | best | at |", "|---|---|---|---|---|---|---|"]
    for fault in Fault:
        cases = [
            (next(arm for arm in case["arms"] if arm["arm"] == SN17)["vs_best_rival"], case)
            for case in found["cases"]
            if case["fault"] == fault
        ]
        if cases:
            below = sum(high < 0.99 for (_, _, high), _ in cases)
            ends = (min, max)
            worst, best = (pick(cases, key=lambda each: each[0][0]) for pick in ends)
            cells = [f"{ratio[0]:.3f} | {_where(case)}" for ratio, case in (worst, best)]
            lines.append(f"| {fault} | {len(cases)} | {below} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _where(case: dict[str, Any]) -> str:
    return f"{case['load']:.0%}, {case['load_seconds']:g} s, {case['job_seconds']:g} s"


def draw(found: dict[str, Any], path: Path) -> None:
    """Above: what leaks cost at full load. Below: what is accepted where only the fleet's view helps."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(13, 5.6), sharey="row")
    panels = [
        *((axes[0][i], find(found, fault, 1.0), "lost") for i, fault in enumerate(LEAKS)),
        *((axes[1][i], find(found, fault, 0.8), "accepted_per_hour") for i, fault in enumerate(FLEET)),
    ]
    for axis, case, key in panels:
        arms = [arm for arm in case["arms"] if arm["arm"] in SHORT]
        values = [arm[key][0] for arm in arms]
        errors = [max(0.0, arm[key][2] - arm[key][0]) for arm in arms]
        colours = ["#2f6fb5" if arm["arm"] == SN17 else "#b9bec6" for arm in arms]
        names = [SHORT[arm["arm"]] for arm in arms]
        bars = axis.barh(names, values, xerr=errors, color=colours, ecolor="#777", height=0.62)
        axis.bar_label(bars, labels=[f"{value:,.0f}" for value in values], padding=6, fontsize=8)
        what = "device seconds lost per 1,000 jobs" if key == "lost" else "accepted per hour"
        axis.set_title(f"{case['fault']}\n{what}", fontsize=9, loc="left")
        axis.set_xlim(0, max(max(v + e for v, e in zip(values, errors, strict=True)) * 1.3, 1))
        axis.xaxis.set_visible(False)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(axis="y", length=0, labelsize=8)
    axes[0][0].invert_yaxis()
    axes[1][0].invert_yaxis()
    about = (
        "Simulated with the real decisions of miner, worker and operator: 4 devices, jobs of 20 s, weights"
        " that load in 25 s, load 100 % above and 80 % below; same tasks in every arm,"
        f" {found['cases'][0]['seeds']} seeds, lines are 95 %; {found['date']}, {found['commit']}"
    )
    figure.text(0.005, 0.008, about, fontsize=7, color="#555")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=140)
