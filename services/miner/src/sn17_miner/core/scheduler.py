"""When to ask which validator for a task: one state machine per validator, no I/O, no clock of its own.

Every method takes the time (Unix seconds, our clock). ``plan`` hands out a free worker with every pull, so a
pull without one cannot be expressed. Validators are known by hotkey: whoever takes over a uid starts afresh.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from sn17_contract.backoff import Backoff
from sn17_contract.tasks import Phase
from sn17_protocol import Neuron

from sn17_miner.core.learning import Learned
from sn17_miner.core.timing import Timing
from sn17_miner.core.verdict import Standing

_WAITING = frozenset({Phase.COOLING, Phase.RESTING})


class SchedulerError(RuntimeError):
    """An event that cannot happen in the validator's phase: a bug of the caller."""


@dataclass(slots=True)
class Lane:
    """One validator: where it is, where it stands, what it holds, what was learned."""

    neuron: Neuron
    learned: Learned
    phase: Phase = Phase.READY
    reason: str = "new"
    wake_at: float = 0.0
    """Not before this may it be asked (COOLING, RESTING), or when it became READY."""
    cooled_at: float | None = None
    """When the last cooldown ends or ended, until the next pull has measured its idle time."""
    cooldown_until: float = 0.0
    """The last cooldown's end by the validator's clock; 0 for none."""
    task_id: str | None = None
    failures: int = 0
    standing: Standing | None = None
    """What its last answer to a submission told of us."""
    leaving: bool = False
    """No longer in the metagraph; goes when its task is done."""

    @property
    def next_pull(self) -> float | None:
        """When it may be asked next, if that is known."""
        return self.wake_at if self.phase in (Phase.COOLING, Phase.RESTING, Phase.READY) else None


@dataclass(frozen=True, slots=True)
class FreeWorker:
    """A healthy worker without a job, and since when."""

    name: str
    since: float


@dataclass(frozen=True, slots=True)
class Pull:
    """Ask ``hotkey`` for a task; ``worker`` is reserved for it.

    ``idle`` seconds since the cooldown ended; ``idle_while_free`` the part in which the worker was free.
    None where no cooldown preceded.
    """

    hotkey: str
    worker: str
    idle: float | None
    idle_while_free: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to look again at the latest (None: when something happens)."""

    pulls: tuple[Pull, ...]
    wake_at: float | None


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a metagraph sync changed, as hotkeys."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()


@dataclass(slots=True)
class Scheduler:
    """See the module. ``miner_hotkey`` is never asked; ``always`` are asked whatever their stake."""

    policy: Timing
    rng: Random
    miner_hotkey: str
    quarantine: frozenset[str] = frozenset()
    always: frozenset[str] = frozenset()
    lanes: dict[str, Lane] = field(default_factory=dict)

    # --- who is there ---------------------------------------------------------------------------

    def sync(self, now: float, neurons: Iterable[Neuron]) -> SyncReport:
        """Take over the metagraph. Known hotkeys keep what was learned; others start afresh."""
        wanted = {neuron.hotkey: neuron for neuron in neurons if self._is_validator(neuron)}
        moved = []
        for hotkey, neuron in wanted.items():
            lane = self.lanes.get(hotkey)
            if lane is None:
                continue
            if lane.neuron.address != neuron.address:
                moved.append(hotkey)
                lane.failures = 0
                if lane.phase is Phase.RESTING and lane.reason == "failing":
                    self._ready(lane, now, "moved")
            lane.neuron, lane.leaving = neuron, False
        added = [hotkey for hotkey in wanted if hotkey not in self.lanes]
        for hotkey in added:
            self._add(now, wanted[hotkey])
        removed = [hotkey for hotkey in self.lanes if hotkey not in wanted]
        for hotkey in removed:
            lane = self.lanes[hotkey]
            lane.leaving = True
            self._drop_if_done(lane)
        return SyncReport(tuple(added), tuple(removed), tuple(moved))

    def restore(self, now: float, neuron: Neuron, learned: Learned, cooldown_until: float) -> None:
        """Put back a validator as the journal remembers it; ``cooldown_until`` by its clock, 0 for none."""
        lane = self.lanes.get(neuron.hotkey) or self._add(now, neuron)
        lane.learned, lane.cooldown_until = learned, cooldown_until
        if cooldown_until and lane.phase is Phase.READY:
            self._cool(lane, now, cooldown_until, "cooldown")

    def resume(self, now: float, hotkey: str, task_id: str) -> None:
        """The journal holds an unfinished task of this validator."""
        lane = self.lanes[hotkey]
        lane.task_id, lane.phase, lane.reason, lane.wake_at = task_id, Phase.BUSY, "resumed", now

    # --- what to do -----------------------------------------------------------------------------

    def due(self, now: float, horizon: float) -> tuple[int, int]:
        """Validators that can be asked now, and those whose cooldown ends within ``horizon`` seconds."""
        lanes = [lane for lane in self.lanes.values() if not lane.leaving]
        ready = [
            lane
            for lane in lanes
            if lane.phase is Phase.READY or (lane.phase in _WAITING and now >= lane.wake_at)
        ]
        soon = [lane for lane in lanes if lane.phase is Phase.COOLING and now < lane.wake_at <= now + horizon]
        return len(ready), len(soon)

    def plan(self, now: float, free: Sequence[FreeWorker], *, allowed: int | None = None) -> Plan:
        """Pulls to start now, at most one per free worker (taken in the order given) and ``allowed``.

        The validator that has waited longest goes first.
        """
        for lane in self.lanes.values():
            if lane.phase in _WAITING and now >= lane.wake_at:
                if lane.phase is Phase.RESTING:
                    lane.cooled_at = None
                self._ready(lane, lane.wake_at, lane.reason)
        ready = [lane for lane in self.lanes.values() if lane.phase is Phase.READY and not lane.leaving]
        ready.sort(key=lambda lane: (lane.wake_at, -lane.neuron.stake))
        limit = len(free) if allowed is None else max(0, min(allowed, len(free)))
        pulls = tuple(
            self._start_pull(lane, now, worker)
            for lane, worker in zip(ready[:limit], free[:limit], strict=False)
        )
        waking = [lane.wake_at for lane in self.lanes.values() if lane.phase in _WAITING]
        return Plan(pulls, min(waking, default=None))

    def _start_pull(self, lane: Lane, now: float, worker: FreeWorker) -> Pull:
        idle = None if lane.cooled_at is None else max(0.0, now - lane.cooled_at)
        free = None if lane.cooled_at is None else max(0.0, now - max(lane.cooled_at, worker.since))
        lane.phase, lane.reason, lane.cooled_at = Phase.PULLING, "pull", None
        return Pull(lane.neuron.hotkey, worker.name, idle, free)

    # --- what happened --------------------------------------------------------------------------

    def on_task(self, now: float, hotkey: str, task_id: str) -> None:
        """The pull brought a task, new or still assigned."""
        lane = self._expect(hotkey, Phase.PULLING)
        lane.phase, lane.reason, lane.wake_at = Phase.BUSY, "task", now
        lane.task_id = task_id

    def on_cooldown(self, now: float, hotkey: str, until: float) -> None:
        """The validator says we are cooling down until ``until`` (its clock)."""
        self._cool(self._expect(hotkey, Phase.PULLING), now, until, "cooldown")

    def on_unregistered(self, now: float, hotkey: str, until: float) -> None:
        """It does not know us: it re-reads the chain every ten minutes, so its hour is not obeyed."""
        lane = self._expect(hotkey, Phase.PULLING)
        told = max(0.0, lane.learned.offset.ours(until) - now)
        self._rest(lane, now, min(told, self._jittered(self.policy.unregistered_retry)), "unregistered")

    def on_no_task(self, now: float, hotkey: str) -> None:
        """A good answer without task or cooldown."""
        lane = self._expect(hotkey, Phase.PULLING)
        lane.failures += 1
        self._rest(lane, now, self._backoff(self.policy.no_task_rest, lane.failures), "no task")

    def on_pull_failed(self, now: float, hotkey: str) -> None:
        """No usable answer."""
        lane = self._expect(hotkey, Phase.PULLING)
        lane.failures += 1
        self._rest(lane, now, self._backoff(self.policy.failure_rest, lane.failures), "failing")

    def on_finished(self, now: float, hotkey: str, cooldown_until: float) -> None:
        """The validator had the last word. ``cooldown_until`` by its clock."""
        lane = self._end(hotkey)
        if lane is not None:
            self._cool(lane, now, cooldown_until, "cooldown")

    def on_dropped(self, now: float, hotkey: str) -> None:
        """The task ended without a verdict, so no cooldown is known; a validator that does this again and
        again is asked less and less.
        """
        lane = self._end(hotkey)
        if lane is not None:
            lane.failures += 1
            self._rest(lane, now, self._backoff(self.policy.failure_rest, lane.failures), "dropped a task")

    # --- inside ---------------------------------------------------------------------------------

    def _is_validator(self, neuron: Neuron) -> bool:
        if neuron.hotkey == self.miner_hotkey or not neuron.serving or not neuron.port:
            return False
        return neuron.stake >= self.policy.min_stake or neuron.hotkey in self.always

    def _add(self, now: float, neuron: Neuron) -> Lane:
        lane = Lane(neuron, Learned.fresh(self.policy), wake_at=now)
        if neuron.hotkey in self.quarantine:
            lane.phase, lane.reason = Phase.QUARANTINED, "quarantined"
        self.lanes[neuron.hotkey] = lane
        return lane

    def _drop_if_done(self, lane: Lane, *, finished: bool = False) -> bool:
        busy = lane.phase is Phase.PULLING or (lane.phase is Phase.BUSY and not finished)
        if lane.leaving and not busy:
            del self.lanes[lane.neuron.hotkey]
            return True
        return False

    def _end(self, hotkey: str) -> Lane | None:
        lane = self._expect(hotkey, Phase.BUSY)
        lane.task_id = None
        if self._drop_if_done(lane, finished=True):
            return None
        if hotkey in self.quarantine:
            lane.phase, lane.reason = Phase.QUARANTINED, "quarantined"
            return None
        return lane

    def _expect(self, hotkey: str, *phases: Phase) -> Lane:
        lane = self.lanes[hotkey]
        if lane.phase not in phases:
            raise SchedulerError(f"{hotkey[:8]} is {lane.phase}, expected {' or '.join(phases)}")
        return lane

    def _ready(self, lane: Lane, at: float, reason: str) -> None:
        lane.phase, lane.wake_at, lane.reason = Phase.READY, at, reason

    def _cool(self, lane: Lane, now: float, until: float, reason: str) -> None:
        lane.failures, lane.cooldown_until = 0, until
        lane.phase, lane.reason = Phase.COOLING, reason
        ends = min(lane.learned.offset.ours(until), now + self.policy.longest_cooldown)
        lane.cooled_at = max(now, ends)
        lane.wake_at = lane.cooled_at + self.policy.cooldown_margin
        self._drop_if_done(lane)

    def _rest(self, lane: Lane, now: float, seconds: float, reason: str) -> None:
        lane.phase, lane.reason, lane.wake_at = Phase.RESTING, reason, now + seconds
        self._drop_if_done(lane)

    def _backoff(self, first: float, failures: int) -> float:
        again = Backoff(first, self.policy.longest_rest, self.policy.jitter)
        return again.seconds(failures, self.rng)

    def _jittered(self, seconds: float) -> float:
        return Backoff(seconds, seconds, self.policy.jitter).seconds(1, self.rng)
