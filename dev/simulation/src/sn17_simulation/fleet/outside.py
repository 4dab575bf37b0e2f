"""The API server and the workers' admin endpoints, with crashes on both sides of each effect."""

from __future__ import annotations

from collections.abc import Sequence

from sn17_contract.admin import Owner
from sn17_contract.http import LeaseOwner
from sn17_contract.metrics import SwapPhase
from sn17_contract.worker import RecycleHow
from sn17_operator.api import scaled
from sn17_operator.core.model import CanaryResult, Pod, RecycleResult, Rollout, Stage
from sn17_operator.core.plan import Step
from sn17_operator.ports import (
    Announcement,
    Conflict,
    Disrupted,
    Miner,
    NoRoom,
    OtherIncarnation,
    Refused,
    Target,
)
from sn17_operator.status.resource import Status

from sn17_simulation.fleet.cluster import World
from sn17_simulation.fleet.worker import REPLACE_SECONDS, SimWorker


class Crash(BaseException):
    """The operator's process ended here."""


class SimCluster:
    """The API server: versions, conflicts, evictions. ``crash_after`` outside calls the operator dies."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.crash_after: int | None = None
        self.crash_before_effect = False
        self.throttled: frozenset[str] = frozenset()
        """Kinds of calls that the API server answers with 429: target, annotate, evict, event, status."""

    def effect(self) -> None:
        """Called before an effect; a crash here means that it never happened."""
        if self.crash_after is not None and self.crash_after <= 0 and self.crash_before_effect:
            self._die()

    def effected(self) -> None:
        """Called after an effect; a crash here means that it did happen but no one was told."""
        if self.crash_after is None:
            return
        if self.crash_after <= 0:
            self._die()
        self.crash_after -= 1

    def _die(self) -> None:
        self.crash_after = None
        raise Crash

    def may_act(self) -> bool:
        return True

    def _admit(self, kind: str) -> None:
        if kind in self.throttled:
            raise Refused("http_429", "too many requests")

    async def miners(self) -> Sequence[Miner]:
        world = self.world
        return [Miner("m", "m", "ns", world.spec, 1, world.paused, Status.read(world.status))]

    async def target(self, miner: Miner, now: float) -> Target:
        self._admit("target")
        world = self.world
        rollout = Rollout(2 if world.rolling else 1, 1, world.wanted, world.wanted)
        pods = tuple(w.pod for w in world.workers.values())
        return Target(pods, world.wanted, rollout, made=len(pods), selector="app=workers")

    async def annotate(self, miner: Miner, pod: Pod, step: Step) -> Pod:
        self._admit("annotate")
        self.effect()
        world = self.world
        worker = world.workers.get(pod.uid)
        if worker is None or worker.pod.resource_version != pod.resource_version:
            raise Conflict("changed")
        self._check_start(worker, step)
        world.change(
            worker, intent=step.intent, history=step.history,
            recycle_requested=None if step.drop_request else worker.pod.recycle_requested,
            user_cordon=None if step.drop_user_cordon else worker.pod.user_cordon,
        )  # fmt: skip
        self.effected()
        return worker.pod

    def _check_start(self, worker: SimWorker, step: Step) -> None:
        """The budget's promises, held against the world and not against what the operator believes."""
        world, before, after = self.world, worker.pod.intent, step.intent
        if after is None:
            return
        budget = scaled(world.spec.max_unavailable, world.wanted)
        if before is None:
            if not world.prometheus_up:
                world.violations.append(f"{worker.pod.name}: {step.reason} without metrics")
            if world.paused is not None:
                world.violations.append(f"{worker.pod.name}: {step.reason} while paused")
            acting = sum(w.pod.held for w in world.workers.values()) + 1
            costs = worker.pod.ready and worker.pod.user_cordon is None
            missing = world.wanted - world.available() + int(costs)
            swap = after.action is Stage.SWAP
            if not swap and (acting > budget or (costs and missing > budget)):
                world.violations.append(
                    f"{worker.pod.name}: {acting} acting, {missing} missing, budget {budget}"
                )
        if after.action is Stage.RECYCLE and (before is None or before.action is not Stage.RECYCLE):
            key = worker.pod.container_id
            if key in world.exits:
                world.violations.append(f"{key}: a second recycle of one incarnation")
            world.exits.append(key)

    async def set_cost(self, miner: Miner, pod: Pod, cost: int | None) -> None:
        self._admit("cost")
        worker = self.world.workers.get(pod.uid)
        if worker is None:
            raise Conflict("gone")
        self.world.change(worker, deletion_cost=cost)
        self.world.costs_written += 1
        self.effected()

    async def adopt(self, miner: Miner, replicas: int) -> None:
        self._admit("adopt")
        self.effect()
        self.world.spec = miner.spec.model_copy(update={"replicas": replicas})
        self.effected()

    async def set_replicas(self, miner: Miner, replicas: int) -> None:
        self._admit("scale")
        self.effect()
        self.world.scale(replicas)
        self.effected()

    async def evict(self, miner: Miner, pod: Pod) -> None:
        self._admit("evict")
        self.effect()
        world = self.world
        worker = world.workers.get(pod.uid)
        if worker is None:
            raise Conflict("gone")
        if world.budget_blocks_eviction:
            raise Disrupted("budget")
        if not worker.pod.deleting:
            world.evictions += 1
            world.take(worker)
            if worker.job_until is not None and not worker.hung:
                world.lost_jobs += 1
            worker.gone_at = world.now + 10
            world.change(worker, deleting=True, ready=False)
        self.effected()

    async def announce(self, miner: Miner, pod: Pod | None, announcement: Announcement) -> None:
        self._admit("event")
        self.world.events.append((self.world.now, pod.name if pod else "", announcement.reason))
        self.effected()

    async def write_status(self, miner: Miner, status: Status) -> None:
        self._admit("status")
        self.effect()
        self.world.status = {**self.world.status, **status.written()}
        if (word := self.world.status.get("status")) and word not in self.world.words[-1:]:
            self.world.words.append(word)
        self.effected()


class SimAdmin:
    """The workers' admin endpoints, with crashes on both sides of each effect."""

    def __init__(self, world: World, host: SimCluster) -> None:
        self.world = world
        self.host = host
        self.locked = False

    def _worker(self, pod: Pod) -> SimWorker:
        self.host.effect()
        worker = self.world.workers.get(pod.uid)
        if worker is None or worker.restart_at is not None or worker.deaf:
            raise Refused("unreachable", "no answer")
        if self.locked:
            raise Refused("http_401", "unauthorized")
        return worker

    async def drain(self, pod: Pod, by: Owner, reason: str, ttl_seconds: float | None) -> bool:
        worker = self._worker(pod)
        if by is LeaseOwner.OPERATOR:
            self.world.take(worker)
        worker.leases[by] = None if ttl_seconds is None else self.world.now + ttl_seconds
        self.host.effected()
        return worker.job_until is None

    async def resume(self, pod: Pod, by: Owner) -> None:
        self._worker(pod).leases.pop(by, None)
        self.host.effected()

    async def cleanup(self, pod: Pod) -> None:
        worker = self._worker(pod)
        if worker.cleanup_helps:
            worker.memory = 0.3
        self.host.effected()

    async def canary(self, pod: Pod) -> CanaryResult:
        worker = self._worker(pod)
        self.host.effected()
        return CanaryResult(self.world.now, worker.canary_passes, "")

    async def exit(self, pod: Pod, boot_id: str, reason: str) -> None:
        worker = self._worker(pod)
        if worker.boot_id != boot_id:
            raise OtherIncarnation("gone")
        if not worker.stubborn and not worker.hung:
            self.world.take(worker)
            self.world.kill(worker, "Completed", 75)
        self.host.effected()

    async def recycle(self, pod: Pod, life_id: str, how: RecycleHow, reason: str, *, verify: bool) -> None:
        worker = self._worker(pod)
        if worker.life_id != life_id:
            raise OtherIncarnation("gone")
        if how is RecycleHow.SWAP and not worker.fits_two:
            raise NoRoom("two do not fit")
        if worker.swap_until is None:
            if how is RecycleHow.REPLACE:
                self.world.take(worker)
            self.world.recycle(worker, how, verify)
        self.host.effected()

    async def recycled(self, pod: Pod, life_id: str, how: RecycleHow, since: float) -> RecycleResult | None:
        worker = self._worker(pod)
        if worker.swap_until is not None:
            if worker.life_id != life_id:
                return None
            phase = None if worker.stuck else SwapPhase.LOAD
            return RecycleResult(None, phase=phase, start_seconds=REPLACE_SECONDS)
        if worker.last_swap is None:
            return None
        life, last, result, at = worker.last_swap
        return result if (life, last) == (life_id, how) and at >= since else None
