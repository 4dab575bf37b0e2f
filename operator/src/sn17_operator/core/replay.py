"""The same judgement and planning over recorded metrics: what the operator would have done.

A recording does not answer to actions. So each action that would have started is noted, a worker that would
have been cordoned is taken as out of service for the time that a remediation usually takes, and the life that
was acted on is not acted on again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sn17_operator.api import Spec
from sn17_operator.core.evidence import Labelled, Raw, Samples, attribute, windows
from sn17_operator.core.model import (
    Fleet,
    Health,
    Intent,
    Outcome,
    Phase,
    Pod,
    RuleClass,
    Stage,
    Verdict,
    Worker,
)
from sn17_operator.core.plan import Act
from sn17_operator.core.planner import plan
from sn17_operator.core.policy import judge
from sn17_operator.core.readings import Monitoring, Signal

REMEDIATION_SECONDS = 180.0
"""What a cordon and what comes after it takes from a worker, as a rule."""
SWAP_SECONDS = 11.0
"""Warm-up and canary of a fresh model process on the worker's device: measured."""


@dataclass(frozen=True, slots=True)
class RecordedWorker:
    """All samples of one worker, with the markers of its incarnations and lives and its own doubts."""

    uid: str
    name: str
    node: str | None
    boots: Labelled
    series: Mapping[Signal, Samples]
    doubts: Labelled = ()
    lives: Labelled = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """Metrics of a fleet from ``start`` to ``end``, Unix seconds."""

    start: float
    end: float
    scrape_interval: float
    workers: tuple[RecordedWorker, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """An action that would have started."""

    at: float
    worker: str
    boot_id: str | None
    life_id: str | None
    rule: str
    act: Act
    message: str
    rule_class: RuleClass
    spared_seconds: float = 0.0
    """Of a worker that the recording then lost: while the same verdict held on, or until a life that ended
    under a memory verdict was followed by the next.
    """

    @property
    def spent_seconds(self) -> float:
        """Of a worker that the action takes from jobs, if jobs are waiting all the time."""
        return SWAP_SECONDS if self.act is Act.SWAP else REMEDIATION_SECONDS


@dataclass(slots=True)
class Report:
    """What a replay found. Verdicts are counted in worker ticks."""

    days: float
    ticks: int = 0
    workers: int = 0
    decisions: list[Decision] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    blocked: Counter[str] = field(default_factory=Counter)
    short_circuits: int = 0

    @property
    def lost_seconds(self) -> float:
        """Worker seconds that the acts would have taken from jobs, if jobs were waiting all the time."""
        return sum(decision.spent_seconds for decision in self.decisions)

    def per_day(self) -> dict[str, float]:
        """Actions a day and worker, by rule. On a recording of healthy workers these are the false alarms."""
        scale = max(self.days * max(self.workers, 1), 1e-9)
        return {
            rule: count / scale for rule, count in sorted(Counter(d.rule for d in self.decisions).items())
        }


class _Track:
    """Windows into one worker's samples by binary search."""

    def __init__(self, worker: RecordedWorker) -> None:
        self.worker = worker
        self._times = {signal: [at for at, _ in samples] for signal, samples in worker.series.items()}
        self._boots, self._doubts, self._lives = (
            [(name, samples, [at for at, _ in samples]) for name, samples in labelled if samples]
            for labelled in (worker.boots, worker.doubts, worker.lives)
        )

    def raw(self, now: float, spans: Mapping[Signal, float]) -> Raw:
        boots, doubts, lives = (
            tuple((name, cut) for name, samples, times in kept if (cut := _window(samples, times, now, span)))
            for kept, span in (
                (self._boots, spans[Signal.BOOT]),
                (self._doubts, spans[Signal.DEGRADED]),
                (self._lives, spans[Signal.LIFE]),
            )
        )
        series = {
            signal: [_window(samples, self._times[signal], now, spans[signal])]
            for signal, samples in self.worker.series.items()
        }
        return Raw(boots, series, doubts, lives)

    def gap_after(self, boot: str | None) -> float:
        """Seconds between an incarnation's last sample and the next one's first; 0 where none follows."""
        last = max((times[-1] for _, name, times in self._marked() if name == boot), default=None)
        if last is None:
            return 0.0
        return min((times[0] - last for _, name, times in self._marked() if times[0] > last), default=0.0)

    def _marked(self) -> list[tuple[float, str, list[float]]]:
        return [(times[0], boot, times) for boot, _, times in self._boots]

    def life(self, now: float) -> tuple[str, float] | None:
        """The incarnation at a time and its first sample; None before the first."""
        started = [(times[0], boot) for boot, _, times in self._boots if times[0] <= now]
        if not started:
            return None
        at, boot = max(started)
        return boot, at

    def alive(self, now: float, within: float) -> bool:
        """Any sample of the process or of ``up`` is recent: the pod was there."""
        lists = [*(times for _, _, times in self._boots), self._times.get(Signal.UP, [])]
        for times in lists:
            index = bisect_right(times, now)
            if index and now - times[index - 1] <= within:
                return True
        return False

    def up_at(self, now: float, span: float) -> Samples:
        samples = self.worker.series.get(Signal.UP, ())
        return _window(samples, self._times.get(Signal.UP, []), now, span)


def _window(samples: Samples, times: Sequence[float], now: float, span: float) -> Samples:
    return samples[bisect_right(times, now - span) : bisect_right(times, now)]


def replay(spec: Spec, recording: Recording, *, tick: float = 15.0) -> Report:
    """Tick through a recording."""
    report = Report(days=(recording.end - recording.start) / 86_400, workers=len(recording.workers))
    tracks = [_Track(worker) for worker in recording.workers]
    tracks_of = {track.worker.uid: track for track in tracks}
    spans = windows([spec.rules], recording.scrape_interval)
    out_until: dict[str, float] = {}
    acted: dict[tuple[str, str], int] = {}
    short_circuit_at: float | None = None
    short_circuited = False
    for now in _ticks(recording, tick):
        monitoring = _monitoring(recording, tracks, spans, now)
        workers = tuple(_workers(spec, tracks, spans, monitoring, out_until, acted, now))
        fleet = Fleet(workers, expected=len(workers), short_circuit_at=short_circuit_at)
        planned = plan(spec, fleet, now)
        report.ticks += 1
        for worker in workers:
            number = acted.get((worker.pod.uid, worker.evidence.life_id or worker.evidence.boot_id or ""))
            if number is not None:
                report.decisions[number] = _spared(report.decisions[number], worker, tick)
        report.verdicts.update(str(w.verdict.health) for w in workers)
        report.blocked.update(str(b.reason) for b in planned.blocked)
        report.short_circuits += planned.capacity.short_circuit and not short_circuited
        short_circuited, short_circuit_at = planned.capacity.short_circuit, planned.short_circuit_at
        for step in planned.steps:
            if step.act not in (Act.CORDON, Act.SWAP) or step.intent is None:
                continue
            boot, life = step.intent.boot_id, step.intent.life_id
            rule_class = step.intent.rule_class
            gap = tracks_of[step.uid].gap_after(boot) if rule_class is RuleClass.MEMORY else 0.0
            decision = Decision(
                now, step.pod, boot, life, step.cause, step.act, step.message, rule_class, gap
            )
            report.decisions.append(decision)
            if step.act is Act.CORDON:
                out_until[step.uid] = now + REMEDIATION_SECONDS
            acted[(step.uid, life or boot or "")] = len(report.decisions) - 1
    return report


def _spared(decision: Decision, worker: Worker, tick: float) -> Decision:
    """The recording goes on with a worker that would have been recycled."""
    degraded = worker.verdict.health is Health.DEGRADED
    if not degraded or decision.rule_class not in (RuleClass.QUALITY, RuleClass.STALL):
        return decision
    if worker.verdict.breach_of(decision.rule_class) is None:
        return decision
    return replace(decision, spared_seconds=decision.spared_seconds + tick)


def _ticks(recording: Recording, tick: float) -> Iterator[float]:
    now = recording.start + tick
    while now <= recording.end:
        yield now
        now += tick


def _monitoring(
    recording: Recording, tracks: Sequence[_Track], spans: Mapping[Signal, float], now: float
) -> Monitoring:
    interval, window = recording.scrape_interval, spans[Signal.UP]
    good = [[at for at, value in track.up_at(now, window) if value > 0] for track in tracks]
    return Monitoring(
        at=now,
        stale_after=2 * interval + 5,
        scrape_interval=interval,
        last_scrape=max((times[-1] for times in good if times), default=None),
        coverage=float(max((len(times) for times in good), default=0)),
        window=window,
    )


def _workers(
    spec: Spec,
    tracks: Sequence[_Track],
    spans: Mapping[Signal, float],
    monitoring: Monitoring,
    out_until: Mapping[str, float],
    acted: Collection[tuple[str, str]],
    now: float,
) -> Iterator[Worker]:
    for track in tracks:
        life = track.life(now)
        if life is None or not track.alive(now, spans[Signal.UP]):
            continue
        boot, started = life
        recorded = track.worker
        pod = Pod(
            uid=recorded.uid,
            name=recorded.name,
            namespace="",
            created_at=started,
            node=recorded.node,
            phase=Phase.RUNNING,
            container_id=boot,
            started_at=started,
            ready=True,
        )
        evidence = attribute(track.raw(now, spans), started, {})
        verdict = judge(spec, pod, evidence, monitoring)
        if now < out_until.get(recorded.uid, 0.0):
            # As if it were being remediated: it fills the budget, and nothing new starts on it.
            intent = Intent(Stage.WARMUP, boot, boot, "", RuleClass.MEMORY, "", now, now)
            yield Worker(replace(pod, intent=intent), evidence, verdict)
        elif (recorded.uid, evidence.life_id or boot) in acted:
            pod = replace(pod, history=replace(pod.history, retry_at=now + 1))
            yield Worker(pod, evidence, _without_due(verdict))
        else:
            yield Worker(pod, evidence, verdict)


def _without_due(verdict: Verdict) -> Verdict:
    """A life that was swapped is over, though the recording goes on with it."""
    found = tuple(
        replace(f, outcome=Outcome.RESTING) if f.outcome is Outcome.DUE else f for f in verdict.findings
    )
    return replace(verdict, findings=found)
