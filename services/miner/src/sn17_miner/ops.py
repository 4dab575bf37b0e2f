"""What the miner shows on its ops port besides metrics: tasks with their story, validators, workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Query
from sn17_contract.http import Code
from sn17_contract.tasks import (
    GatewayView,
    NodePhase,
    NodeView,
    TaskList,
    TaskState,
    TaskView,
    ValidatorList,
    ValidatorView,
    WorkerView,
)
from sn17_service import Problem

from sn17_miner.core.nodes import Node
from sn17_miner.core.scheduler import Lane
from sn17_miner.gateways import Gateways
from sn17_miner.journal.views import list_tasks, open_story
from sn17_miner.kept import KeptAssets
from sn17_miner.miner import Miner


def validator_view(lane: Lane, now: float) -> ValidatorView:
    """A lane as people see it."""
    learned = lane.learned
    outlook = learned.outlook(now)
    return ValidatorView(
        hotkey=lane.neuron.hotkey,
        uid=lane.neuron.uid,
        address=lane.neuron.address,
        stake=lane.neuron.stake,
        phase=lane.phase,
        reason=lane.reason,
        next_pull=lane.next_pull,
        task_id=lane.task_id,
        failures=lane.failures,
        throttle=learned.throttle,
        threshold=learned.threshold,
        base_cooldown=learned.base_cooldown,
        penalty=learned.penalty,
        acceptance=learned.acceptance,
        delivery=learned.delivery,
        clock_offset=learned.offset.estimate,
        gate_break_even=outlook.break_even,
        expected_per_hour=outlook.rate * 3600.0,
    )


def gateway_views(gateways: Gateways) -> tuple[GatewayView, ...]:
    """Gateways and their nodes as people see them."""
    nodes = list(gateways.nodes.nodes.values())
    return tuple(
        GatewayView(
            door=source.door,
            weight=source.weight,
            nodes=tuple(
                _node_view(node, gateways.open_tasks.get(node.url, 0))
                for node in nodes
                if node.door == source.door
            ),
        )
        for source in gateways.sources.values()
    )


def _node_view(node: Node, open_tasks: int) -> NodeView:
    return NodeView(
        url=node.url,
        phase=node.phase,
        reason=node.reason,
        next_pull=None if node.phase is NodePhase.PULLING else node.wake_at,
        failures=node.failures,
        open_tasks=open_tasks,
    )


@dataclass(slots=True)
class MinerHandle:
    """Where the routes find the journal, and the miner once it is there: they are made before it."""

    journal: Path
    miner: Miner | None = None

    def ready(self) -> Miner:
        """The miner. Raises Problem while it starts."""
        if self.miner is None:
            raise Problem(Code.WARMING_UP, "the miner starts; ask again in a second", retry_after_seconds=1)
        return self.miner


def routes(handle: MinerHandle, kept: KeptAssets) -> APIRouter:
    """Routes behind the admin token; the ops port serves them on a thread of its own."""
    router = APIRouter(prefix="/v1")
    journal = handle.journal

    @router.get("/tasks")
    def tasks(
        limit: int = Query(50, ge=1, le=1000),
        state: TaskState | None = None,
        validator: str | None = Query(None, max_length=64),
        task_id: str | None = Query(None, max_length=128),
        door: str | None = Query(None, max_length=64),
    ) -> TaskList:
        handle.ready()
        found = list_tasks(
            journal,
            limit=limit,
            state=state and state.value,
            validator=validator,
            task_id=task_id,
            door=door,
        )
        return found.model_copy(update={"tasks": tuple(_with_kept(task, kept) for task in found.tasks)})

    @router.get("/tasks/{n}")
    def task(n: int) -> TaskView:
        handle.ready()
        view = open_story(journal, n)
        if view is None:
            raise Problem(Code.NOT_FOUND, f"the journal has no task {n}; it may have been pruned")
        return _with_kept(view, kept)

    @router.get("/validators")
    def validators() -> ValidatorList:
        miner = handle.ready()
        now, clock = miner.context.monotonic(), miner.context.clock()
        fleet = miner.context.pool.fleet
        workers = [
            WorkerView(
                url=w.url,
                name=w.name,
                state=w.status.state.value if w.status else None,
                free=fleet.why_not(w, now) is None,
                reason=fleet.why_not(w, now),
                status=w.status,
            )
            for w in list(fleet.workers.values())
        ]
        lanes = list(miner.context.scheduler.lanes.values())
        return ValidatorList(
            validators=tuple(validator_view(lane, clock) for lane in lanes),
            workers=tuple(workers),
            not_pulling=miner.why_not_pulling,
            gateways=gateway_views(miner.gateways),
        )

    return router


def _with_kept(task: TaskView, kept: KeptAssets) -> TaskView:
    return task.model_copy(update={"kept": kept.path(task.n, task.task_id).is_file()})
