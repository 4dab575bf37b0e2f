"""Two of the three acts: a swap beside the work, and a replacement instead of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from sn17_contract.metrics import RerunCause, SwapPhase
from sn17_contract.worker import RecycleOutcome

from sn17_trellis.model_process.acts import Act, Closing, TooLate
from sn17_trellis.model_process.anew import start_anew
from sn17_trellis.model_process.keeper import Keeper
from sn17_trellis.model_process.life import ALONE, Life
from sn17_trellis.model_process.messages import Turns
from sn17_trellis.model_process.processes import Fresh
from sn17_trellis.model_process.room import turn_seconds

PATIENT_SHARE: Final = 0.5
"""Of the time left: if warm-up or canary lasts longer, the fresh process is in a hurry."""

log = logging.getLogger("sn17.trellis.swap")


class Phases:
    """Logs each phase when it begins and counts its seconds when it is over."""

    def __init__(self, keeper: Keeper, act: Act) -> None:
        self._keeper = keeper
        self._act = act
        self._phase: SwapPhase | None = None
        self._since = self.began = time.monotonic()

    def begin(self, phase: SwapPhase) -> None:
        self._over()
        self._phase, self._since = phase, time.monotonic()
        log.info(
            "phase %s",
            phase.value,
            extra={"phase": phase.value, "how": self._act.how.value, "life_id": self._act.life_id},
        )
        self._keeper.in_phase(phase)

    def __enter__(self) -> Phases:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over()

    def _over(self) -> None:
        if self._phase is not None:
            self._keeper.metrics.seconds.labels(self._phase.value).observe(time.monotonic() - self._since)
            self._phase = self._keeper.phase = None


def swap(keeper: Keeper, act: Act) -> None:
    """Make a fresh process ready, switch between two jobs, end the old one. Failing keeps the old one."""
    deadline = time.monotonic() + keeper.settings.swap_deadline_seconds

    def give_up() -> None:
        keeper.check_stop()
        if time.monotonic() > deadline:
            raise TooLate

    def hold(life: Life) -> None:
        keeper.fresh = life

    def share(phase: SwapPhase) -> Turns:
        return turns(keeper, phase, max(0.0, deadline - time.monotonic()))

    with Phases(keeper, act) as phases:
        try:
            fresh = keeper.run.bring_up(phases.begin, give_up, hold, share, canary=act.canary)
            outcome = _outcome(keeper, act, fresh, _latest(keeper, act, give_up))
        except Closing:
            outcome = RecycleOutcome.FAILED
        except TooLate:
            outcome = RecycleOutcome.TIMED_OUT
        except Exception as error:
            log.error("the fresh model process failed: %s", error)
            outcome = RecycleOutcome.FAILED
        if outcome is not RecycleOutcome.DONE:
            _abandon(keeper)
            keeper.record(act, outcome, None)
            return
        phases.begin(SwapPhase.SWITCH)
        old = keeper.install(fresh.life)
        keeper.fresh = None
        phases.begin(SwapPhase.REAP)
        if old is not None:
            keeper.run.end(old, until=max(deadline, time.monotonic() + 1.0))
        keeper.tell_life(fresh)
        keeper.judge(fresh, proves=False)
        keeper.meter.measured(fresh)
        keeper.metrics.device_seconds.observe(fresh.device_seconds)
        keeper.meter.measures.swapped(
            time.monotonic() - phases.began, fresh.device_seconds, fresh.waited_seconds
        )
    keeper.record(act, RecycleOutcome.DONE, fresh.life.life_id)


def replace(keeper: Keeper, act: Act) -> None:
    """End the old process after its job and start a new one; until it is ready nothing serves."""
    deadline = time.monotonic() + keeper.settings.swap_deadline_seconds
    with Phases(keeper, act) as phases:
        phases.begin(SwapPhase.REAP)
        old = keeper.install(None)
        if old is not None:
            keeper.run.end(old, until=deadline)
        fresh = start_anew(keeper, phases.begin, canary=act.canary)
        if fresh is None:
            keeper.record(act, RecycleOutcome.FAILED, None)
            return
    keeper.record(act, RecycleOutcome.DONE, fresh.life.life_id)


def turns(keeper: Keeper, phase: SwapPhase, seconds_left: float) -> Turns:
    """How the fresh process shares the device, in a phase that begins now, with the one that serves."""
    job = keeper.meter.job_seconds()
    if job is None:
        return ALONE
    measures, terms, used = keeper.meter.measures, keeper.terms(), keeper.meter.used()
    gentle = terms is None or used is None or measures.room_to_be_gentle(terms, used)
    patient = PATIENT_SHARE * seconds_left if gentle else 0.0
    needed = measures.canary_held if phase is SwapPhase.CANARY else measures.device_seconds
    return Turns(
        hold_seconds=turn_seconds(job, needed, patient), patient_seconds=patient, hurried_seconds=job
    )


def _latest(keeper: Keeper, act: Act, give_up: Callable[[], None]) -> str | None:
    """Digest of the old process's canary as it makes it now: one that is never idle last ran it at its start.

    None where it is not asked for, or where the old process does not make one any more.
    """
    old = keeper.current
    if not act.verify or old is None:
        return None
    try:
        return keeper.run.canary(old, give_up).digest
    except (Closing, TooLate):
        raise
    except Exception as error:
        log.warning("the canary of the old model process failed: %s", error)
        return None


def _outcome(keeper: Keeper, act: Act, fresh: Fresh, latest: str | None) -> RecycleOutcome:
    """Whether the fresh process may take over, by its canary."""
    observer, loaded, canary = keeper.observer, fresh.life.loaded, fresh.canary
    if observer is None or loaded is None or canary is None:
        return RecycleOutcome.DONE
    verdict = observer.judge(loaded.identity, canary.quality, canary.digest, proves=True)
    if act.verify:
        differs = canary.digest != latest
        agrees = verdict.passed and not verdict.first
        return RecycleOutcome.DONE if differs and agrees else RecycleOutcome.SAME_OUTPUT
    if not verdict.passed:
        log.error("the canary of the fresh model process failed: the old one stays")
        return RecycleOutcome.FAILED
    return RecycleOutcome.DONE


def _abandon(keeper: Keeper) -> None:
    fresh = keeper.fresh
    if fresh is None:
        return
    fresh.give_up(RerunCause.REPLACED, "the swap was given up")
    keeper.run.reaped(fresh, "killed")
    keeper.fresh = None
