"""One worker's remediation, from the cordon to the release, as a function of what is seen now.

The stage is in the worker's intent annotation. Each call looks at one worker and returns the next step, so
that a restarted operator goes on from the annotation alone.
"""

from __future__ import annotations

from dataclasses import replace

from sn17_contract.worker import RecycleOutcome

from sn17_operator.api import Mode, Strategy
from sn17_operator.core.escalation import first_act
from sn17_operator.core.model import Eviction, History, Outcome, Phase, RuleClass, RuleName, Stage
from sn17_operator.core.observation import SETTLE_SECONDS, chain
from sn17_operator.core.patience import replacing_seconds
from sn17_operator.core.plan import Act, Blocked, Reason, Step
from sn17_operator.core.swap import Swap

RESOLVE_SECONDS = 180.0
"""With the drain timeout, the longest that a worker stays cordoned during a remediation."""
CANARY_SECONDS = 150.0
PASSING = (RuleName.STALLED, RuleName.UNREACHABLE, RuleName.DEVICE_UNHEALTHY, RuleName.MODEL_FAILING)
"""Rules that may stop to hold by themselves while a worker is cordoned for them."""


class Remediation(Swap):
    """Looks at one worker that has an intent, and says what comes next."""

    __slots__ = ()

    # --- the ladder -----------------------------------------------------------------------------------

    def next(self) -> Step | Blocked | None:
        """The next step; ``Blocked`` when something from outside holds it; None to wait."""
        if self.worker.pod.deleting:
            return None
        match self.intent.action:
            case Stage.CORDON | Stage.CLEANUP | Stage.CANARY:
                return self._cordoned()
            case Stage.SWAP:
                return self._swapping()
            case Stage.REPLACE:
                return self._replacing()
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
        if self.reborn is not None:
            return self._withdraw("its model process has been replaced meanwhile")
        requested = intent.rule_class is RuleClass.REQUEST
        if self.fleet.paused is not None:
            return self._withdraw(f"paused ({self.fleet.paused or 'no reason given'})")
        if self.spec.mode is Mode.OBSERVE:
            return self._withdraw("mode is Observe")
        if pod.skip is not None and not requested:
            return self._withdraw(
                f"remediation of this pod is to be skipped ({pod.skip or 'no reason given'})"
            )
        if self.short_circuit and intent.rule_class is RuleClass.QUALITY:
            return self._withdraw("too many workers have quality verdicts, the cause is not in one worker")
        if pod.kept_by_person and not requested:
            return self._withdraw("a person has cordoned this worker")
        if (
            intent.rule_class is RuleClass.MEMORY
            and intent.rule != RuleName.POD_MEMORY_HIGH
            and self.cleared()
        ):
            return self._cleared()
        if pod.phase is not Phase.RUNNING:
            return None
        if intent.rule in PASSING and intent.rule not in {f.rule for f in self.worker.verdict.breaches}:
            return self._withdraw(f"{intent.rule} no longer holds") if self.known() else self._unknown()
        if intent.rule in (RuleName.STALLED, RuleName.UNREACHABLE):
            return self._recycle(intent.reason)
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
        if intent.rule == RuleName.CANARY_DISAGREES:
            return self._quarantined()
        if not self.known() and intent.action is not Stage.CANARY:
            return self._unknown()
        match intent.rule_class:
            case RuleClass.MEMORY:
                return self._resolve_memory()
            case RuleClass.QUALITY:
                return self._resolve_quality()
            case _:
                return self._recycle(intent.reason)

    def _quarantined(self) -> Step | Blocked:
        """A fresh process made the same, so it is the card. It makes nothing that anyone wants, and no act
        of ours changes that: it stays out of service until a person has looked after it.
        """
        pod = self.worker.pod
        if self.intent.rule not in {f.rule for f in self.worker.verdict.breaches} and self.known():
            return self._withdraw("its canary is that of its peers again")
        text = f"out of service and left to a person, its card is suspect: {self.intent.reason}"
        return Blocked(pod.uid, pod.name, Reason.DEVICE_SUSPECT, text, self.intent.rule)

    def _unknown(self) -> Step:
        """Nothing is known about a cordoned worker: wait until its clock ends, then put it back."""
        if self.now - self.intent.cordoned_at < self.spec.drain.timeout_seconds + RESOLVE_SECONDS - 30:
            return self._renew("waiting for metrics")
        return self._withdraw("its metrics are gone, and no data is not bad data")

    def _resolve_memory(self) -> Step | Blocked | None:
        if self.intent.action is Stage.CORDON and not self._worth_a_cleanup():
            return self._recycle(self.intent.reason)
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
            return self._recycle(self.memory_text("not cleared by the clean-up"), cleanup_helped=False)
        if waited >= rule.clear_for_seconds + 60:
            text = self.memory_text(f"not cleared for {rule.clear_for_seconds} s")
            return self._recycle(text, cleanup_helped=False)
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
        window = self.spec.rules.gaussians.window_seconds
        history = self.rested(self.intent.rule, window)
        text = f"the canary passed: the objects are small; {self.intent.rule} rests for {window} s"
        return self._step(Act.UNCORDON, Reason.CANARY_PASSED, text, drop=True, history=history)

    def _worth_a_cleanup(self) -> bool:
        """Where a swap is the first choice, only if it has helped with this checkpoint before; else it is
        tried once to learn that. The pods of one Deployment have one checkpoint.
        """
        own = self.worker.pod.history.cleanup_helped
        if own is not None:
            return own
        swaps = self.spec.strategy is Strategy.SWAP and self.worker.evidence.separate_model
        return not swaps or any(w.pod.history.cleanup_helped for w in self.fleet.workers)

    def _cleared(self) -> Step:
        history = self.worker.pod.history
        if self.intent.action is Stage.CLEANUP:
            history = replace(history, cleanup_helped=True)
        text = self.memory_text("cleared")
        return self._step(Act.UNCORDON, Reason.MEMORY_CLEARED, text, drop=True, history=history)

    def _recycle(self, why: str, *, cleanup_helped: bool | None = None) -> Step | Blocked:
        pod = self.worker.pod
        history = (
            pod.history if cleanup_helped is None else replace(pod.history, cleanup_helped=cleanup_helped)
        )
        if self.spec.mode is Mode.CORDON and self.intent.rule_class is not RuleClass.REQUEST:
            return Blocked(
                pod.uid,
                pod.name,
                Reason.RECYCLE_DISABLED,
                f"mode is Cordon, stays cordoned: {why}",
                self.intent.rule,
            )
        act = first_act(self.spec, self.worker, self.intent.rule, self.intent.rule_class, self.now)
        if act is Stage.EVICT:
            return self._evict(why)
        if act in (Stage.SWAP, Stage.REPLACE):
            # It is out of service already: a swap would cost the same.
            return self._step(
                Act.REPLACE,
                Reason.REPLACE_REQUESTED,
                f"its model process is to be replaced: {why}",
                stage=Stage.REPLACE,
                history=history,
            )
        if pod.container_id == pod.history.recycled_container and pod.started_at is not None:
            age = (self.worker.degraded_since or self.now) - pod.started_at
            if age < self.spec.recycle.young_seconds and self.intent.rule_class is not RuleClass.REQUEST:
                return self._evict(f"degraded again {age:.0f} s after a restart: {why}")
        return self._exit(why, history)

    def _exit(self, why: str, history: History) -> Step:
        return self._step(
            Act.EXIT,
            Reason.RECYCLE_REQUESTED,
            f"asked to exit: {why}",
            stage=Stage.RECYCLE,
            history=replace(history, tried=None, tried_at=None),
        )

    def _evict(self, why: str) -> Step:
        pod, rules = self.worker.pod, self.spec.recycle
        failed = chain(self.fleet.evictions, pod.uid, self.now - rules.eviction_window_seconds)
        if failed >= rules.maximum_evictions and self.intent.rule_class is not RuleClass.REQUEST:
            text = f"{failed} evictions in {rules.eviction_window_seconds / 3600:g} h did not help: {why}"
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
        return Eviction(pod.uid, pod.name, pod.node, why, at, recovered=asked)

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
                f"container restarted{how} after {self.intent.reason}",
                stage=Stage.WARMUP,
                history=history,
            )
        if pod.phase is not Phase.RUNNING or self.restarted:
            if waited >= self.spec.recycle.replacement_timeout_seconds:
                return self._missing(f"not running {waited:.0f} s after its recycle: {pod.phase_reason}")
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

    def _replacing(self) -> Step:
        if self.restarted:
            return self._step(
                Act.NOTE,
                Reason.WORKER_RESTARTED,
                "the worker restarted while its model was replaced",
                drop=True,
            )
        waited, result = self.now - self.intent.at, self.worker.recycle
        told = Stage.REPLACE in self.worker.acknowledged
        if self.reborn is not None:
            history = replace(
                self.worker.pod.history,
                recycled_at=self.now,
                reason=self.intent.rule,
                tried=Stage.REPLACE,
                tried_at=self.now,
            )
            text = f"new model process after {self.intent.reason}"
            return self._step(Act.UNCORDON, Reason.WORKER_REPLACED, text, stage=Stage.WARMUP, history=history)
        if result is not None and result.outcome is not RecycleOutcome.DONE:
            return self._exit(
                f"its model process was not replaced: {result.message}", self.worker.pod.history
            )
        if waited >= self.spec.recycle.exit_timeout_seconds and not told and self.scraped:
            return self._unheard()
        if waited >= replacing_seconds(self.spec, result or self.worker.progress):
            text = f"still the same model process {waited:.0f} s after it was to be replaced"
            return self._exit(text, self.worker.pod.history)
        return self._step(
            Act.REPLACE, Reason.REPLACE_REQUESTED, "waits for the new model process", silent=True
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

    def _missing(self, why: str) -> Step:
        """A worker that does not come back is waited for, except where not starting is its trouble."""
        return self._evict(why) if self.intent.rule == RuleName.MODEL_FAILING else self._pending(why)

    def _warming(self) -> Step | None:
        pod, waited = self.worker.pod, self.now - self.intent.at
        if (share := self.leftover()) is not None:
            return self._evict(
                f"{share:.0%} of the limit is held by the pod beyond its container, after a restart"
            )
        replaced = pod.history.tried is Stage.REPLACE
        canary = next((f for f in self.worker.verdict.findings if f.rule == RuleName.CANARY_DRIFT), None)
        if canary is not None and canary.outcome is Outcome.BREACH and canary.enforced:
            if replaced:
                # The rule itself now asks for what comes after a replacement, within the budget.
                return self._pending(f"its start canary failed after the replacement: {canary.message}")
            return self._evict(f"its start canary failed after the recycle: {canary.message}")
        fresh = self.worker.evidence.boot_id not in (None, self.intent.boot_id) or self.reborn is not None
        if (
            (pod.ready or pod.user_cordon is not None)
            and pod.phase is Phase.RUNNING
            and fresh
            and self.start_canary_passed()
        ):
            text = f"ready again {waited:.0f} s after its {'replacement' if replaced else 'restart'}"
            return self._step(
                Act.NOTE, Reason.WORKER_HEALED, text, drop=True, history=self._after(pod.history)
            )
        if waited >= self.spec.recycle.replacement_timeout_seconds:
            return self._missing(
                f"not ready {waited:.0f} s after its restart: {pod.phase_reason or 'not ready'}"
            )
        return None
