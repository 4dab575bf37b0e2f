"""Model processes from their start to their end, and what is measured of them on the way."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sn17_contract.metrics import GenerationKind, RerunCause, SwapPhase

from sn17_trellis.backend import Job
from sn17_trellis.model_process.launcher import Launcher
from sn17_trellis.model_process.life import ALONE, Life, new_life_id, wait_for
from sn17_trellis.model_process.memory import process_bytes, set_oom_score
from sn17_trellis.model_process.messages import Channel, Encoded, Generated, Turns
from sn17_trellis.model_process.metrics import ModelMetrics

REAP_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 0.025
OOM_FRESH: Final = 600
CANARY: Final = Job(GenerationKind.CANARY, 0, prompt="")
"""Stands for the backend's own canary, which its process knows."""

log = logging.getLogger("sn17.trellis.lives")


@dataclass(frozen=True, slots=True, eq=False)
class Fresh:
    """A process that is ready, with its canary, if it ran one, and the seconds that took.

    ``warm_up_held`` and ``canary_held``: how long they held the device, the latter without end if none ran;
    ``waited_seconds``: how long both waited for it.
    """

    life: Life
    canary: Encoded | None
    canary_seconds: float
    warm_up_held: float
    canary_held: float
    waited_seconds: float

    @property
    def device_seconds(self) -> float:
        """How long the device was held for it."""
        return self.warm_up_held + (0.0 if self.canary is None else self.canary_held)


class Processes:
    """Used by the keeper's thread, which is the parent of all; others may look.

    ``spool`` is where assets appear under temporary names. ``suspect`` hears of a process that does not end.
    """

    def __init__(
        self,
        launcher: Launcher,
        metrics: ModelMetrics,
        spool: Path,
        changed: threading.Condition,
        *,
        suspect: Callable[[str], None],
        closing: Callable[[], bool],
    ) -> None:
        self.alive: list[Life] = []
        self.two_since: float | None = None
        self.beside = 0
        self._launcher = launcher
        self._metrics = metrics
        self._spool = spool
        self._changed = changed
        self._suspect = suspect
        self._closing = closing
        self._numbers = 0

    def pids(self) -> tuple[int, ...]:
        """Every process that was started and has not been reaped."""
        return (*self._launcher.pids(), *(life.handle.pid for life in list(self.alive)))

    def helpers(self) -> dict[str, int]:
        """Process ids besides the models, by name."""
        return {f"helper-{n}": pid for n, pid in enumerate(self._launcher.pids())}

    def next_number(self, life: Life) -> tuple[int, str]:
        """A job number that was never used, and the temporary name for its asset."""
        with self._changed:
            self._numbers += 1
            return self._numbers, str(self._spool / f".{life.life_id}-{self._numbers}.ply.part")

    def spawn(self) -> Life:
        """Start a process. Raises LaunchFailed."""
        life_id = new_life_id()
        connection, handle = self._launcher.start(life_id)
        life = Life(life_id, Channel(connection), handle, ended=self._noticed)
        set_oom_score(handle.pid, OOM_FRESH)
        with self._changed:
            self.alive.append(life)
            if len(self.alive) == 2:
                self.two_since, self.beside = time.monotonic(), self.beside + 1
        return life

    def bring_up(
        self,
        began: Callable[[SwapPhase], None],
        give_up: Callable[[], None],
        hold: Callable[[Life], None],
        turns: Callable[[SwapPhase], Turns] = lambda _: ALONE,
        *,
        canary: bool = True,
    ) -> Fresh:
        """Start a process and make it ready; ``turns`` says how it shares the device in a phase.

        Raises:
            Exception: what its backend raised, ModelDied, LaunchFailed, or whatever ``give_up`` raises.
        """
        began(SwapPhase.SPAWN)
        life = self.spawn()
        hold(life)
        watched = self.sampling(life, give_up)
        began(SwapPhase.LOAD)
        life.load(watched)
        began(SwapPhase.WARMUP)
        warm = life.warm_up(lambda *_: None, watched, turns(SwapPhase.WARMUP))
        if not canary:
            life.cleanup(watched)
            return Fresh(life, None, 0.0, warm.device_seconds, math.inf, warm.waited_seconds)
        began(SwapPhase.CANARY)
        began_at = time.monotonic()
        made, encoded = self._canary(life, watched, turns(SwapPhase.CANARY))
        life.cleanup(watched)
        return Fresh(
            life,
            encoded,
            time.monotonic() - began_at,
            warm.device_seconds,
            made.device_seconds,
            warm.waited_seconds + made.waited_seconds,
        )

    def canary(self, life: Life, give_up: Callable[[], None]) -> Encoded:
        """Have a process run its canary, after the job that it is at.

        Raises:
            Exception: what its backend raised, ModelDied, or whatever ``give_up`` raises.
        """
        return self._canary(life, give_up, None)[1]

    def _canary(
        self, life: Life, give_up: Callable[[], None], turns: Turns | None
    ) -> tuple[Generated, Encoded]:
        number, file = self.next_number(life)
        ticket = life.submit(number, CANARY, file, lambda *_: None, turns)
        try:
            encoded = wait_for(ticket.encoded, give_up)
        finally:
            Path(file).unlink(missing_ok=True)
        return ticket.generated.result(), encoded

    def end(self, life: Life, *, until: float | None = None) -> None:
        """End a process after its jobs, or now once ``until`` (monotonic) is over. Waits for it."""
        while until is not None and life.death is None and life.at_work and time.monotonic() < until:
            if self._closing():
                break
            with self._changed:
                self._changed.wait(PAUSE_SECONDS)
        how = "asked"
        if life.death is None and not life.at_work:
            life.leave()
            if not life.handle.wait(REAP_SECONDS):
                how = "killed"
        if life.handle.status is None:
            how = "killed"
            life.give_up(RerunCause.REPLACED, "the model process was replaced before it had finished")
        self.reaped(life, how)

    def reaped(self, life: Life, how: str) -> None:
        """Wait for the end of a process and clear up after it."""
        if not life.handle.wait(REAP_SECONDS):
            reason = f"process {life.handle.pid} does not end although it was killed"
            log.error("%s", reason)
            self._suspect(reason)
        life.close()
        self._metrics.ends.labels(how).inc()
        for late in self._spool.glob(f".{life.life_id}-*"):
            late.unlink(missing_ok=True)
        with self._changed:
            self.alive.remove(life)
            if len(self.alive) < 2:
                self.two_since = None
            self._changed.notify_all()

    def sampling(self, life: Life, give_up: Callable[[], None]) -> Callable[[], None]:
        """``give_up`` that also watches how much a starting process takes."""

        def watch() -> None:
            life.sample(process_bytes(life.handle.pid))
            give_up()

        return watch

    def kill_all(self, last: Life | None) -> None:
        """End every process now, ``last`` after the others."""
        for life in sorted(self.alive, key=lambda one: one is last):
            life.give_up(RerunCause.REPLACED, "the service ends")
        for life in list(self.alive):
            life.handle.wait(REAP_SECONDS)

    def _noticed(self) -> None:
        with self._changed:
            self._changed.notify_all()
