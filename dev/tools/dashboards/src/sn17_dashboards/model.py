"""What a dashboard is made of, apart from how Grafana writes it down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sn17_contract.tasks import VALIDATORS

SELECTOR = 'namespace="$namespace",release="$release"'
"""Label matchers of every query: one release, whatever else the Prometheus scrapes."""

VALIDATOR = 'validator=~"$validator"'
"""Label matcher of what is known by validator; the board's variable chooses some or all."""

VALIDATORS_DOOR = f'door="{VALIDATORS}"'
"""Label matcher of validators' tasks: what gateways' clients get counts apart and dilutes nothing."""

Unit = Literal["percentunit", "bytes", "s", "short", "none", "ops"]
"""Grafana's unit names: a share of 1, bytes, seconds, a count, a bare number, events per second."""

Colour = Literal["green", "yellow", "orange", "red", "purple", "blue", "gray"]
"""Grafana's colour names."""


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression; ``legend`` names its series with ``{{label}}``."""

    expr: str
    legend: str
    constant: Colour | None = None
    """A line to compare with (a limit, a target), drawn dashed in this colour."""
    unit: Unit | None = None
    """Of a table's column; elsewhere the panel's holds."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number that the chart fills in for each release from its values (``sn17.thresholds``)."""

    name: str
    default: float
    """What the chart's own values make of it; for pictures and tests."""

    def __str__(self) -> str:
        """In queries and texts."""
        return f"@{self.name}@"


@dataclass(frozen=True, slots=True)
class ColourStep:
    """From ``value`` on, in the panel's unit, things have this colour."""

    value: float | Threshold
    colour: Colour


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. ``steps`` begin at the second colour: below the first step stands ``base``.

    A table has a row per label set and a column per query, named by the query's legend; its first column
    shows the label ``key``.
    """

    title: str
    text: str
    unit: Unit
    queries: tuple[Query, ...]
    kind: Literal["lines", "bars", "number", "table"] = "lines"
    base: Literal["green", "red", "text"] = "text"
    steps: tuple[ColourStep, ...] = ()
    minimum: float | None = 0
    maximum: float | None = None
    width: int = 12
    height: int = 8
    key: str = ""
    colours: tuple[tuple[str, Colour], ...] = ()
    """Fixed colours of series by the name their legend gives."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """Moments shown as vertical lines: where ``expr`` has a series."""

    name: str
    expr: str
    title: str
    colour: Colour


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard; ``name`` is its file's and the end of its uid."""

    name: str
    title: str
    text: str
    panels: tuple[Panel, ...]
    annotations: tuple[Annotation, ...] = ()


def selected(metric: str, matchers: str = "") -> str:
    """The metric of the chosen release, with further matchers."""
    return f"{metric}{{{SELECTOR}{',' if matchers else ''}{matchers}}}"


def increase(metric: str, matchers: str = "", window: str = "$window") -> str:
    """What a counter gained over the window.

    A series younger than the window has gained all it holds: ``increase`` alone starts from its first sample,
    so an event that is the first of its labels (a recycle, a device error) would never be seen.
    """
    series = selected(metric, matchers)
    return f"(({series} unless {series} offset {window}) or increase({series}[{window}]))"


def quantile(q: float, histogram: str, by: str, matchers: str = "", window: str = "$window") -> str:
    """A quantile of a histogram over the window; no observation, no series."""
    buckets = f"sum by (le, {by}) (rate({selected(histogram + '_bucket', matchers)}[{window}]))"
    return f"histogram_quantile({q}, {buckets})"
