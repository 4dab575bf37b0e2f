"""Several fleets under one operator, each with faults of its own and at the same time as the others.

A lane's faults reach one fleet only: requests about its objects, series of its workers, its workers.
Most of a trial is waiting, so lanes side by side make more of a machine than one world after another.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sn17_chaos.gateway import PASS, Asked, Verdict
from sn17_chaos.plane_world import WORKERS, PlaneWorld
from sn17_chaos.quick_fleet import SPEC, QuickFleet

Series = dict[str, Any]
SeriesRule = Callable[[str, list[Series]], list[Series]]


@dataclass(slots=True)
class Lane(PlaneWorld):
    """One fleet of a host's operator. ``series_rule``: what becomes of its series in an answer to a query."""

    host: PlaneWorld | None = None
    series_rule: SeriesRule | None = None
    down: set[str] = field(default_factory=set)

    def start(self) -> None:
        host = self.host
        assert host is not None
        self.name = "lane"
        self.rng = Random(self.seed)
        self.plane, self.prometheus = host.plane, host.prometheus
        self.operators, self.wanted, self.log = host.operators, host.wanted, host.log
        number = len(host.lanes)
        self.fleet = QuickFleet(
            self.plane,
            host.fleet.namespace,
            self.prometheus,
            20 + (host.seed + 7 * (number + 1)) % 200,
            name=f"w{number}",
            rescrape=host.rescrape,
        )
        host.lanes.append(self)
        self.fleet.deploy(WORKERS, name=self.fleet.name)
        self.adopt()
        self.fleet.miner(**SPEC)
        self.wait("Healthy", lambda: self.fleet.status().get("status") == "Healthy", 90)

    def close(self) -> None:
        self.fleet.close()

    def mine(self, series: Series) -> bool:
        return str(series.get("metric", {}).get("pod", "")).startswith(f"{self.fleet.name}-")


@dataclass(slots=True)
class LanesWorld:
    """A control plane with ``count`` lanes."""

    host: PlaneWorld
    count: int

    def start(self) -> None:
        self.host.start()
        for number in range(self.count):
            lane = Lane(self.host.folder, self.host.seed * 100 + number, host=self.host)
            lane.start()
        self.host.metrics.rule = self._query

    def close(self) -> None:
        for lane in self.host.lanes:
            with contextlib.suppress(OSError):
                lane.close()
        self.host.close()

    @property
    def lanes(self) -> list[Lane]:
        return [lane for lane in self.host.lanes if isinstance(lane, Lane)]

    def _query(self, asked: Asked) -> Verdict:
        query = asked.query.get("query", "")
        rules = [(lane, lane.series_rule) for lane in self.lanes if lane.series_rule is not None]
        if not rules:
            return PASS

        def change(body: bytes) -> bytes:
            try:
                answer = json.loads(body)
                result: list[Series] = answer["data"]["result"]
            except (ValueError, KeyError):
                return body
            for lane, rule in rules:
                own = [series for series in result if lane.mine(series)]
                result = [series for series in result if not lane.mine(series)] + rule(query, own)
            answer["data"]["result"] = result
            return json.dumps(answer).encode()

        return Verdict(change=change)
