"""Whom to ask for tasks now, over all doors: validators by their cooldowns, gateways by their nodes, and who
gets the workers by the doors' weights. No I/O, no clock of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sn17_contract.tasks import VALIDATORS

from sn17_miner.core.nodes import Nodes, Order
from sn17_miner.core.scheduler import FreeWorker, Pull, Scheduler
from sn17_miner.core.sharing import Sharing


@dataclass(frozen=True, slots=True)
class Errand:
    """An order for a node, and a worker for each task that it may bring."""

    order: Order
    workers: tuple[FreeWorker, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """What to do now, and when to look again at the latest (None: when something happens)."""

    pulls: tuple[Pull, ...]
    errands: tuple[Errand, ...]
    wake_at: float | None


@dataclass(slots=True)
class Doors:
    """Every worker that is handed out is charged to its door; ``Sharing.returned`` takes it back."""

    scheduler: Scheduler
    nodes: Nodes
    sharing: Sharing

    def plan(self, now: float, free: Sequence[FreeWorker], *, horizon: float, validators: bool) -> Round:
        """Calls to start now, with their workers, in the order given.

        Args:
            horizon: Seconds that a worker given away now is busy for. A validator due within them is kept
                one, unless a gateway has waited for its share.
            validators: Whether they may be asked at all.
        """
        ready, soon = self.scheduler.due(now, horizon) if validators else (0, 0)
        wanted = self.nodes.wanted(now, len(free)) | {VALIDATORS: ready + soon}
        granted = self.sharing.share(len(free), wanted)
        plan = self.scheduler.plan(now, free, allowed=min(ready, granted[VALIDATORS]))
        self.sharing.took(VALIDATORS, len(plan.pulls))
        left = list(free[len(plan.pulls) :])
        errands = []
        for order in self.nodes.orders(now, granted):
            errands.append(Errand(order, tuple(left[: order.count])))
            left = left[order.count :]
            self.sharing.took(order.node.door, order.count)
        waking = [at for at in (plan.wake_at, self.nodes.wake_at()) if at is not None]
        return Round(plan.pulls, tuple(errands), min(waking, default=None))
