"""One worker's remediation, from the cordon to the release, as a function of what is seen now.

The stage is in the worker's intent annotation. Each call looks at one worker and returns the next step, so
that a restarted operator goes on from the annotation alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .api import Mode, Spec, Strategy
from .model import (
    Eviction,
    Fleet,
    Health,
    History,
    Intent,
    Outcome,
    Phase,
    RuleClass,
    Series,
    Signal,
    Stage,
    Worker,
)
from .policy import CANARY_DRIFT, STALLED, UNREACHABLE, trailing_run
from .steps import Act, Blocked, Reason, Step

RESOLVE_SECONDS = 180.0
"""With the drain timeout, the longest that a worker stays cordoned while its cure is sought."""
CANARY_SECONDS = 150.0
SETTLE_SECONDS = 5.0
SCRAPED_SECONDS = 60.0
RETRY_SECONDS = 300.0
"""Least time between two attempts on a worker that could not be told anything."""
WITHDRAWABLE = (Stage.CORDON, Stage.CLEANUP, Stage.CANARY)


@dataclass(frozen=True, slots=True)
class Ladder:
    """Looks at one worker that has an intent."""

    spec: Spec
    fleet: Fleet
    worker: Worker
    intent: Intent
    storm: bool
    now: float

    # --- steps ----------------------------------------------------------------------------------------

    def _step(
        self,
        act: Act,
        reason: Reason,
        message: str,
        *,
        stage: Stage | None = None,
        drop: bool = False,
        history: History | None = None,
        silent: bool = False,
        warning: bool = False,
        eviction: Eviction | None = None,
    ) -> Step:
        intent: Intent | None = self.intent
        if drop:
            intent = None
        elif stage is not None and stage is not self.intent.action:
            intent = replace(
                self.intent, action=stage, at=self.now, container_id=self.worker.pod.container_id
            )
        pod = self.worker.pod
        return Step(
            pod.uid,
            pod.name,
            act,
            reason,
            message,
            intent,
            history or pod.history,
            silent=silent,
            warning=warning,
            eviction=eviction,
            cause=self.intent.rule,
        )

    def _renew(self, message: str) -> Step:
        return self._step(Act.RENEW, Reason.WORKER_DRAINING, message, silent=True)

    def _withdraw(self, why: str) -> Step:
        return self._step(Act.UNCORDON, Reason.REMEDIATION_WITHDRAWN, f"back in service: {why}", drop=True)

    # --- what is seen ---------------------------------------------------------------------------------

    @property
    def restarted(self) -> bool:
        """The incarnation that the intent is about has ended."""
        boot = self.worker.evidence.boot_id
        return self.replaced or (
            boot is not None and self.intent.boot_id is not None and boot != self.intent.boot_id
        )

    @property
    def replaced(self) -> bool:
        """The pod has another container than the one the intent is about."""
        return bool(self.worker.pod.container_id) and self.worker.pod.container_id != self.intent.container_id

    @property
    def drained(self) -> bool:
        """No job is in flight: the worker said so to the lease, or a scrape after the cordon shows it."""
        if self.worker.drained:
            return True
        jobs = self.worker.evidence.series(Signal.JOBS)
        return jobs is not None and jobs.at > self.intent.cordoned_at + SETTLE_SECONDS and jobs.value <= 0

    @property
    def _leased(self) -> bool:
        """The worker holds the operator's lease: it takes no new job."""
        draining = self.worker.evidence.series(Signal.DRAINING_OPERATOR)
        return self.worker.leased or (
            draining is not None and draining.at > self.intent.cordoned_at and draining.value > 0
        )

    @property
    def _scraped(self) -> bool:
        """The worker's port answers Prometheus, so silence towards the operator does not mean that it
        hangs.
        """
        up = self.worker.evidence.series(Signal.UP)
        return up is not None and up.value > 0 and self.now - up.at < SCRAPED_SECONDS

    def _unheard(self) -> Step:
        """A worker that cannot be told anything is neither cordoned nor hung: the fault may be the
        operator's.
        """
        history = replace(
            self.worker.pod.history,
            retry_at=self.now + max(RETRY_SECONDS, self.spec.recycle.cooldown_seconds),
        )
        text = "back in service: its admin endpoint does not answer the operator, check token and network"
        return self._step(
            Act.UNCORDON, Reason.ADMIN_UNAVAILABLE, text, drop=True, history=history, warning=True
        )

    def _ratios(self) -> Series | None:
        memory = self.worker.evidence.series(Signal.MEMORY)
        limit = self.worker.evidence.series(Signal.LIMIT)
        if memory is None or limit is None or not limit.value > 0:
            return None
        return Series(tuple((at, value / limit.value) for at, value in memory.samples))

    def _cleared(self) -> bool:
        """Memory has been below the clear mark, all the time since the cordon or the clean-up, for the
        clear time.
        """
        rule, ratios = self.spec.rules.memory, self._ratios()
        if ratios is None:
            return False
        since = self.intent.at if self.intent.action is Stage.CLEANUP else self.intent.cordoned_at
        start = trailing_run(ratios, lambda v: v < rule.clear_percent / 100, 2 * SETTLE_SECONDS + 60, since)
        return start is not None and ratios.at - start >= rule.clear_for_seconds

    def _leftover(self) -> float | None:
        """Share of the limit that the pod's memory exceeds the container's by, if that is beyond the mark."""
        series = [self.worker.evidence.series(s) for s in (Signal.POD_MEMORY, Signal.MEMORY, Signal.LIMIT)]
        pod, own, limit = series
        started = self.worker.pod.started_at or self.now
        if pod is None or own is None or limit is None or not limit.value > 0 or pod.at < started:
            return None
        share = (pod.value - own.value) / limit.value
        return share if share > self.spec.recycle.leftover_percent / 100 else None

    # --- the ladder -----------------------------------------------------------------------------------

    def next(self) -> Step | Blocked | None:
        """The next step; ``Blocked`` when something from outside holds it; None to wait."""
        if self.worker.pod.deleting:
            return None
        match self.intent.action:
            case Stage.CORDON | Stage.CLEANUP | Stage.CANARY:
                return self._cordoned()
            case Stage.RECYCLE:
                return self._recycling()
            case Stage.EVICT:
                return self._evicting()
            case Stage.WARMUP:
                return self._warming()

    def _cordoned(self) -> Step | Blocked | None:
        pod, intent = self.worker.pod, self.intent
        if self.restarted:
            return self._step(
                Act.NOTE, Reason.WORKER_RESTARTED, "the worker restarted by itself while cordoned", drop=True
            )
        requested = intent.rule_class is RuleClass.REQUEST
        if self.fleet.paused is not None:
            return self._withdraw(f"paused ({self.fleet.paused or 'no reason given'})")
        if self.spec.mode is Mode.OBSERVE:
            return self._withdraw("mode is Observe")
        if pod.skip is not None and not requested:
            return self._withdraw(
                f"remediation of this pod is to be skipped ({pod.skip or 'no reason given'})"
            )
        if self.storm and intent.rule_class is RuleClass.QUALITY:
            return self._withdraw("too many workers have quality verdicts, the cause is not in one worker")
        if pod.kept_by_person and not requested:
            return self._withdraw("a person has cordoned this worker")
        if intent.rule_class is RuleClass.MEMORY and self._cleared():
            return self._step(Act.UNCORDON, Reason.MEMORY_CLEARED, self._memory_text("cleared"), drop=True)
        if pod.phase is not Phase.RUNNING:
            return None
        if intent.rule in (STALLED, UNREACHABLE):
            if intent.rule in {f.rule for f in self.worker.verdict.breaches}:
                return self._recycle(intent.reason)
            if self._known():
                return self._withdraw(f"{intent.rule} no longer holds")
            return self._unknown()
        waited = self.now - intent.cordoned_at
        if not self._leased:
            if waited < self.spec.drain.timeout_seconds:
                return self._renew("waiting for the lease")
            return self._unheard()
        if intent.action is Stage.CORDON and not self.drained:
            if waited < self.spec.drain.timeout_seconds:
                return self._renew("waiting for the job in flight")
            if requested or self._known():
                return self._recycle(f"the job in flight did not end within {waited:.0f} s")
            return self._unknown()
        if requested:
            return self._recycle(intent.reason)
        if not self._known() and intent.action is not Stage.CANARY:
            return self._unknown()
        match intent.rule_class:
            case RuleClass.MEMORY:
                return self._resolve_memory()
            case RuleClass.QUALITY:
                return self._resolve_quality()
            case _:
                return self._recycle(intent.reason)

    def _known(self) -> bool:
        return self.worker.verdict.health not in (Health.UNKNOWN, Health.STARTING)

    def _unknown(self) -> Step:
        """Nothing is known about a cordoned worker: wait until its clock ends, then put it back."""
        if self.now - self.intent.cordoned_at < self.spec.drain.timeout_seconds + RESOLVE_SECONDS - 30:
            return self._renew("waiting for metrics")
        return self._withdraw("its metrics are gone, and no data is not bad data")

    def _memory_text(self, what: str) -> str:
        ratios = self._ratios()
        return f"unreclaimable memory {what}: {ratios.value:.0%} of the limit" if ratios else f"memory {what}"

    def _resolve_memory(self) -> Step | Blocked | None:
        if self.intent.action is Stage.CORDON:
            return self._step(
                Act.CLEANUP,
                Reason.CLEANUP_REQUESTED,
                "drained; collect, empty caches, return heap",
                stage=Stage.CLEANUP,
            )
        ratios, rule = self._ratios(), self.spec.rules.memory
        waited = self.now - self.intent.at
        if (
            Stage.CLEANUP not in self.worker.acknowledged
            and waited < self.spec.rules.memory.clear_for_seconds
        ):
            return self._step(
                Act.CLEANUP, Reason.CLEANUP_REQUESTED, "clean-up again: no answer yet", silent=True
            )
        seen = ratios is not None and ratios.at >= self.intent.at + SETTLE_SECONDS
        if ratios is not None and seen and ratios.value >= rule.clear_percent / 100:
            return self._recycle(self._memory_text("not cleared by the clean-up"))
        if waited >= rule.clear_for_seconds + 60:
            return self._recycle(self._memory_text(f"not cleared for {rule.clear_for_seconds} s"))
        return self._renew("waiting for memory to stay clear")

    def _resolve_quality(self) -> Step | Blocked | None:
        if self.intent.action is Stage.CORDON:
            return self._step(
                Act.CANARY, Reason.CANARY_REQUESTED, "drained; run the canary", stage=Stage.CANARY
            )
        result = self.worker.canary
        if result is None or result.at < self.intent.at:
            if self.now - self.intent.at >= CANARY_SECONDS:
                return self._recycle("the canary gave no answer") if self._known() else self._unknown()
            return self._step(Act.CANARY, Reason.CANARY_REQUESTED, "the canary is running", silent=True)
        if result.passed is None:
            return self._recycle(f"the canary could not run: {result.message}")
        if not result.passed:
            return self._recycle(f"the canary failed: {result.message}")
        pod, window = self.worker.pod, self.spec.rules.gaussians.window_seconds
        history = replace(
            pod.history,
            rest={**self._current_rest(), self.intent.rule: self.now + window},
            rest_container=pod.container_id,
        )
        text = f"the canary passed: small objects, not a sick worker; {self.intent.rule} rests for {window} s"
        return self._step(Act.UNCORDON, Reason.CANARY_PASSED, text, drop=True, history=history)

    def _current_rest(self) -> dict[str, float]:
        history = self.worker.pod.history
        if history.rest_container != self.worker.pod.container_id:
            return {}
        return {rule: until for rule, until in history.rest.items() if until > self.now}

    def _recycle(self, why: str) -> Step | Blocked:
        pod = self.worker.pod
        if self.spec.mode is Mode.CORDON and self.intent.rule_class is not RuleClass.REQUEST:
            return Blocked(
                pod.uid,
                pod.name,
                Reason.RECYCLE_DISABLED,
                f"mode is Cordon, stays cordoned: {why}",
                self.intent.rule,
            )
        if self.spec.strategy is Strategy.EVICT_POD:
            return self._evict(why)
        if pod.container_id == pod.history.recycled_container and pod.started_at is not None:
            age = (self.worker.sick_since or self.now) - pod.started_at
            if age < self.spec.recycle.young_seconds and self.intent.rule_class is not RuleClass.REQUEST:
                return self._evict(f"sick again {age:.0f} s after a restart: {why}")
        return self._step(Act.EXIT, Reason.RECYCLE_REQUESTED, f"asked to exit: {why}", stage=Stage.RECYCLE)

    def _evict(self, why: str) -> Step:
        pod, rules = self.worker.pod, self.spec.recycle
        uncured = chain(self.fleet.evictions, pod.uid, self.now - rules.eviction_window_seconds)
        if uncured >= rules.maximum_evictions:
            text = f"{uncured} evictions in {rules.eviction_window_seconds / 3600:g} h did not cure it: {why}"
            history = replace(pod.history, failed=text)
            return self._step(
                Act.UNCORDON,
                Reason.REMEDIATION_FAILED,
                f"left to a person: {text}",
                drop=True,
                history=history,
                warning=True,
            )
        record = Eviction(pod.uid, pod.name, pod.node, why, self.now)
        return self._step(
            Act.EVICT,
            Reason.WORKER_EVICTED,
            f"evicted: {why}",
            stage=Stage.EVICT,
            eviction=record,
            warning=True,
        )

    def _recycling(self) -> Step | Blocked | None:
        pod, waited = self.worker.pod, self.now - self.intent.at
        if self.replaced and pod.phase is Phase.RUNNING:
            history = replace(
                pod.history,
                recycled_at=self.now,
                recycled_container=pod.container_id,
                reason=self.intent.rule,
            )
            last = pod.last_termination
            how = f" ({last.reason}, exit code {last.exit_code})" if last else ""
            return self._step(
                Act.NOTE,
                Reason.WORKER_RECYCLED,
                f"restarted in place{how} after {self.intent.reason}",
                stage=Stage.WARMUP,
                history=history,
            )
        if pod.phase is not Phase.RUNNING or self.restarted:
            if waited >= self.spec.recycle.replacement_timeout_seconds:
                return self._pending(f"not running {waited:.0f} s after its recycle: {pod.phase_reason}")
            return None
        told = Stage.RECYCLE in self.worker.acknowledged
        if waited >= self.spec.recycle.exit_timeout_seconds and not told and self._scraped:
            return self._unheard()
        if waited >= self.spec.recycle.exit_timeout_seconds:
            return self._evict(f"still the same process {waited:.0f} s after it was asked to exit")
        if told:
            return None
        return self._step(
            Act.EXIT, Reason.RECYCLE_REQUESTED, "asked to exit again: no answer yet", silent=True
        )

    def _evicting(self) -> Step:
        record = next((e for e in self.fleet.evictions if e.uid == self.worker.pod.uid), None)
        record = record or Eviction(
            self.worker.pod.uid,
            self.worker.pod.name,
            self.worker.pod.node,
            self.intent.reason,
            self.intent.at,
        )
        return self._step(
            Act.EVICT, Reason.WORKER_EVICTED, "eviction asked for again", silent=True, eviction=record
        )

    def _pending(self, why: str) -> Step:
        history = replace(self.worker.pod.history, recycled_at=self.intent.at, reason=self.intent.rule)
        return self._step(Act.NOTE, Reason.REPLACEMENT_PENDING, why, drop=True, warning=True, history=history)

    def _warming(self) -> Step | None:
        pod, waited = self.worker.pod, self.now - self.intent.at
        if (share := self._leftover()) is not None:
            return self._evict(
                f"{share:.0%} of the limit is held by the pod beyond its container, after a restart"
            )
        canary = next((f for f in self.worker.verdict.findings if f.rule == CANARY_DRIFT), None)
        if canary is not None and canary.outcome is Outcome.BREACH and canary.enforced:
            return self._evict(f"its start canary failed after the recycle: {canary.message}")
        fresh = self.worker.evidence.boot_id not in (None, self.intent.boot_id)
        if (
            (pod.ready or pod.user_cordon is not None)
            and pod.phase is Phase.RUNNING
            and fresh
            and self._start_canary_passed()
        ):
            return self._step(
                Act.NOTE, Reason.WORKER_HEALED, f"ready again {waited:.0f} s after its restart", drop=True
            )
        if waited >= self.spec.recycle.replacement_timeout_seconds:
            return self._pending(
                f"not ready {waited:.0f} s after its restart: {pod.phase_reason or 'not ready'}"
            )
        return None

    def _start_canary_passed(self) -> bool:
        """True for a canary within tolerance, and for a worker that exports none; NaN means it is still to
        run.
        """
        reading = self.worker.evidence.series(Signal.CANARY)
        if reading is None:
            return True
        return reading.value <= self.spec.rules.canary.drift_percent / 100


def chain(evictions: tuple[Eviction, ...], uid: str, since: float) -> int:
    """Evictions since a time that led, one after the other, to this pod."""
    by_replacement = {
        e.replacement_uid: e for e in evictions if e.replacement_uid is not None and e.at >= since
    }
    length = 0
    while (record := by_replacement.pop(uid, None)) is not None:
        length, uid = length + 1, record.uid
    return length
