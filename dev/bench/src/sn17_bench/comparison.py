"""The same leak under four guardians, on one real cluster at the same time.

    python -m sn17_bench.comparison [--minutes N] [--leak MIB] [--archives FILE ...]
                                    [--json FILE] [--png FILE]
    python -m sn17_bench.comparison --from FILE --png FILE

Two workers each lose 1.5 % of their limit of 1Gi at every generation (--leak: MiB), and as memory fills
their assets shrink to an eighth. Arms: the worker's own guard without an operator; nothing but kubelet's
restart after an OOM kill (the baseline); a process manager that looks at the memory and restarts at a
threshold, as PM2 does, SIGINT and 1.6 s later SIGKILL; and sn17. Everything else is the same, the network's
fast motion of 1:20 included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[4]


COLUMNS = {
    "accepted_per_hour": "accepted per hour",
    "mean_gaussians": "mean gaussians",
    "tasks": "tasks",
    "lost": "lost",
    "rejected": "rejected",
    "oom_kills": "OOM kills",
    "restarts": "restarts",
    "killed_at_work": "killed at work",
}
PANELS = {
    "accepted_per_hour": "accepted per hour",
    "lost_percent": "lost, % of tasks",
    "oom_kills": "OOM kills",
    "killed_at_work": "killed in mid-job",
    "mean_gaussians": "mean gaussians",
}


def show(rows: list[dict[str, Any]]) -> None:
    lines = [["", *COLUMNS.values()], *([row["arm"], *(str(row[key]) for key in COLUMNS)] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for number, line in enumerate(lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def draw(rows: list[dict[str, Any]], path: Path, about: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [{**row, "lost_percent": round(100 * row["lost"] / max(1, row["tasks"]))} for row in rows]
    names = [row["arm"].replace(", ", ",\n").replace(" (", "\n(") for row in rows]
    colours = ["#2f6fb5" if row["arm"] == "sn17" else "#b9bec6" for row in rows]
    figure, axes = plt.subplots(1, len(PANELS), figsize=(12, 3.4), sharey=True)
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        values = [row[key] for row in rows]
        bars = axis.barh(names, values, color=colours, height=0.62)
        axis.bar_label(bars, labels=[f"{value:,}" for value in values], padding=4, fontsize=9)
        axis.set_title(title, fontsize=11, loc="left")
        axis.set_xlim(0, max(values) * 1.3 or 1)
        axis.xaxis.set_visible(False)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(axis="y", length=0, labelsize=9)
    axes[0].invert_yaxis()
    figure.text(0.005, 0.01, about, fontsize=7.5, color="#555")
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--leak", type=float, help="MiB that a worker of 1Gi loses at each generation")
    parser.add_argument("--archives", type=Path, nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    parser.add_argument("--from", dest="source", type=Path, help="draw and show an earlier result")
    options = parser.parse_args()
    if options.source:
        found = json.loads(options.source.read_text())
    else:
        from sn17_chaos.cluster_bed import bed
        from sn17_chaos.cluster_compare import LEAK_MIB, compare

        leak = options.leak or LEAK_MIB
        with bed(archives=options.archives) as on:
            results = compare(on, options.minutes, lambda text: print(text, flush=True), leak)
        commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True)
        found = {
            "commit": commit.strip(),
            "date": datetime.now(UTC).date().isoformat(),
            "leak_mib": leak,
            "arms": [asdict(each) for each in results],
        }
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    show(found["arms"])
    if options.png:
        minutes = found["arms"][0]["minutes"]
        about = (
            f"the same leak of {found['leak_mib']:g} MiB a generation, 2 workers of 1Gi each,"
            f" {minutes:g} minutes at 1:20 on one cluster; {found['date']}, {found['commit']}"
        )
        draw(found["arms"], options.png, about)


if __name__ == "__main__":
    main()
