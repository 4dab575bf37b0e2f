"""The same leak under several ways to live with it, on one real cluster.

    python -m sn17_bench.comparison [--minutes N] [--leaks MIB ...] [--load-seconds S] [--validators N]
                                    [--at-once N] [--arms NAME ...] [--archives FILE ...] [--json FILE]
                                    [--png FILE]
    python -m sn17_bench.comparison --from FILE --png FILE

At each of the points every arm has two workers of 1Gi that lose so many MiB at every generation; a model
process holds 21 % of the limit and takes a load time. Arms: no leak; nothing but kubelet's restart after an
OOM kill; a process manager that restarts at a threshold, as PM2 does, SIGINT and 1.6 s later SIGKILL; a
worker whose model process ends itself after a job above the threshold; the worker's own guard with its swaps
and no operator; sn17. Everything else is the same, the network's fast motion of 1:20 included. Jobs broken
off are counted from how containers and model processes end, in every arm alike. ``--at-once``: arms side by
side on the machine's processors; the others follow.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sn17_bench.stamp import stamp

COLUMNS = {
    "accepted_per_hour": "accepted per hour",
    "mean_gaussians": "mean gaussians",
    "tasks": "tasks",
    "lost": "lost",
    "rejected": "rejected",
    "oom_kills": "OOM kills",
    "restarts": "restarts",
    "killed_at_work": "broken off",
}
PANELS = {
    "accepted_per_hour": "accepted per hour",
    "oom_kills": "OOM kills",
    "killed_at_work": "jobs broken off",
}


def show(rows: list[dict[str, Any]]) -> None:
    lines = [["", *COLUMNS.values()], *([row["arm"], *(str(row[key]) for key in COLUMNS)] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for number, line in enumerate(lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def draw(found: dict[str, Any], path: Path) -> None:
    """A row of panels for each leak; the points' arms are the same."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    points = found["points"]
    largest = {key: max(arm[key] for point in points for arm in point["arms"]) for key in PANELS}
    figure, axes = plt.subplots(
        len(points), len(PANELS), figsize=(11, 2.3 * len(points) + 0.4), squeeze=False
    )
    for number, (row, point) in enumerate(zip(axes, points, strict=True)):
        names = [arm["arm"].replace(" (", "\n(").replace(", ", ",\n") for arm in point["arms"]]
        colours = ["#2f6fb5" if arm["arm"] == "sn17" else "#b9bec6" for arm in point["arms"]]
        for axis, (key, title) in zip(row, PANELS.items(), strict=True):
            values = [arm[key] for arm in point["arms"]]
            bars = axis.barh(names, values, color=colours, height=0.68)
            axis.bar_label(bars, labels=[f"{value:,}" for value in values], padding=4, fontsize=9)
            axis.set_xlim(0, largest[key] * 1.2 or 1)
            axis.xaxis.set_visible(False)
            axis.spines[["top", "right", "bottom"]].set_visible(False)
            axis.tick_params(axis="y", length=0, labelsize=8.5, labelleft=axis is row[0])
            axis.invert_yaxis()
            if number == 0:
                axis.set_title(title, fontsize=11, loc="left")
        row[0].set_ylabel(f"{point['leak_mib']:g} MiB\na generation", fontsize=10)
    about = (
        f"2 workers of 1Gi for each way, {points[0]['arms'][0]['minutes']:g} minutes at 1:20 on one cluster;"
        f" {found['date']}, {found['commit']}"
    )
    figure.text(0.005, 0.005, about, fontsize=8, color="#555")
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="of each point and group of arms")
    parser.add_argument("--leaks", type=float, nargs="+", default=[2.0, 15.0, 51.0], metavar="MIB")
    parser.add_argument("--load-seconds", type=float, default=1.25, help="of the weights, at 1:20")
    parser.add_argument("--validators", type=int, default=12, help="how much work there is")
    parser.add_argument("--threshold", type=float, default=0.85, help="at which the rivals restart")
    parser.add_argument("--at-once", type=int, default=3)
    parser.add_argument("--arms", nargs="+", metavar="NAME", help="these only, side by side under one load")
    parser.add_argument("--archives", type=Path, nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    parser.add_argument("--from", dest="source", type=Path, help="draw and show an earlier result")
    options = parser.parse_args()
    found = json.loads(options.source.read_text()) if options.source else measure(options)
    for point in found["points"]:
        print(f"\n{point['leak_mib']:g} MiB a generation, weights load in {point['load_seconds']:g} s")
        show(point["arms"])
    if options.png:
        draw(found, options.png)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All points on one cluster; what is done is written at once."""
    from sn17_chaos.cluster_arms import ARMS
    from sn17_chaos.cluster_bed import bed
    from sn17_chaos.cluster_compare import Scene, compare

    arms = [arm for arm in ARMS if not options.arms or arm.name in options.arms]
    if options.arms and len(arms) != len(options.arms):
        raise SystemExit(f"--arms takes {', '.join(repr(arm.name) for arm in ARMS)}")
    found: dict[str, Any] = {
        **stamp(),
        "points": [],
    }
    with bed(archives=options.archives) as on:
        for leak in options.leaks:
            scene = Scene(leak, options.load_seconds, options.validators, options.threshold)
            point: dict[str, Any] = {
                **asdict(scene),
                "at_once": options.at_once,
                "arms": [],
                "load_average": [],
            }
            found["points"].append(point)
            for first in range(0, len(arms), options.at_once):
                group = arms[first : first + options.at_once]
                results = compare(on, options.minutes, lambda text: print(text, flush=True), scene, group)
                point["arms"] += [asdict(each) for each in results]
                point["load_average"].append(os.getloadavg()[0])
                if options.json:
                    options.json.write_text(json.dumps(found, indent=1) + "\n")
    return found


if __name__ == "__main__":
    main()
