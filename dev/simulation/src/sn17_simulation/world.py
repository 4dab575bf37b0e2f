"""The network in virtual time: validators, workers and a miner that decides as the real one does.

The validators' ledgers, the miner's scheduler, fleet, learning, gate and parsing of answers are real.
What surrounds them is made up: how good a result is, how long work takes, when workers hang. Quality is a
number of mean 0 and variance 1, made of the prompt's share and the seed's; a validator accepts from a quality
that gives it the acceptance it is asked to have.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from math import inf, sqrt
from random import Random
from typing import Final

from sn17_contract.http import WorkerState
from sn17_devnet.ledger import Ledger
from sn17_devnet.tasks import SceneTask
from sn17_devnet.validator_state import Rules, SubmitAnswer, Validation, ValidatorState, Verdict
from sn17_miner.core import gate
from sn17_miner.core.evidence import FAILS_CHECKS, score_signal
from sn17_miner.core.fleet import Fleet, Worker
from sn17_miner.core.learning import Learned
from sn17_miner.core.scheduler import FreeWorker, Lane, Pull, Scheduler
from sn17_miner.core.verdict import Standing, Terms, read_answer
from sn17_miner.core.verdict import Verdict as Read
from sn17_protocol import ImageTask, Neuron, SubmitResults, TextTask

from sn17_simulation.luck import Quality
from sn17_simulation.said import status_of
from sn17_simulation.scene import DAY, START, Conduct, Result, Scene

MINER: Final = "miner"
LOOP: Final = 0.002
"""Seconds from the scheduler's time to the plan: measured live."""
CALL: Final = 0.01
"""Seconds from the plan to the pull at the validator: measured live."""
FIXING: Final = 0.4
SUBMITTING: Final = 0.1
SCORE_WIDTH: Final = 0.1
"""Validation score per unit of quality; 0.6 at the quality from which the validator accepts."""
NAIVE_TIMEOUT: Final = 300.0
"""Seconds after which a miner without an eye on progress gives a generation up."""


@dataclass(slots=True)
class _Job:
    """A task in hand."""

    lane: Lane
    index: int
    task: TextTask | ImageTask
    pulled: float
    rng: Random
    prompt_quality: float
    worker: Worker | None = None
    seeds: int = 0
    best: _Made | None = None
    scores: list[float] = field(default_factory=list)
    """What a scorer sees of each result that passes the checks, in units of quality."""
    chance: float = 0.0
    """That what was handed in is accepted, given the scores."""


@dataclass(frozen=True, slots=True)
class _Made:
    """The best result so far."""

    belief: float
    quality: float
    added: float
    """Of its quality what chance has no part in."""
    signal: str
    score: int | None
    """Which of the scores is its own."""


class World:
    """Runs one conduct in one scene."""

    def __init__(self, scene: Scene, conduct: Conduct, seed: int) -> None:
        self.scene, self.conduct = scene, conduct
        self.now, self.seed = START, seed
        penalty = 0.0 if scene.scarce else scene.policy.penalty
        self.result = Result(days=scene.days, penalty=penalty)
        self.quality = Quality(scene.same_prompt, scene.score_noise)
        self.policy = replace(scene.policy, max_seeds=conduct.max_seeds)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._wake = inf
        self._last_pull: dict[int, float] = {}
        self.states = [self._state(index) for index in range(len(scene.validators))]
        self.neurons = [
            Neuron(uid=n, hotkey=f"validator-{n}", ip="1.1.1.1", port=1, serving=True, stake=2000.0)
            for n in range(len(scene.validators))
        ]
        self.scheduler = self._scheduler()
        self.fleet = Fleet(stale_after=1e12)
        self.models = {f"http://w{n}": model for n, model in enumerate(scene.workers)}
        self.fleet.discovered(self.models, 0.0, forget=True)
        for url in self.models:
            self._report(url)

    def run(self) -> Result:
        """``days`` of it."""
        if self.scene.restart_at is not None:
            self._at(START + self.scene.restart_at * DAY, self._restart)
        self._turn()
        end = START + self.scene.days * DAY
        while self._events:
            at, _, what = heapq.heappop(self._events)
            if at > end:
                break
            self.now = max(self.now, at)
            what()
        ledgers = [ledger for _, ledger in self.states]
        self.result.violations = sum(sum(ledger.violations.values()) for ledger in ledgers)
        return self.result

    # --- around the miner ---------------------------------------------------------------------------

    def _state(self, index: int) -> tuple[ValidatorState, Ledger]:
        rng, model, number, ledger = Random(f"tasks {index}"), self.scene.validators[index], count(), Ledger()
        policy = self.scene.policy
        rules = Rules(
            task_cooldown=policy.base_cooldown,
            throttle_period=policy.throttle,
            cooldown_penalty=policy.penalty,
            validation_lock=policy.lock,
            # As the local validators in fast motion: cooldowns are told in whole seconds.
            repeat_slack=max(0.0, 1.0 - policy.throttle / 30.0),
        )

        def next_task() -> SceneTask:
            task_id = f"{index}-{next(number)}"
            if rng.random() < model.image_ratio:
                return SceneTask(ImageTask(type="image", id=task_id, prompt="aQ=="), "")
            return SceneTask(TextTask(id=task_id, prompt="p"), "")

        state = ValidatorState(rules, lambda: self.now, next_task, ledger)
        state.sync({100: MINER})
        return state, ledger

    def _scheduler(self) -> Scheduler:
        scheduler = Scheduler(self.policy, Random(1), MINER)
        scheduler.sync(self.now, self.neurons)
        return scheduler

    def _restart(self) -> None:
        """The process ends and starts: learning goes through the journal's text, work in hand goes on."""
        for lane in self.scheduler.lanes.values():
            lane.learned = Learned.load(lane.learned.dump(), self.policy)

    def _report(self, url: str, *, busy: bool = False) -> None:
        state = WorkerState.BUSY if busy else WorkerState.READY
        status = status_of(url, state, self.models[url].models)
        self.fleet.observe(url, status, self.now)

    def _at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), what))

    # --- pulls --------------------------------------------------------------------------------------

    def _turn(self) -> None:
        free = [FreeWorker(w.url, w.free_since or self.now) for w in self.fleet.free(self.now)]
        plan = self.scheduler.plan(self.now, free)
        for pull in plan.pulls:
            self.fleet.hold(pull.worker, pull.hotkey, self.now)
            self._at(self.now + CALL, lambda pull=pull: self._pull(pull))  # type: ignore[misc]
        if plan.wake_at is not None and self.now < plan.wake_at < self._wake:
            self._wake = plan.wake_at
            self._at(plan.wake_at + LOOP, lambda at=plan.wake_at: self._woken(at))  # type: ignore[misc]

    def _woken(self, at: float) -> None:
        if at == self._wake:
            self._wake = inf
            self._turn()

    def _pull(self, pull: Pull) -> None:
        lane = self.scheduler.lanes[pull.hotkey]
        index = lane.neuron.uid
        answer = self.states[index][0].pull(MINER)
        worker = self.fleet.workers[pull.worker]
        if answer.task is None:
            self.fleet.release(worker.url, self.now)
            self.scheduler.on_cooldown(self.now, pull.hotkey, answer.cooldown_until)
            return self._turn()
        if pull.idle_while_free is not None:
            self.result.idle.append(pull.idle_while_free + CALL)
        lane.learned.waited(pull.idle or 0.0)
        if (last := self._last_pull.get(index)) is not None:
            self.result.cycles.append(self.now - last)
        self._last_pull[index] = self.now
        self.scheduler.on_task(self.now, pull.hotkey, answer.task.id)
        share = self.scene.same_prompt
        # What chance brings a task does not depend on what was decided before: two conducts meet the same.
        rng = Random(f"{self.seed} {answer.task.id}")
        job = _Job(lane, index, answer.task, self.now, rng, rng.gauss(0.0, sqrt(share)))
        return self._assign(job, worker)

    def _assign(self, job: _Job, worker: Worker | None) -> None:
        """Find a worker for it: the one held, or another one that does its kind."""
        kind = job.task.type
        if worker is not None and kind not in self.models[worker.url].models:
            self.fleet.release(worker.url, self.now)
            worker = None
        if worker is None:
            free = self.fleet.free(self.now, kind=kind)
            if not free:
                return self._no_worker(job)
            worker = self.fleet.hold(free[0].url, job.task.id, self.now)
        job.worker = worker
        self._report(worker.url, busy=True)
        model = self.models[worker.url]
        if job.rng.random() < model.hangs:
            stall = self.policy.stall if self.conduct.stalled == "move" else NAIVE_TIMEOUT
            return self._at(self.now + stall, lambda: self._hung(job))
        seconds = model.job * job.rng.uniform(0.85, 1.3)
        return self._at(self.now + seconds, lambda: self._generated(job))

    def _no_worker(self, job: _Job) -> None:
        left = job.pulled + self.policy.task_deadline - self.now
        served = any(job.task.type in model.models for model in self.models.values())
        if left <= 0 or (not served and self.conduct.unservable == "give back"):
            return self._submit(job, handed_in=False)
        return self._at(self.now + min(5.0 if served else left, left), lambda: self._assign(job, None))

    def _free(self, job: _Job) -> None:
        if job.worker is not None:
            url, job.worker = job.worker.url, None
            self.fleet.release(url, self.now)
            self._report(url)
            self._at(self.now, self._turn)

    def _hung(self, job: _Job) -> None:
        self._free(job)
        if self.conduct.stalled == "move":
            return self._assign(job, None)
        return self._submit(job, handed_in=False)

    # --- results ------------------------------------------------------------------------------------

    def _generated(self, job: _Job) -> None:
        self._free(job)
        scene, rng = self.scene, job.rng
        job.seeds += 1
        enhanced = self.conduct.enhance != "no"
        if self.conduct.enhance == "fall back" and job.seeds >= max(2, self.conduct.max_seeds):
            enhanced = False
        chance = job.prompt_quality + rng.gauss(0.0, sqrt(1.0 - scene.same_prompt))
        added = scene.enhanced_gain if enhanced else 0.0
        if enhanced and rng.random() < max(model.refuses_enhanced for model in self.models.values()):
            return self._refused(job)
        signal, score = "healthy", None
        kind, noise = rng.random(), rng.gauss(0.0, scene.score_noise)
        if kind < scene.fails_checks:
            signal, added = FAILS_CHECKS, -99.0
        elif kind < scene.fails_checks + scene.damaged:
            signal, added = "repaired", added - 1.0
        if signal != FAILS_CHECKS:
            score = len(job.scores)
            job.scores.append(chance + noise)
            if self.conduct.scorer:
                signal = self._signal(chance + noise + added)
        evidence = job.lane.learned.evidence
        evidence.drawn(signal, again=job.seeds > 1, now=self.now)
        belief = evidence.belief(signal, threshold=0.6, now=self.now).mean
        if job.best is None or belief > job.best.belief:
            job.best = _Made(belief, chance + added, added, signal, score)
        return self._at(self.now + FIXING, lambda: self._decide(job))

    def _signal(self, seen: float) -> str:
        score = 0.6 + SCORE_WIDTH * (seen - self.scene.validators[0].cutoff(0.0))
        return score_signal(score)

    def _refused(self, job: _Job) -> None:
        """The worker makes nothing of the enhanced text."""
        if self.conduct.enhance == "always":
            return self._submit(job, handed_in=False)
        job.seeds = max(job.seeds, self.conduct.max_seeds, 2) - 1
        return self._assign(job, None)

    def _decide(self, job: _Job) -> None:
        assert job.best is not None
        learned, signal = job.lane.learned, job.best.signal
        if not self.conduct.gate:
            return self._submit(job, handed_in=True)
        model = self.scene.workers[0]
        situation = gate.Situation(
            signal=signal,
            threshold=0.6,
            penalty=learned.penalty,
            throttle=self.policy.throttle,
            elapsed=self.now - job.pulled,
            generation=model.job + FIXING + SUBMITTING,
            left=job.pulled + self.policy.task_deadline - self.now,
            seeds_left=self.policy.max_seeds - job.seeds,
            worker_free=bool(self.fleet.free(self.now, kind=job.task.type)),
            now=self.now,
        )
        choice = gate.choose(situation, learned.outlook(self.now), learned.evidence)
        if choice.step is gate.Step.RETRY:
            learned.evidence.passed_over(signal, now=self.now)
            return self._assign(job, None)
        handed_in = choice.step is gate.Step.SUBMIT
        learned.evidence.decided(signal, handed_in=handed_in, now=self.now)
        return self._submit(job, handed_in=handed_in)

    def _submit(self, job: _Job, *, handed_in: bool) -> None:
        self._at(self.now + SUBMITTING, lambda: self._arrived(job, handed_in))

    def _arrived(self, job: _Job, handed_in: bool) -> None:
        state = self.states[job.index][0]
        taken = state.submit(MINER, job.task.id, empty=not handed_in, verify=lambda _: True)
        if not isinstance(taken, Validation):
            return self._told(job, taken, handed_in)
        assert job.best is not None
        cutoff = self.scene.validators[job.index].cutoff(self.now - START)
        verdict = Verdict(min(0.99, max(0.0, 0.6 + SCORE_WIDTH * (job.best.quality - cutoff))))
        if job.best.signal != FAILS_CHECKS:
            job.chance = self.quality.chance(cutoff - job.best.added, job.scores, job.best.score)

        def settled() -> None:
            self._told(job, state.settle(taken, verdict), handed_in)

        return self._at(self.now + self.scene.validators[job.index].validation, settled)

    def _told(self, job: _Job, answer: SubmitAnswer, handed_in: bool) -> None:
        learned, hotkey = job.lane.learned, job.lane.neuron.hotkey
        message = SubmitResults(
            results="",
            submit_time=0,
            signature="",
            feedback=answer.feedback,
            cooldown_until=answer.cooldown_until,
        )
        reading = read_answer(
            message,
            skipped=not handed_in,
            resent=False,
            sent_theirs=self.now,
            received_theirs=self.now,
            terms=Terms(learned.base_cooldown, learned.penalty, learned.throttle, job.lane.standing),
        )
        job.lane.standing = Standing.of(answer.feedback)
        if reading.cooldown_until is None:
            return self._at(self.now + self.policy.lock + 0.3, lambda: self._arrived(job, handed_in))
        accepted = reading.verdict is Read.ACCEPTED
        learned.cooled(
            assigned=job.pulled,
            ended=self.now,
            until=reading.cooldown_until,
            accepted=reading.verdict is not Read.REJECTED,
        )
        if handed_in and job.best is not None:
            learned.judge(accepted)
            learned.evidence.judged(job.best.signal, accepted=accepted, now=self.now)
        learned.delivered(self.now - job.pulled)
        self._count(job, reading.verdict)
        self.scheduler.on_finished(self.now, hotkey, reading.cooldown_until)
        return self._turn()

    def _count(self, job: _Job, verdict: Read) -> None:
        result = self.result
        result.tasks += 1
        result.accepted += verdict is Read.ACCEPTED
        result.rejected += verdict is Read.REJECTED
        result.empty += verdict is Read.SKIPPED
        result.duels_lost += verdict is not Read.ACCEPTED
        if verdict is Read.ACCEPTED:
            result.by_validator[job.index] += 1
        if verdict in (Read.ACCEPTED, Read.REJECTED):
            luck = (verdict is Read.ACCEPTED) - job.chance
            result.luck[job.index] = result.luck.get(job.index, 0.0) + luck


def play(scene: Scene, conduct: Conduct, seed: int) -> Result:
    """One run."""
    return World(scene, conduct, seed).run()
