"""How many workers could be at work: what an autoscaler goes by. No I/O; times are Unix seconds.

The number must not depend on how many workers there are, or a fleet of none would never see work: without a
worker nothing is pulled, so what could be pulled counts as well as what was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from sn17_contract.metrics import WorkState
from sn17_contract.tasks import VALIDATORS, Phase

from sn17_miner.core.scheduler import Lane

PROBE_SECONDS: Final = 900.0
"""A validator that gave nothing the last time is worth a worker again when it was not asked for so long."""

Work = dict[tuple[str, WorkState], int]


def workload(
    lanes: Iterable[Lane],
    now: float,
    ahead: float,
    *,
    doors: Mapping[str, str],
    held: Collection[str],
    waiting: Collection[str],
    queued: Mapping[str, int],
    pulls: bool,
) -> Work:
    """Tasks by door and state. A door whose queue is not known has no ``due``: no data is no empty queue.

    Args:
        ahead: Seconds that a worker needs to start; a cooldown that ends within them counts as ``soon``.
        doors: Door by holder, for every task under way; a holder is the name under which it takes a worker.
        held, waiting: Holders of workers, and holders that wait for one.
        queued: Tasks that a gateway said it has, by door.
        pulls: Whether validators may be asked, apart from there being a worker for it.
    """
    found: Counter[tuple[str, WorkState]] = Counter()
    for holder, door in doors.items():
        if holder in held:
            found[door, WorkState.RUNNING] += 1
        elif holder in waiting:
            found[door, WorkState.WAITING] += 1
    found.update({(door, WorkState.DUE): count for door, count in queued.items()})
    present = [lane for lane in lanes if not lane.leaving]
    proven = [lane for lane in present if lane.failures == 0]
    found[VALIDATORS, WorkState.RUNNING] += sum(lane.phase is Phase.PULLING for lane in proven)
    due = sum(_due(lane, now) for lane in proven)
    soon = sum(lane.phase is Phase.COOLING and now < lane.wake_at <= now + ahead for lane in proven)
    # Those that gave nothing the last time count as one together: one worker asks all of them.
    unasked = any(_due(lane, now - PROBE_SECONDS) for lane in present if lane.failures)
    found[VALIDATORS, WorkState.DUE] += due + unasked if pulls else 0
    found[VALIDATORS, WorkState.SOON] += soon if pulls else 0
    for door in {*doors.values(), *queued, VALIDATORS}:
        for state in (WorkState.RUNNING, WorkState.WAITING):
            found[door, state] += 0
    return dict(found)


def _due(lane: Lane, now: float) -> bool:
    """It can be asked, and could at ``now``."""
    return lane.phase in (Phase.READY, Phase.COOLING, Phase.RESTING) and now >= lane.wake_at
