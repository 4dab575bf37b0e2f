"""When to ask which node of which gateway for tasks: one state machine per node, no I/O, no clock of its own.

A task lives on one node, so every node is asked for itself. One that had nothing is asked again after a pause
and for a single task; one that filled the order is asked again at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from sn17_contract.backoff import Backoff
from sn17_contract.tasks import NodePhase

MOST_NODES: Final = 32
"""Of one gateway: a list that grows without end is a fault of its gateway."""


@dataclass(slots=True)
class Node:
    """One node. ``wake_at`` Unix seconds: not before it, or since when it is ready."""

    door: str
    url: str
    wake_at: float
    phase: NodePhase = NodePhase.READY
    reason: str = "new"
    failures: int = 0
    plenty: bool = False
    """It filled the last order."""
    leaving: bool = False
    """No longer listed by its gateway; goes when its call is over."""


@dataclass(frozen=True, slots=True)
class Order:
    """Ask ``node`` for ``count`` tasks."""

    node: Node
    count: int


@dataclass(slots=True)
class Nodes:
    """``pauses``: seconds between two calls to a node without tasks, by door."""

    pauses: Mapping[str, float]
    rng: Random
    failure_rest: float = 2.0
    refused_rest: float = 30.0
    longest_rest: float = 120.0
    jitter: float = 0.2
    nodes: dict[tuple[str, str], Node] = field(default_factory=dict)

    def sync(self, now: float, door: str, urls: Iterable[str]) -> tuple[list[str], list[str]]:
        """Take over the list of a gateway's nodes; (new ones, dropped ones)."""
        wanted = list(dict.fromkeys(urls))[:MOST_NODES]
        known = [node for node in self.nodes.values() if node.door == door]
        for node in known:
            node.leaving = node.url not in wanted
        gone = [node.url for node in known if node.leaving]
        new = [url for url in wanted if (door, url) not in self.nodes]
        for url in new:
            self.nodes[door, url] = Node(door, url, now)
        self._sweep()
        return new, gone

    def wanted(self, now: float, free: int) -> dict[str, int]:
        """How many workers each door could use now, at most ``free``."""
        wanted = dict.fromkeys(self.pauses, 0)
        for node in self._due(now):
            wanted[node.door] = min(free, wanted[node.door] + (free if node.plenty else 1))
        return wanted

    def orders(self, now: float, granted: Mapping[str, int]) -> list[Order]:
        """What to ask now, so that no door gets more than it was granted; who waits longest comes first."""
        left, orders = dict(granted), []
        for node in self._due(now):
            count = left.get(node.door, 0) if node.plenty else min(1, left.get(node.door, 0))
            if count > 0:
                left[node.door] -= count
                node.phase, node.reason = NodePhase.PULLING, f"asked for {count}"
                orders.append(Order(node, count))
        return orders

    def wake_at(self) -> float | None:
        """When the next resting node is due."""
        resting = (n.wake_at for n in self.nodes.values() if n.phase is NodePhase.RESTING)
        return min(resting, default=None)

    # --- what happened --------------------------------------------------------------------------

    def on_tasks(self, now: float, node: Node, asked: int, came: int) -> None:
        """It answered."""
        node.failures, node.plenty = 0, came >= asked
        if node.plenty:
            node.phase, node.reason, node.wake_at = NodePhase.READY, f"gave {came}", now
            self._sweep()
        else:
            self._rest(node, now + self.pauses[node.door], f"gave {came} of {asked}" if came else "no tasks")

    def on_failed(self, now: float, node: Node, reason: str, *, refused: bool = False) -> None:
        """No usable answer; ``refused``: it told us that we may not, which seldom changes soon."""
        node.failures += 1
        node.plenty = False
        first = self.refused_rest if refused else self.failure_rest
        again = Backoff(first, max(first, self.longest_rest), self.jitter)
        self._rest(node, now + again.seconds(node.failures, self.rng), reason)

    def _rest(self, node: Node, until: float, reason: str) -> None:
        node.phase, node.reason, node.wake_at = NodePhase.RESTING, reason, until
        self._sweep()

    def _due(self, now: float) -> list[Node]:
        for node in self.nodes.values():
            if node.phase is NodePhase.RESTING and now >= node.wake_at:
                node.phase = NodePhase.READY
        ready = [n for n in self.nodes.values() if n.phase is NodePhase.READY and not n.leaving]
        return sorted(ready, key=lambda node: node.wake_at)

    def _sweep(self) -> None:
        for key, node in list(self.nodes.items()):
            if node.leaving and node.phase is not NodePhase.PULLING:
                del self.nodes[key]
