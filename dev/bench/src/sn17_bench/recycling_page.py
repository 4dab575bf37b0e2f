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
