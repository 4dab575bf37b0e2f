"""Starts a model process where none serves: after a replacement, and after one that died on its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from sn17_contract.backoff import Backoff
from sn17_contract.metrics import RerunCause, SwapPhase

from sn17_trellis.model_process.keeper import Keeper
from sn17_trellis.model_process.life import Life
from sn17_trellis.model_process.processes import Fresh

BACKOFF: Final = Backoff(first=1.0, cap=60.0)

log = logging.getLogger("sn17.trellis.lives")


def revive(keeper: Keeper) -> None:
    """The process died on its own: start another one, again and again."""
    old = keeper.install(None)
    if old is not None:
        death = old.death
        log.error("%s", death or "the model process is gone")
        killed = death is not None and death.cause is RerunCause.KILLED
        keeper.run.reaped(old, "killed" if killed else "crashed")

    def began(phase: SwapPhase) -> None:
        keeper.phase = phase

    start_anew(keeper, began)


def start_anew(keeper: Keeper, began: Callable[[SwapPhase], None], *, canary: bool = True) -> Fresh | None:
    """Start until one is ready, with a back-off; None when the service ends before.

    Without ``canary`` the first is believed; one that follows a failed start is not.
    """
    while not keeper.closing():
        made: list[Life] = []
        try:
            fresh = keeper.run.bring_up(began, keeper.check_closing, made.append, canary=canary)
        except Exception as error:
            if keeper.closing():
                break
            canary = True
            keeper.failed_starts += 1
            keeper.metrics.start_failures.inc()
            wait = BACKOFF.seconds(keeper.failed_starts)
            keeper.failing, keeper.phase = f"ModelFailing: {error}", None
            log.error(
                "the model process does not start (%d in a row), again in %.0f s: %s",
                *(keeper.failed_starts, wait, error),
            )
            for life in made:
                life.give_up(RerunCause.CRASHED, "it did not start")
                keeper.run.reaped(life, "crashed")
            keeper.pause(wait)
            continue
        keeper.serve_alone(fresh)
        keeper.phase = None
        return fresh
    return None
