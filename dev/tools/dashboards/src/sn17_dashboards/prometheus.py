"""Asks a Prometheus what a dashboard would ask it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2


class QueryError(Exception):
    """Prometheus refused a query, or answered with a warning; the message holds both."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its labels and (time, value) samples, NaN left out."""

    labels: Mapping[str, str]
    samples: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Window:
    """The time range of a board, seconds since the epoch, and the distance of its points."""

    start: float
    end: float
    step: float


def filled_in(expr: str, variables: Mapping[str, str]) -> str:
    """The expression with `$name` replaced, longest name first, as Grafana does."""
    for name in sorted(variables, key=len, reverse=True):
        expr = expr.replace(f"${{{name}}}", variables[name]).replace(f"${name}", variables[name])
    return expr


def query_range(client: httpx2.Client, expr: str, window: Window) -> list[Series]:
    """All series of an expression over the window, sorted by labels.

    Raises:
        QueryError: refused, or answered with a warning.
    """
    answer = client.get(
        "/api/v1/query_range",
        params={"query": expr, "start": window.start, "end": window.end, "step": window.step},
    )
    body: dict[str, Any] = answer.json()
    if body.get("status") != "success" or body.get("warnings"):
        raise QueryError(f"{body.get('error') or body.get('warnings')}: {expr}")
    found = [Series(result["metric"], _numbers(result["values"])) for result in body["data"]["result"]]
    return sorted((s for s in found if s.samples), key=lambda s: sorted(s.labels.items()))


def _numbers(values: list[tuple[float, str]]) -> tuple[tuple[float, float], ...]:
    pairs = ((float(at), float(value)) for at, value in values)
    return tuple((at, value) for at, value in pairs if not math.isnan(value))
