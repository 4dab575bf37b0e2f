"""The judgement of one worker: all rules, what settings and history make of them, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sn17_operator.api import RuleAction, Spec
from sn17_operator.core.context import Context
from sn17_operator.core.model import Finding, Health, Outcome, Phase, Pod, RuleClass, Stage, Verdict
from sn17_operator.core.peers import disagreeing
from sn17_operator.core.readings import Evidence, Gap, Monitoring, Signal
from sn17_operator.core.rules import CHAIN

FIRST_SCRAPE_SECONDS = 60.0


def findings(context: Context) -> tuple[Finding, ...]:
    """Every rule's finding, with what the settings and the worker's history make of it."""
    found: list[Finding] = []
    pod, now = context.pod, context.monitoring.at
    resting = pod.history.resting(pod.container_id, context.evidence.life_id, now)
    for rule in CHAIN:
        action = rule.action(context.spec.rules)
        if action is RuleAction.OFF:
            continue
        for finding in rule.evaluate(context):
            quality = finding.outcome is Outcome.BREACH and finding.rule_class is RuleClass.QUALITY
            if finding.rule in resting and (quality or finding.outcome is Outcome.DUE):
                left = resting[finding.rule] - now
                text = f"{finding.message}; acting on it did not help, rests for {left:.0f} s"
                finding = replace(finding, outcome=Outcome.RESTING, message=text)
            if action is RuleAction.OBSERVE:
                finding = replace(finding, message=f"{finding.message} (observed only)", enforced=False)
            found.append(finding)
    return tuple(found)


def _starts(spec: Spec, pod: Pod, evidence: Evidence, started_at: float, now: float) -> bool:
    """The process is young, and what is missing is missing for that reason: its first scrapes, or readiness.

    A drain lease makes a worker unready too, so readiness says nothing about one that holds a lease.
    """
    age = now - started_at
    own = (Signal.BOOT, Signal.MEMORY, Signal.JOBS)
    gaps = (Gap.ABSENT, Gap.OTHER_INCARNATION)
    if age < FIRST_SCRAPE_SECONDS and any(evidence.reading(signal) in gaps for signal in own):
        return True
    restarted = pod.intent is not None and pod.intent.action in (Stage.REPLACE, Stage.RECYCLE, Stage.WARMUP)
    if pod.intent is not None and restarted:
        # A new model process in an old container.
        age = min(age, now - pod.intent.at)
    if pod.ready or age >= spec.recycle.replacement_timeout_seconds:
        return False
    unseen = evidence.reading(Signal.BOOT) in gaps
    leased = pod.intent is not None or pod.user_cordon is not None
    return restarted or unseen or not leased


def judge(
    spec: Spec, pod: Pod, evidence: Evidence, monitoring: Monitoring, disagrees: str | None = None
) -> Verdict:
    """The verdict about one worker. Only ``DEGRADED`` ever leads to an action.

    ``disagrees``: why its canary is not what its peers make (``peers.disagreeing``).
    """
    if pod.phase is not Phase.RUNNING or pod.started_at is None:
        return Verdict(
            Health.STARTING, (), pod.phase_message or pod.phase_reason or "the container is not running"
        )
    found = findings(Context(spec, pod, evidence, monitoring, disagrees))
    verdict = Verdict(Health.DEGRADED, found)
    if breaches := verdict.breaches:
        return Verdict(Health.DEGRADED, found, "; ".join(f.message for f in breaches))
    if _starts(spec, pod, evidence, pod.started_at, monitoring.at):
        return Verdict(Health.STARTING, found, "the worker is not ready yet")
    unknown = [f for f in found if f.outcome is Outcome.UNKNOWN and f.enforced]
    if unknown:
        return Verdict(Health.UNKNOWN, found, "; ".join(dict.fromkeys(f.message for f in unknown)))
    judged = [f for f in found if f.rule_class is RuleClass.QUALITY and f.outcome is not Outcome.IDLE]
    if not judged:
        return Verdict(Health.IDLE, found, "nothing to judge quality by")
    return Verdict(Health.HEALTHY, found)


def judge_all(
    spec: Spec, seen: Sequence[tuple[Pod, Evidence]], monitoring: Monitoring
) -> Iterator[tuple[Pod, Evidence, Verdict]]:
    """The verdicts about all workers of one fleet, which are peers of each other."""
    odd = disagreeing({pod.uid: found.canary for pod, found in seen if found.canary is not None})
    for pod, evidence in seen:
        yield pod, evidence, judge(spec, pod, evidence, monitoring, odd.get(pod.uid))
