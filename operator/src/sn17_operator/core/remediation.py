"""One worker's remediation, from the cordon to the release, as a function of what is seen now.

The stage is in the worker's intent annotation. Each call looks at one worker and returns the next step, so
that a restarted operator goes on from the annotation alone.
"""

from __future__ import annotations

from dataclasses import replace

from sn17_operator.api import Mode, Strategy
from sn17_operator.core.model import Eviction, History, Intent, Outcome, Phase, RuleClass, RuleName, Stage
from sn17_operator.core.observation import SETTLE_SECONDS, Sight, chain
from sn17_operator.core.plan import Act, Blocked, Reason, Step

RESOLVE_SECONDS = 180.0
"""With the drain timeout, the longest that a worker stays cordoned while its cure is sought."""
CANARY_SECONDS = 150.0
RETRY_SECONDS = 300.0
"""Least time between two attempts on a worker that could not be told anything."""


class Ladder(Sight):
    """Looks at one worker that has an intent, and says what comes next."""

    __slots__ = ()

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
        if intent.rule_class is RuleClass.MEMORY and self.cleared():
            return self._step(Act.UNCORDON, Reason.MEMORY_CLEARED, self.memory_text("cleared"), drop=True)
        if pod.phase is not Phase.RUNNING:
            return None
        if intent.rule in (RuleName.STALLED, RuleName.UNREACHABLE):
            if intent.rule in {f.rule for f in self.worker.verdict.breaches}:
                return self._recycle(intent.reason)
            if self.known():
                return self._withdraw(f"{intent.rule} no longer holds")
            return self._unknown()
        waited = self.now - intent.cordoned_at
        if not self.leased:
            # An operator that has just come back knows of no answer because it has not asked yet.
            asked = self.worker.asked_at
            if asked is None or self.now - asked < self.spec.drain.timeout_seconds:
                return self._renew("waiting for the lease")
            return self._unheard()
        if intent.action is Stage.CORDON and not self.drained:
            if waited < self.spec.drain.timeout_seconds:
                return self._renew("waiting for the job in flight")
            if requested or self.known():
                return self._recycle(f"the job in flight did not end within {waited:.0f} s")
            return self._unknown()
        if requested:
            return self._recycle(intent.reason)
        if not self.known() and intent.action is not Stage.CANARY:
            return self._unknown()
        match intent.rule_class:
            case RuleClass.MEMORY:
                return self._resolve_memory()
            case RuleClass.QUALITY:
                return self._resolve_quality()
            case _:
                return self._recycle(intent.reason)

    def _unknown(self) -> Step:
        """Nothing is known about a cordoned worker: wait until its clock ends, then put it back."""
        if self.now - self.intent.cordoned_at < self.spec.drain.timeout_seconds + RESOLVE_SECONDS - 30:
            return self._renew("waiting for metrics")
        return self._withdraw("its metrics are gone, and no data is not bad data")

    def _resolve_memory(self) -> Step | Blocked | None:
        if self.intent.action is Stage.CORDON:
            return self._step(
                Act.CLEANUP,
                Reason.CLEANUP_REQUESTED,
                "drained; collect, empty caches, return heap",
                stage=Stage.CLEANUP,
            )
        ratios, rule = self.ratios(), self.spec.rules.memory
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
            return self._recycle(self.memory_text("not cleared by the clean-up"))
        if waited >= rule.clear_for_seconds + 60:
            return self._recycle(self.memory_text(f"not cleared for {rule.clear_for_seconds} s"))
        return self._renew("waiting for memory to stay clear")

    def _resolve_quality(self) -> Step | Blocked | None:
        if self.intent.action is Stage.CORDON:
            return self._step(
                Act.CANARY, Reason.CANARY_REQUESTED, "drained; run the canary", stage=Stage.CANARY
            )
        result = self.worker.canary
        if result is None or result.at < self.intent.at:
            if self.now - self.intent.at >= CANARY_SECONDS:
                return self._recycle("the canary gave no answer") if self.known() else self._unknown()
            return self._step(Act.CANARY, Reason.CANARY_REQUESTED, "the canary is running", silent=True)
        if result.passed is None:
            return self._recycle(f"the canary could not run: {result.message}")
        if not result.passed:
            return self._recycle(f"the canary failed: {result.message}")
        pod, window = self.worker.pod, self.spec.rules.gaussians.window_seconds
        history = replace(
            pod.history,
            rest={**self.current_rest(), self.intent.rule: self.now + window},
            rest_container=pod.container_id,
        )
        text = f"the canary passed: small objects, not a sick worker; {self.intent.rule} rests for {window} s"
        return self._step(Act.UNCORDON, Reason.CANARY_PASSED, text, drop=True, history=history)

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
        if uncured >= rules.maximum_evictions and self.intent.rule_class is not RuleClass.REQUEST:
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
        return self._step(
            Act.EVICT,
            Reason.WORKER_EVICTED,
            f"evicted: {why}",
            stage=Stage.EVICT,
            eviction=self._record(why, self.now),
            warning=True,
        )

    def _record(self, why: str, at: float) -> Eviction:
        pod = self.worker.pod
        asked = self.intent.rule_class is RuleClass.REQUEST
        return Eviction(pod.uid, pod.name, pod.node, why, at, cured=asked)

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
        if waited >= self.spec.recycle.exit_timeout_seconds and not told and self.scraped:
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
        record = record or self._record(self.intent.reason, self.intent.at)
        return self._step(
            Act.EVICT, Reason.WORKER_EVICTED, "eviction asked for again", silent=True, eviction=record
        )

    def _pending(self, why: str) -> Step:
        history = replace(self.worker.pod.history, recycled_at=self.intent.at, reason=self.intent.rule)
        return self._step(Act.NOTE, Reason.REPLACEMENT_PENDING, why, drop=True, warning=True, history=history)

    def _warming(self) -> Step | None:
        pod, waited = self.worker.pod, self.now - self.intent.at
        if (share := self.leftover()) is not None:
            return self._evict(
                f"{share:.0%} of the limit is held by the pod beyond its container, after a restart"
            )
        canary = next((f for f in self.worker.verdict.findings if f.rule == RuleName.CANARY_DRIFT), None)
        if canary is not None and canary.outcome is Outcome.BREACH and canary.enforced:
            return self._evict(f"its start canary failed after the recycle: {canary.message}")
        fresh = self.worker.evidence.boot_id not in (None, self.intent.boot_id)
        if (
            (pod.ready or pod.user_cordon is not None)
            and pod.phase is Phase.RUNNING
            and fresh
            and self.start_canary_passed()
        ):
            return self._step(
                Act.NOTE, Reason.WORKER_HEALED, f"ready again {waited:.0f} s after its restart", drop=True
            )
        if waited >= self.spec.recycle.replacement_timeout_seconds:
            return self._pending(
                f"not ready {waited:.0f} s after its restart: {pod.phase_reason or 'not ready'}"
            )
        return None
