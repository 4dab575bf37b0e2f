"""Draws a board's panels from its JSON and a Prometheus, for the docs.

It shows what the queries give; it does not show how Grafana looks.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MultipleLocator
from PIL import Image
from sn17_http import client_for

from sn17_dashboards.boards import thresholds
from sn17_dashboards.prometheus import Series, Window, filled_in, query_range

PALETTE = ("#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#e02f44", "#b877d9", "#19c5c5", "#c8f2c2", "#a16a3a")
COLOURS = {
    "green": "#73bf69",
    "yellow": "#f2cc0c",
    "orange": "#ff9830",
    "red": "#f2495c",
    "purple": "#b877d9",
    "blue": "#5794f2",
    "gray": "#8e8e8e",
    "text": "#ccccdc",
}
PAPER, PANEL, INK, FAINT = "#111217", "#181b1f", "#ccccdc", "#3a3d44"
LETTER = 0.0052
"""Of the picture's width, at the size of the annotations' names."""
LINES_IN_LEGEND = 9
LEGEND_COLUMNS = 5
"""Of the board's 24, at the right of a graph."""
TICKS = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
"""Distances of the time axis's ticks, in seconds."""
DAY = 86400.0
NAN = float("nan")


def draw_boards(folder: Path, url: str, seconds: float, into: Path) -> int:
    """One PNG per board. Returns 1 when a panel had no series, which is said."""
    into.mkdir(parents=True, exist_ok=True)
    end = time.time()
    window = Window(end - seconds, end, max(2.0, seconds / 200))
    empty: list[str] = []
    with client_for(url.rstrip("/"), timeout=30) as client:
        variables = chosen(client, window)
        for path in sorted(folder.glob("*.json")):
            board = json.loads(thresholds.filled_in(path.read_text()))
            empty += [f"{path.stem}: {title}" for title in _draw(board, client, variables, window, into)]
    for name in empty:
        sys.stderr.write(f"no series: {name}\n")
    return 1 if empty else 0


def chosen(client: httpx2.Client, window: Window, span: str = "15m") -> dict[str, str]:
    """Values of a board's variables: the release that Prometheus knows."""
    known = query_range(client, "group by (namespace, release) (sn17_boot_info)", window)
    labels = known[0].labels if known else {}
    return {
        "namespace": labels.get("namespace", ""),
        "release": labels.get("release", ""),
        "validator": ".*",
        "window": span,
        # Four scrapes and more, as Grafana computes it from the scrape interval.
        "__rate_interval": f"{max(20, round(window.step * 2))}s",
    }


def _draw(
    board: Mapping[str, Any], client: httpx2.Client, variables: Mapping[str, str], window: Window, into: Path
) -> list[str]:
    panels = [p for p in board["panels"] if p["type"] != "row"]
    rows = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels)
    mpl.rcParams.update({"font.family": "DejaVu Sans", "font.size": 8})
    height = rows * 0.29 + 0.5
    figure = Figure(figsize=(13, height), facecolor=PAPER, dpi=100)
    grid = figure.add_gridspec(
        rows, 24, left=0.045, right=0.995, top=1 - 0.5 / height, bottom=0.005, hspace=0, wspace=0
    )
    figure.suptitle(board["title"], color=INK, fontsize=13, x=0.01, ha="left", y=1 - 0.1 / height, va="top")
    moments = _moments(board, client, variables, window)
    right = 0.99
    for annotation in board["annotations"]["list"]:
        said = f"\u250a {annotation['name'].lower()}"
        place = {"x": right, "y": 1 - 0.15 / height, "ha": "right", "va": "top"}
        figure.text(s=said, color=COLOURS[annotation["iconColor"]], fontsize=8, **place)
        right -= 0.02 + LETTER * len(said)
    empty = []
    for panel in panels:
        at = panel["gridPos"]
        # Columns at the right are the legend's; a row at the top is the title's.
        aside = LEGEND_COLUMNS if panel["type"] == "timeseries" else 1
        axes = figure.add_subplot(
            grid[at["y"] + 1 : at["y"] + at["h"] - 1, at["x"] : at["x"] + at["w"] - aside]
        )
        lines = [
            (series, target, _fixed_colour(panel, target["refId"]))
            for target in panel["targets"]
            for series in query_range(client, filled_in(target["expr"], variables), window)
        ]
        if all(constant for _, _, constant in lines):
            empty.append(panel["title"])
        _frame(axes, panel)
        if panel["type"] == "table":
            _table(axes, panel, lines)
        elif panel["type"] == "stat":
            # An instant query, as Grafana makes it, does not know what has ended.
            now = window.end - 2 * window.step
            _numbers(axes, panel, [line for line in lines if line[0].samples[-1][0] >= now])
        else:
            _graph(axes, panel, lines, window, moments)
    name = board["uid"].removeprefix("sn17-")
    _save(figure, into / f"{name}.png")
    return empty


def _save(figure: Figure, path: Path) -> None:
    """With a palette of the picture's own, which is a third of the bytes and none of the colours."""
    picture = BytesIO()
    figure.savefig(picture, format="png", facecolor=PAPER)
    picture.seek(0)
    few = (
        Image.open(picture).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    )
    few.save(path, optimize=True)


def _moments(
    board: Mapping[str, Any], client: httpx2.Client, variables: Mapping[str, str], window: Window
) -> list[tuple[float, str]]:
    """(time, colour) where an annotation begins."""
    found = []
    for annotation in board["annotations"]["list"]:
        for series in query_range(client, filled_in(annotation["expr"], variables), window):
            times = [at for at, _ in series.samples]
            begins = [t for i, t in enumerate(times) if i == 0 or t - times[i - 1] > window.step * 1.5]
            found += [(at, COLOURS[annotation["iconColor"]]) for at in begins]
    return found


def _fixed_colour(panel: Mapping[str, Any], matched: str) -> str:
    """The colour that the panel gives to a query (by its letter) or to a series (by its name); else empty."""
    for override in panel["fieldConfig"].get("overrides", []):
        if override["matcher"]["options"] == matched:
            values = {each["id"]: each["value"] for each in override["properties"]}
            return COLOURS[values["color"]["fixedColor"]] if "color" in values else ""
    return ""


def units(panel: Mapping[str, Any]) -> dict[str, str]:
    """The units of the panel's queries by their names, where they have one of their own."""
    return {
        override["matcher"]["options"]: each["value"]
        for override in panel["fieldConfig"].get("overrides", [])
        for each in override["properties"]
        if each["id"] == "unit"
    }


def _frame(axes: Axes, panel: Mapping[str, Any]) -> None:
    axes.set_facecolor(PANEL)
    axes.set_title(panel["title"], color=INK, fontsize=9, loc="left", pad=4)
    axes.tick_params(colors=INK, length=2)
    axes.grid(color=FAINT, linewidth=0.4)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(FAINT)


def _graph(
    axes: Axes,
    panel: Mapping[str, Any],
    lines: Sequence[tuple[Series, Mapping[str, Any], str]],
    window: Window,
    moments: Sequence[tuple[float, str]],
) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    bars = defaults["custom"].get("drawStyle") == "bars"
    below: dict[float, float] = {}
    shown = 0
    for series, target, constant in lines:
        label = _legend(target["legendFormat"], series.labels)
        named = _fixed_colour(panel, label)
        label = label if shown < LINES_IN_LEGEND else "_"
        times = [at / DAY for at, _ in series.samples]
        values = [value for _, value in series.samples]
        colour = named or PALETTE[shown % len(PALETTE)]
        if constant:
            axes.plot(times, values, color=constant, linewidth=0.9, linestyle=(0, (6, 4)), label=label)
            continue
        shown += 1
        if bars:
            bottom = [below.get(at, 0.0) for at, _ in series.samples]
            width = window.step / DAY
            axes.bar(times, values, width=width, bottom=bottom, color=colour, alpha=0.85, label=label)
            below.update({at: below.get(at, 0.0) + value for at, value in series.samples})
        else:
            gaps = [
                value
                if i == 0 or series.samples[i][0] - series.samples[i - 1][0] < window.step * 1.5
                else NAN
                for i, value in enumerate(values)
            ]
            marker = "." if len(values) == 1 else None
            axes.plot(times, gaps, color=colour, linewidth=1.3, label=label, marker=marker)
    for at, colour in moments:
        axes.axvline(at / DAY, color=colour, linewidth=1.1, linestyle=(0, (1, 2)))
    axes.set_xlim(window.start / DAY, window.end / DAY)
    axes.set_ylim(bottom=defaults.get("min"), top=defaults.get("max"))
    if defaults["unit"] == "percentunit":
        axes.set_ylim(bottom=-0.02, top=1.02 if defaults.get("max") else None)
    elif defaults["unit"] == "bytes":
        axes.yaxis.set_major_locator(MultipleLocator(_binary_step(axes.get_ylim()[1])))
    elif defaults["unit"] == "short" and axes.get_ylim()[1] < 1:
        axes.set_ylim(top=1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formatted(value, defaults["unit"])))
    axes.xaxis.set_major_locator(FixedLocator(_times(window)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda day, _: _clock(day, window.end - window.start)))
    if lines:
        legend = axes.legend(
            loc="upper left", bbox_to_anchor=(1.0, 1.03), fontsize=7, frameon=False, handlelength=1.6
        )
        for text in legend.get_texts():
            text.set_color(INK)
    else:
        axes.text(0.5, 0.5, defaults["noValue"], color=INK, ha="center", transform=axes.transAxes)


def _times(window: Window) -> list[float]:
    """Round times, six at most."""
    step = next((s for s in TICKS if (window.end - window.start) / s <= 6), TICKS[-1])
    first = math.ceil(window.start / step)
    return [n * step / DAY for n in range(first, math.floor(window.end / step) + 1)]


def _clock(day: float, seconds: float) -> str:
    """Minutes on a long axis, seconds on a short one."""
    return datetime.fromtimestamp(day * DAY, UTC).strftime("%H:%M" if seconds > 360 else "%H:%M:%S")


def _binary_step(top: float) -> float:
    """A distance of ticks that is a power of two, for four to eight of them."""
    return float(2 ** max(0, math.ceil(math.log2(max(top, 8.0) / 8))))


def _numbers(
    axes: Axes, panel: Mapping[str, Any], lines: Sequence[tuple[Series, Mapping[str, Any], str]]
) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    defaults = panel["fieldConfig"]["defaults"]
    for index, (series, target, _) in enumerate(lines):
        value = series.samples[-1][1]
        colour = COLOURS[defaults["thresholds"]["steps"][0]["color"]]
        for step in defaults["thresholds"]["steps"][1:]:
            colour = COLOURS[step["color"]] if value >= step["value"] else colour
        x = (index + 0.5) / len(lines)
        name = _legend(target["legendFormat"], series.labels)
        number = formatted(value, defaults["unit"])
        axes.text(x, 0.62, number, color=colour, fontsize=17, ha="center", va="center")
        axes.text(x, 0.3, name, color=INK, fontsize=8, ha="center", va="center")
    if not lines:
        axes.text(0.5, 0.5, defaults["noValue"], color=INK, ha="center")


def _table(
    axes: Axes, panel: Mapping[str, Any], lines: Sequence[tuple[Series, Mapping[str, Any], str]]
) -> None:
    """Rows by the label that the series have in common, a column per query."""
    axes.set_xticks([])
    axes.set_yticks([])
    unit = units(panel)
    columns = [target["legendFormat"] for target in panel["targets"]]
    cells: dict[str, dict[str, str]] = {}
    for series, target, _ in lines:
        row = cells.setdefault(" ".join(series.labels.values()), {})
        column = target["legendFormat"]
        row[column] = formatted(series.samples[-1][1], unit[column])
    rows = [
        ["", *columns],
        *([name, *(row.get(c, "-") for c in columns)] for name, row in sorted(cells.items())),
    ]
    for y, row_cells in enumerate(rows):
        for x, text in enumerate(row_cells):
            at = ((x + 0.03) / len(rows[0]), 1 - (y + 0.6) / max(4, len(rows)))
            axes.text(*at, text, color=INK, fontsize=9, transform=axes.transAxes, va="center")


def _legend(pattern: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), pattern)


def formatted(value: float, unit: str) -> str:
    """A number as Grafana writes it in one of the units the boards use."""
    if unit == "percentunit":
        return f"{value:.0%}"
    if unit == "bytes":
        for size, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return f"{value:.0f} B"
    if unit == "s":
        if abs(value) >= 120:
            return f"{value / 60:.3g} min"
        return f"{value:.3g} s" if abs(value) >= 1 or value == 0 else f"{value * 1000:.3g} ms"
    if unit == "ops":
        return f"{value:.3g}/s"
    if unit == "short" and abs(value) >= 1000:
        return f"{value / 1000:.4g} K" if abs(value) < 1e6 else f"{value / 1e6:.4g} Mil"
    return f"{value:.4g}"
