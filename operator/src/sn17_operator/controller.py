"""One tick: look, judge, plan, act, tell. Level-triggered; everything that must outlive it is in the
cluster.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from sn17_contract.http import LeaseOwner
from sn17_contract.worker import RecycleHow, RecycleOutcome

from sn17_operator.core.evidence import Raw, attribute, within_fleet
from sn17_operator.core.model import CanaryResult, Fleet, Intent, Pod, RecycleResult, RuleClass, Stage
from sn17_operator.core.plan import Act, Blocked, Plan, Reason, Step
from sn17_operator.core.planner import measure, plan
from sn17_operator.core.policy import judge_all
from sn17_operator.ports import (
    Admin,
    Announcement,
    Cluster,
    Conflict,
    Disrupted,
    Measurement,
    Metrics,
    Miner,
    NoRoom,
    OtherIncarnation,
    Refused,
    Scaler,
    Target,
)
from sn17_operator.replicas import Replicas
from sn17_operator.status.render import render
from sn17_operator.status.resource import EvictionRecord, Status
from sn17_operator.status.view import View, state_of
from sn17_operator.telemetry import Telemetry
from sn17_operator.teller import Teller
from sn17_operator.tracker import PodRecord, Tracker

log = logging.getLogger("sn17.operator")

PARALLEL_ACTS = 16


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The last tick of one miner, for ``explain``."""

    miner: Miner
    fleet: Fleet
    plan: Plan
    measurement: Measurement
    status: Status
    at: float


class Controller:
    """Runs the pure core against a cluster, its metrics and the workers' admin endpoints."""

    def __init__(
        self,
        cluster: Cluster,
        metrics: Metrics,
        admin: Admin,
        telemetry: Telemetry,
        *,
        clock: Callable[[], float],
        scaler: Scaler | None = None,
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._admin = admin
        self._telemetry = telemetry
        self._clock = clock
        self._teller = Teller(cluster)
        self._replicas = None if scaler is None else Replicas(scaler, telemetry, self._teller)
        self._tracker = Tracker()
        self._jobs: dict[tuple[str, Stage, float], asyncio.Task[None]] = {}
        self.snapshots: dict[tuple[str, str], Snapshot] = {}

    async def close(self) -> None:
        """Cancel clean-ups and canaries that are still awaited."""
        for job in self._jobs.values():
            job.cancel()
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)

    async def tick(self) -> None:
        """Look at every SN17Miner once. A fault of one of them does not keep the others from their turn."""
        miners = await self._cluster.miners()
        now = self._clock()
        measurement = await self._metrics.measure(now, [miner.spec.rules for miner in miners])
        self._telemetry.begin()
        seen: set[str] = set()
        failure: Exception | None = None
        complete = True
        for miner in miners:
            try:
                seen |= await self._tend(miner, measurement, now)
            except Refused as error:
                log.warning("%s/%s: %s", miner.namespace, miner.name, error)
                complete = False
            except Exception as error:  # told below, after the others had their turn
                log.exception("%s/%s: tick failed", miner.namespace, miner.name)
                failure = error
        if complete and failure is None:
            self._tracker.keep(seen)
        known = {(miner.namespace, miner.name) for miner in miners}
        self.snapshots = {key: value for key, value in self.snapshots.items() if key in known}
        self._teller.keep(miners)
        self._telemetry.end()
        if failure is not None:
            raise failure

    # --- one miner ------------------------------------------------------------------------------------

    async def _tend(self, miner: Miner, measurement: Measurement, now: float) -> set[str]:
        target = await self._cluster.target(miner, now)
        raws = (measurement.workers.get(pod.uid, Raw()) for pod in target.pods)
        measurement = replace(measurement, monitoring=within_fleet(measurement.monitoring, raws))
        fleet = self._fleet(miner, target, measurement, now)
        planned = plan(miner.spec, fleet, now)
        if any(step.eviction for step in planned.steps):
            # The record of an eviction is written before the eviction: a chain of them must survive a crash.
            records = tuple(EvictionRecord.of(e) for e in planned.evictions)
            await self._cluster.write_status(miner, Status(evictions=records))
        fleet, held = await self._carry_out(miner, fleet, planned)
        if self._replicas is not None and target.expected is not None and self._cluster.may_act():
            await self._replicas.follow(miner, fleet)
        # What is told is how things stand after the acts, not before.
        fleet = replace(fleet, evictions=planned.evictions)
        planned = replace(planned, blocked=(*planned.blocked, *held), capacity=measure(miner.spec, fleet))
        for reason, message in planned.notices:
            await self._teller.announce(miner, None, Announcement(reason, message, warning=True))
        ratios = {
            window: found
            for pod in target.miner_pods
            for window in ("1h", "4h")
            if (found := measurement.ratios.get((pod, window))) is not None
        }
        previous = self._teller.previous(miner)
        view = View(
            miner.spec,
            miner.generation,
            fleet,
            planned,
            measurement.monitoring,
            target.expected is not None,
            target.missing,
            ratios,
            previous,
            target.made,
            target.selector,
        )
        rendered = render(view, now)
        await self._teller.tell(miner, rendered, previous, now)
        self._telemetry.fleet(
            [state_of(worker) for worker in fleet.workers],
            [blocked.reason for blocked in planned.blocked],
            ratios,
        )
        self._telemetry.judged(fleet.workers, planned.suspects.values())
        self.snapshots[miner.namespace, miner.name] = Snapshot(
            miner, fleet, planned, measurement, rendered, now
        )
        return {worker.pod.uid for worker in fleet.workers}

    def _fleet(self, miner: Miner, target: Target, measurement: Measurement, now: float) -> Fleet:
        previous = self._teller.previous(miner)
        monitoring = measurement.monitoring
        raws = ((pod, measurement.workers.get(pod.uid, Raw())) for pod in target.pods)
        seen = [(pod, attribute(raw, pod.started_at, monitoring.failed)) for pod, raw in raws]
        workers = tuple(self._tracker.worker(*each, now) for each in judge_all(miner.spec, seen, monitoring))
        return Fleet(
            workers=workers,
            expected=target.expected or 0,
            rollout=target.rollout,
            paused=miner.paused,
            short_circuit_at=previous.last_storm_time,
            evictions=tuple(record.eviction() for record in previous.evictions or ()),
            trials=tuple(entry.trial() for entry in previous.devices or ()),
        )

    # --- acting ---------------------------------------------------------------------------------------

    async def _carry_out(self, miner: Miner, fleet: Fleet, planned: Plan) -> tuple[Fleet, list[Blocked]]:
        """Take every step; returns the fleet as it is now written down, and what held steps back."""
        pods = {worker.pod.uid: worker.pod for worker in fleet.workers}
        held: list[Blocked] = []
        slots = asyncio.Semaphore(PARALLEL_ACTS)

        async def take(step: Step) -> None:
            async with slots:
                blocked = await self._take(miner, pods, step)
                if blocked is not None:
                    held.append(blocked)

        # Steps of one worker keep their order; workers are independent of each other.
        by_worker: dict[str, list[Step]] = {}
        for step in planned.steps:
            by_worker.setdefault(step.uid, []).append(step)

        async def in_turn(steps: Iterable[Step]) -> None:
            for step in steps:
                await take(step)

        await asyncio.gather(*(in_turn(steps) for steps in by_worker.values()))
        workers = tuple(replace(worker, pod=pods[worker.pod.uid]) for worker in fleet.workers)
        return replace(fleet, workers=workers), held

    async def _take(self, miner: Miner, pods: dict[str, Pod], step: Step) -> Blocked | None:
        pod = pods[step.uid]
        if not self._cluster.may_act():
            raise Refused("not_leader", "the Lease is not held: nothing is done")
        last = step.act is Act.USER_UNCORDON
        written = False
        try:
            if last:
                await self._act(miner, pod, step)
            if _changes(pod, step):
                pod = pods[step.uid] = await self._cluster.annotate(miner, pod, step)
            written = True
            if not last:
                await self._act_on(miner, pod, step)
        except Disrupted as error:
            self._count(step, error.outcome)
            return Blocked(pod.uid, pod.name, Reason.DISRUPTION_BUDGET, str(error), step.cause)
        except Conflict as error:
            self._count(step, error.outcome)
            log.info("%s: %s: %s", pod.name, step.act, error)
            return None
        except Refused as error:
            self._count(step, error.outcome)
            log.warning("%s: %s did not work: %s", pod.name, step.act, error)
            # What is not written down has not begun, and is tried again: so with a user's cordon that could
            # not be asserted or lifted, so with an intent.
            if last or not written or step.act is Act.USER_CORDON:
                return None
        else:
            self._count(step, "ok")
        if not step.silent:
            log.info(
                "%s: %s: %s", pod.name, step.reason, step.message, extra={"pod": pod.name, "rule": step.cause}
            )
            await self._teller.announce(miner, pod, Announcement(step.reason, step.message, step.warning))
        return None

    def _count(self, step: Step, outcome: str) -> None:
        if step.act is not Act.RENEW or outcome != "ok":
            self._telemetry.action(step.act, step.cause or step.reason, outcome)

    async def _act_on(self, miner: Miner, pod: Pod, step: Step) -> None:
        if step.act is Act.EVICT:
            # Its lease must go on while the eviction waits; a hung worker cannot answer, and need not.
            await self._quietly(self._act(miner, pod, replace(step, act=Act.RENEW)))
            await self._cluster.evict(miner, pod)
            return
        await self._act(miner, pod, step)

    async def _quietly(self, act: Awaitable[None]) -> None:
        try:
            await act
        except Refused as error:
            log.debug("%s", error)

    async def _act(self, miner: Miner, pod: Pod, step: Step) -> None:
        record, intent, admin = self._tracker.of(pod), pod.intent, self._admin
        match step.act:
            case Act.CORDON | Act.RENEW:
                reason = f"{step.cause}: {intent.reason}" if intent is not None else step.message
                record.asked_at = self._clock() if record.asked_at is None else record.asked_at
                record.drained = await admin.drain(
                    pod, LeaseOwner.OPERATOR, reason[:500], miner.spec.drain.lease_seconds
                )
                record.leased = True
            case Act.UNCORDON:
                await admin.resume(pod, LeaseOwner.OPERATOR)
            case Act.NOTE if step.reason is Reason.WORKER_RESTARTED:
                # A lease meant for the life that has ended may have reached the one after it. If this does
                # not, it runs out by itself.
                await self._quietly(admin.resume(pod, LeaseOwner.OPERATOR))
            case Act.USER_CORDON:
                await admin.drain(pod, LeaseOwner.USER, step.message[:500], None)
                record.cordon_confirmed = True
            case Act.USER_UNCORDON:
                await admin.resume(pod, LeaseOwner.USER)
            case Act.EXIT:
                if intent is None or intent.boot_id is None:
                    raise Refused(
                        "unknown_incarnation", "its boot id is not known, so it cannot be asked to exit"
                    )
                try:
                    await admin.exit(pod, intent.boot_id, f"{step.cause}: {intent.reason}"[:500])
                except OtherIncarnation:
                    record.acknowledged.add(Stage.RECYCLE)
                    raise
                record.acknowledged.add(Stage.RECYCLE)
            case Act.SWAP | Act.REPLACE:
                if step.act is Act.REPLACE:
                    await self._quietly(self._act(miner, pod, replace(step, act=Act.RENEW)))
                await self._recycle_model(pod, step)
            case Act.CLEANUP | Act.CANARY:
                await self._quietly(self._act(miner, pod, replace(step, act=Act.RENEW)))
                self._begin(pod, step)
            case Act.EVICT | Act.NOTE:
                pass

    async def _recycle_model(self, pod: Pod, step: Step) -> None:
        """Ask for a swap or replacement, and once that is heard for its end."""
        record, intent, admin = self._tracker.of(pod), pod.intent, self._admin
        if intent is None or intent.life_id is None:
            raise Refused("unknown_incarnation", "the life of its model process is not known")
        how = RecycleHow.SWAP if step.act is Act.SWAP else RecycleHow.REPLACE
        if step.silent:
            # An operator that was killed after it had asked must not ask for another one.
            await self._quietly(self._hear_end(pod, intent, how, record))
        if intent.action in record.acknowledged or record.recycle is not None:
            return
        verify = how is RecycleHow.SWAP and intent.rule_class is RuleClass.QUALITY
        reason = f"{step.cause}: {intent.reason}"[:500]
        try:
            await admin.recycle(pod, intent.life_id, how, reason, verify=verify)
        except NoRoom as error:
            record.recycle = RecycleResult(RecycleOutcome.NO_ROOM, str(error))
            raise
        except OtherIncarnation:
            record.acknowledged.add(intent.action)
            raise
        record.acknowledged.add(intent.action)

    async def _hear_end(self, pod: Pod, intent: Intent, how: RecycleHow, record: PodRecord) -> None:
        found = await self._admin.recycled(pod, intent.life_id or "", how, intent.at)
        if found is not None:
            record.acknowledged.add(intent.action)
            record.recycle, record.progress = (None, found) if found.outcome is None else (found, None)

    def _begin(self, pod: Pod, step: Step) -> None:
        """Start a clean-up or canary beside the tick: either may take longer than a period."""
        intent = pod.intent
        if intent is None:
            return
        key = (pod.uid, intent.action, intent.at)
        if key in self._jobs:
            return
        record = self._tracker.of(pod)

        async def work() -> None:
            try:
                if step.act is Act.CLEANUP:
                    await self._admin.cleanup(pod)
                    record.acknowledged.add(Stage.CLEANUP)
                else:
                    result = await self._admin.canary(pod)
                    if record.key == (intent.action, intent.at):
                        record.canary = replace(result, at=self._clock())
            except Refused as error:
                log.warning("%s: %s did not work: %s", pod.name, step.act, error)
                self._telemetry.action(step.act, step.cause, error.outcome)
                if step.act is Act.CANARY and record.key == (intent.action, intent.at):
                    record.canary = CanaryResult(self._clock(), None, str(error))
            finally:
                self._jobs.pop(key, None)

        self._jobs[key] = asyncio.create_task(work(), name=f"{step.act}-{pod.name}")


def _changes(pod: Pod, step: Step) -> bool:
    return (
        pod.intent != step.intent or pod.history != step.history or step.drop_request or step.drop_user_cordon
    )
