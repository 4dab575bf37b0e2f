"""How long an act may take before it counts as failed, from what the worker says of its own start."""

from __future__ import annotations

from typing import Final

from sn17_contract.metrics import SwapPhase
from sn17_contract.worker import RecycleOutcome

from sn17_operator.api import Spec
from sn17_operator.core.model import RecycleResult
from sn17_operator.core.observation import SETTLE_SECONDS

STARTING: Final = frozenset({SwapPhase.SPAWN, SwapPhase.LOAD, SwapPhase.WARMUP, SwapPhase.CANARY})
SLOWER: Final = 4.0
"""A start beside busy neighbours may take so many times what the latest one took."""


def replacing_seconds(spec: Spec, heard: RecycleResult | None) -> float:
    """Seconds since the request after which a replacement has failed.

    ``heard`` is the worker's latest word. One that says nothing has the time that it would have to exit. One
    whose fresh process is being made ready has several times its own latest start, and one whose start was
    never measured, or whose new life only has to be scraped yet, the time of a replacement.
    """
    least = spec.recycle.exit_timeout_seconds + SETTLE_SECONDS
    if heard is None or (heard.outcome is None and heard.phase not in STARTING):
        return least
    most = float(spec.recycle.replacement_timeout_seconds)
    if heard.outcome is RecycleOutcome.DONE or heard.start_seconds is None:
        return max(least, most)
    return max(least, min(least + SLOWER * heard.start_seconds, most))
