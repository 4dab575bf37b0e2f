"""Keeps one model process up: starts it, replaces it, starts it anew when it has died."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

from sn17_contract.http import Code
from sn17_contract.metrics import SwapPhase
from sn17_contract.worker import LastRecycle, RecycleHow, RecycleOutcome
from sn17_service import Problem

from sn17_trellis.device_turn import DeviceTurn, lock_file
from sn17_trellis.model_process.acts import Act, Closing
from sn17_trellis.model_process.launcher import Launcher, LaunchFailed
from sn17_trellis.model_process.life import Life, new_life_id
from sn17_trellis.model_process.lives import Observer
from sn17_trellis.model_process.memory import process_bytes, set_oom_score
from sn17_trellis.model_process.meter import Meter
from sn17_trellis.model_process.metrics import ModelMetrics
from sn17_trellis.model_process.processes import Fresh, Processes
from sn17_trellis.model_process.room import Terms
from sn17_trellis.settings import WorkerSettings

TICK_SECONDS: Final = 0.5
REAP_SECONDS: Final = 10.0
OOM_OLD: Final = 300
log = logging.getLogger("sn17.trellis.lives")
R = TypeVar("R")


class Keeper:
    """One thread starts, swaps and reaps; the fork server dies with it, so it lives as long as the service.

    ``on_phase`` hears of each phase of an act when it begins.
    """

    separate = True

    def __init__(
        self,
        settings: WorkerSettings,
        launcher: Launcher,
        metrics: ModelMetrics,
        *,
        acts: Mapping[RecycleHow, Callable[[Keeper, Act], None]],
        revive: Callable[[Keeper], None],
        spool: Path,
        meter: Meter,
        on_phase: Callable[[SwapPhase], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.on_phase = on_phase
        self.settings = settings
        self.metrics = metrics
        self.meter = meter
        self.observer: Observer | None = None
        self.current: Life | None = None
        self.fresh: Life | None = None
        self.last_recycle: LastRecycle | None = None
        self.recycling: RecycleHow | None = None
        self.failing: str | None = None
        self.failed_starts = 0
        self.phase: SwapPhase | None = None
        self.changed = threading.Condition()
        self._launcher = launcher
        self._acts = acts
        self._revive = revive
        self._clock = clock
        self._life_id = new_life_id()
        self._started = self._stopping = False
        self._closing = threading.Event()
        self.run = Processes(
            launcher,
            metrics,
            spool,
            self.changed,
            suspect=self._suspect,
            closing=self._closing.is_set,
        )
        self._act: Act | None = None
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._swap_turn: DeviceTurn | None = None
        self._thread = threading.Thread(target=self._run, name="lives", daemon=True)
        self._thread.start()

    # --- what others see --------------------------------------------------------------------------

    @property
    def life_id(self) -> str:
        return self._life_id

    @property
    def processes(self) -> int:
        return len(self.run.alive)

    @property
    def beside(self) -> int:
        return self.run.beside

    @property
    def resting(self) -> bool:
        since = self.run.two_since
        return since is not None and time.monotonic() - since < self.settings.swap_deadline_seconds

    @property
    def ready(self) -> bool:
        life = self.current
        return life is not None and life.death is None

    @property
    def start_seconds(self) -> float | None:
        return self.meter.measures.start_seconds

    def terms(self) -> Terms | None:
        return self.meter.terms(self.current)

    def room(self) -> bool | None:
        return self.meter.room(self.current)

    @property
    def must_wait(self) -> bool:
        fresh = self.fresh
        beside = fresh is not None and fresh is not self.current and self.resting
        return beside and self.meter.must_wait(self.current, fresh)

    def memory(self) -> Mapping[str, int]:
        named = self.run.helpers()
        for name, life in (("model", self.current), ("fresh", self.fresh)):
            if life is not None:
                named[name] = life.handle.pid
        found = {name: process_bytes(pid) for name, pid in named.items()}
        return {name: size for name, size in found.items() if size is not None}

    # --- what others ask --------------------------------------------------------------------------

    def watch(self, observer: Observer) -> None:
        self.observer = observer

    def started(self) -> None:
        with self.changed:
            self._started = True
        life = self.current
        if life is not None:
            self.meter.started(life)

    def recycle(
        self, life_id: str, how: RecycleHow, reason: str, *, verify: bool, canary: bool = True
    ) -> None:
        act = Act(how, life_id, reason, verify, canary or verify)
        with self.changed:
            if life_id != self._life_id:
                raise Problem(
                    Code.LIFE_ID_MISMATCH, f"life {self._life_id} serves; the one you mean is gone already"
                )
            if self._stopping or not self._started or self._act is not None:
                raise Problem(Code.CONFLICT, "the worker is starting, ending or already at another recycle")
            if how is RecycleHow.SWAP and not self.ready:
                raise Problem(Code.CONFLICT, "no model process serves, so there is none to swap")
            why = self.meter.why_no_room(self.current) if how is RecycleHow.SWAP else None
            if why is None:
                if how is RecycleHow.SWAP:
                    self._swap_turn = self._device_for_swap()
                self._act, self.recycling = act, how
                self.changed.notify_all()
                return
        self.record(act, RecycleOutcome.NO_ROOM, None)
        raise Problem(Code.NO_ROOM, f"a swap does not fit: {why}")

    def after_job(self, gaussians: int | None, idle_for: float | None) -> None:
        self.meter.after_job(gaussians, idle_for, alone=self.processes == 1)

    def stop_acts(self) -> None:
        with self.changed:
            self._stopping = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.fresh is None, REAP_SECONDS)

    def kill(self) -> None:
        with self.changed:
            self._stopping = True
            self._closing.set()
            self.changed.notify_all()
        self.run.kill_all(self.current)
        self._thread.join(REAP_SECONDS)
        self._launcher.close()

    # --- what backend and swap use ----------------------------------------------------------------

    def call(self, function: Callable[[], R]) -> Future[R]:
        """Run something on the keeper's thread, which is the parent of every process."""
        future: Future[R] = Future()
        with self.changed:
            self._calls.append((function, future))
            self.changed.notify_all()
        return future

    @contextlib.contextmanager
    def claimed(self, give_up: Callable[[], None]) -> Iterator[Life | None]:
        """The life that takes a job now, which is not ended before the job was given to it.

        None where none starts.
        """
        life = self._claim(give_up)
        try:
            yield life
        finally:
            if life is not None:
                life.unclaim()

    def _claim(self, give_up: Callable[[], None]) -> Life | None:
        while True:
            with self.changed:
                life = self.current
                if life is not None and life.death is None:
                    life.claim()
                    return life
                if self.failing is not None or self._closing.is_set() or not self._started:
                    return None
                self.changed.wait(TICK_SECONDS / 10)
            give_up()

    def first_life(self) -> Life:
        """The process that the service starts with. Raises LaunchFailed."""
        life = self.run.spawn()
        self._life_id = life.life_id
        self.install(life)
        return life

    def install(self, fresh: Life | None) -> Life | None:
        """Make it the one that takes jobs; returns the one that did."""
        with self.changed:
            old, self.current = self.current, fresh
            self.failing, self.failed_starts = None, 0
            self.changed.notify_all()
        if fresh is not None:
            set_oom_score(fresh.handle.pid, OOM_OLD)
        return old

    def tell_life(self, fresh: Fresh) -> None:
        """The information changes only here: the old process is gone, and memory is read anew."""
        self.meter.used()

        def take() -> None:
            self._life_id = fresh.life.life_id

        if self.observer is not None:
            self.observer.new_life(fresh.life.life_id, take, canary_holds=fresh.canary is None)
        else:
            take()

    def record(self, act: Act, outcome: RecycleOutcome, to_life: str | None) -> None:
        """Keep and count how an act ended."""
        self.metrics.swaps.labels(act.how.value, outcome.value).inc()
        self.last_recycle = LastRecycle(
            how=act.how,
            outcome=outcome,
            reason=act.reason,
            from_life=act.life_id,
            to_life=to_life,
            at=self._clock(),
        )
        log.info(
            "recycle: %s",
            outcome.value,
            extra={"how": act.how.value, "reason": act.reason, "from_life": act.life_id, "to_life": to_life},
        )

    def in_phase(self, phase: SwapPhase) -> None:
        """An act has come so far."""
        self.phase = phase
        self.on_phase(phase)

    def check_stop(self) -> None:
        """Raises Closing when the service ends."""
        if self._stopping:
            raise Closing

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._keep()
        except Exception as error:
            # The fork server ends with this thread, so nothing could be started any more.
            log.exception("the keeper of the model processes ended")
            if self.observer is not None:
                self.observer.failed(f"the keeper of the model processes ended: {error}")

    def _keep(self) -> None:
        try:
            self._launcher.prepare()
        except LaunchFailed as error:
            log.warning("%s", error)
        while not self._closing.is_set():
            with self.changed:
                self.changed.wait_for(self._something, TICK_SECONDS)
                call = self._calls.popleft() if self._calls else None
                act = self._act
            if call is not None:
                _answer(*call)
            elif act is not None:
                self._do(act)
            else:
                self._launcher.tidy()
                if self._started and not self.ready and not self._closing.is_set():
                    self._revive(self)
        for life in list(self.run.alive):
            with contextlib.suppress(ValueError):
                self.run.reaped(life, "killed")

    def _something(self) -> bool:
        died = self._started and not self.ready
        return bool(self._calls) or self._act is not None or self._closing.is_set() or died

    def _do(self, act: Act) -> None:
        try:
            self._acts[act.how](self, act)
        except Exception:
            log.exception("the recycle failed")
            self.record(act, RecycleOutcome.FAILED, None)
        finally:
            with self.changed:
                turn, self._swap_turn = self._swap_turn, None
                self._act = self.recycling = self.fresh = None
                self.changed.notify_all()
            if turn is not None:
                turn.close()

    @property
    def device(self) -> str | None:
        """UUID of the device that serves, as its process has it; None without one."""
        loaded = None if self.current is None else self.current.loaded
        return None if loaded is None else loaded.device

    def _device_for_swap(self) -> DeviceTurn:
        """The right to swap on the device that serves. Raises Problem where another worker swaps there."""
        device = self.device
        turn = DeviceTurn(lock_file(self.settings.device_locks, device, "swap"))
        if turn.try_enter():
            return turn
        turn.close()
        self.metrics.swaps.labels(RecycleHow.SWAP.value, Code.DEVICE_BUSY.value).inc()
        log.info("no swap: another worker swaps on device %s", device or "of this folder")
        raise Problem(
            Code.DEVICE_BUSY,
            "another worker swaps on this device; ask again when it is done",
            retry_after_seconds=self.meter.measures.swap_seconds,
        )

    def serve_alone(self, fresh: Fresh) -> None:
        """Let a ready process serve where there was none."""
        self.tell_life(fresh)
        self.judge(fresh, proves=False)
        self.meter.measured(fresh)
        self.install(fresh.life)

    def judge(self, fresh: Fresh, *, proves: bool) -> bool:
        """Tell the worker of the canary of the life that serves now; true if it passed."""
        if self.observer is None or fresh.life.loaded is None or fresh.canary is None:
            return True
        verdict = self.observer.judge(
            fresh.life.loaded.identity, fresh.canary.quality, fresh.canary.digest, proves=proves
        )
        self.observer.canary_ran(verdict, fresh.canary.digest)
        return verdict.passed

    def closing(self) -> bool:
        """The service ends now."""
        return self._closing.is_set()

    def pause(self, seconds: float) -> None:
        """Wait; less where the service ends."""
        with self.changed:
            self.changed.wait_for(self._closing.is_set, seconds)

    def _suspect(self, reason: str) -> None:
        if self.observer is not None:
            self.observer.device_suspect(reason)

    def check_closing(self) -> None:
        """Raises Closing when the service ends now."""
        if self._closing.is_set():
            raise Closing


def _answer(function: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:
        future.set_exception(error)
