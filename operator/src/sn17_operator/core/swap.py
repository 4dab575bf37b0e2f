"""A swap of the model process while the worker goes on, as a function of what is seen now."""

from __future__ import annotations

from dataclasses import replace

from sn17_contract.worker import RecycleOutcome

from sn17_operator.core.escalation import clears
from sn17_operator.core.model import Eviction, History, Intent, RuleClass, RuleName, Stage
from sn17_operator.core.observation import Observation
from sn17_operator.core.plan import Act, Reason, Step

RETRY_SECONDS = 300.0
"""Least time between two attempts on a worker that could not be told anything."""
GIVE_UP_SECONDS = 60.0
"""More than the worker's own deadline, so that its own word about the end comes first."""


class Swap(Observation):
    """One worker that has an intent, and the steps that any stage may take."""

    __slots__ = ()

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

    # --- the swap -------------------------------------------------------------------------------------

    def _swapping(self) -> Step | None:
        waited = self.now - self.intent.at
        if self.restarted:
            return self._step(
                Act.NOTE, Reason.WORKER_RESTARTED, "the worker restarted during its swap", drop=True
            )
        if self.reborn is not None:
            return self._swapped(self.reborn)
        result = self.worker.recycle
        outcome = result.outcome if result is not None else None
        if outcome is not None and outcome is not RecycleOutcome.DONE:
            said = result.message if result is not None else ""
            return self._not_swapped(outcome, said or "the worker gives no reason")
        if waited >= self.spec.rules.memory.swap_seconds + GIVE_UP_SECONDS:
            return self._not_swapped(RecycleOutcome.TIMED_OUT, f"nothing happened in {waited:.0f} s")
        return self._step(Act.SWAP, Reason.SWAP_REQUESTED, "waits for the fresh model process", silent=True)

    def _swapped(self, life: str) -> Step | None:
        history = replace(
            self.worker.pod.history,
            swapped_at=self.now,
            reason=self.intent.rule,
            tried=Stage.SWAP,
            tried_at=self.now,
        )
        text = (
            f"another model process took over after {self.now - self.intent.at:.0f} s: {self.intent.reason}"
        )
        if self.intent.rule_class is RuleClass.MEMORY:
            clear = clears(self.spec, self.worker)
            if clear is None:
                return None
            if not clear:
                return self._held_elsewhere(history)
        return self._done(Act.NOTE, Reason.WORKER_SWAPPED, text, self._after(history))

    def _held_elsewhere(self, history: History) -> Step:
        """Memory that a new model process does not free is not held by the model: go further at once."""
        seconds = self.spec.recycle.eviction_window_seconds
        rested = self.rested(RuleName.SWAP_DUE, seconds)
        history = replace(
            history,
            tried=Stage.REPLACE,
            rest=rested.rest,
            rest_container=rested.rest_container,
            rest_life=rested.rest_life,
        )
        text = f"swapped, but {self.memory_text('is held outside of the model process')}"
        return self._done(Act.NOTE, Reason.WORKER_SWAPPED, text, history, warning=True)

    def _not_swapped(self, outcome: RecycleOutcome, why: str) -> Step:
        """The old process goes on. A swap that did not help is not tried again in this life for a while."""
        if outcome is RecycleOutcome.SAME_OUTPUT:
            if self.intent.rule == RuleName.CANARY_DISAGREES:
                history = replace(self.worker.pod.history, tried=Stage.SWAP, tried_at=self.now)
                text = "a fresh model process makes the same: its card is suspect"
                return self._done(Act.NOTE, Reason.SAME_OUTPUT, text, history, warning=True)
            window = self.spec.rules.gaussians.window_seconds
            text = f"a fresh model process makes the same: {self.intent.rule} rests for {window} s"
            return self._done(Act.NOTE, Reason.SAME_OUTPUT, text, self.rested(self.intent.rule, window))
        no_room = outcome is RecycleOutcome.NO_ROOM
        if self.intent.rule_class is RuleClass.QUALITY and not no_room:
            # A fresh process that fails its canary proves nothing about the old one.
            history = self.rested(self.intent.rule, self.spec.rules.gaussians.window_seconds)
        else:
            rested = self.rested(RuleName.SWAP_DUE, self.spec.recycle.young_seconds)
            history = replace(rested, tried=Stage.SWAP, tried_at=self.now)
        reason = Reason.SWAP_NO_ROOM if no_room else Reason.SWAP_FAILED
        return self._done(Act.NOTE, reason, f"the old model process goes on: {why}", history, warning=True)

    def _after(self, history: History) -> History:
        """What is remembered once a new process works. For memory it counts as soon as there is room
        again, however soon it fills up anew; for anything else only time tells.
        """
        memory = self.intent.rule_class is RuleClass.MEMORY
        if history.tried is not None and memory and clears(self.spec, self.worker):
            return replace(history, tried=None, tried_at=None)
        return history

    def _done(
        self, act: Act, reason: Reason, message: str, history: History, *, warning: bool = False
    ) -> Step:
        return self._step(act, reason, message, drop=True, history=history, warning=warning)
