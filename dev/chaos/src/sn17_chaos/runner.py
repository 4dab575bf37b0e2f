"""Inject, undo, wait for recovery by what is seen, hold the history against the invariants."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TypeVar

from sn17_chaos.faults import Fault
from sn17_chaos.history import History
from sn17_chaos.invariants import Breach, check
from sn17_chaos.results import PAIR, UNDISTURBED


class World(Protocol):
    """What a trial needs of a running stack. Times are its own clock's."""

    name: str

    def position(self) -> Any:
        """Where a trial's history starts."""

    def live(self, seconds: float) -> None:
        """Let it go on."""

    def recover(self, since: float, deadline: float) -> str:
        """Wait until all is as before; what is not by the deadline, empty when all is."""

    def history(self, position: Any, until: float, unrecovered: str) -> History:
        """What happened since that position."""


W = TypeVar("W", bound=World)


@dataclass(frozen=True, slots=True)
class Trial:
    """One injection of one fault, or of two at once."""

    name: str
    faults: Sequence[str]
    tasks: int
    breaches: Sequence[Breach]
    recovery: float | None
    """Seconds from the end of the fault until all was as before; None when it was not."""
    history: History


def title(faults: Sequence[Fault[Any]]) -> str:
    """How the table calls it."""
    return PAIR if len(faults) > 1 else "".join(fault.name for fault in faults) or UNDISTURBED


def trial(
    world: W,
    faults: Sequence[Fault[W]],
    rng: Random,
    *,
    deadline: float,
    rest: float = 3.0,
    clock: Callable[[], float] = time.time,
) -> Trial:
    """Inject these faults at once; without any, let the world alone for ``rest`` seconds.

    Raises CannotInjectError before anything is broken, or with the faults undone.
    """
    position = world.position()
    lasts = max((rng.uniform(*fault.seconds) for fault in faults), default=rest)
    with ExitStack() as undoes:
        for fault in faults:
            undoes.callback(fault.inject(world, rng))
        world.live(lasts)
    over = clock()
    unrecovered = world.recover(over, deadline)
    recovery = None if unrecovered else clock() - over
    history = world.history(position, over, unrecovered)
    names = [fault.name for fault in faults]
    return Trial(title(faults), names, len(history.assigned), check(history), recovery, history)
