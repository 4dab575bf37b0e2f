"""Gateways as sources of work: their nodes are found and asked for tasks, which go the way of every task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from sn17_contract.gateway import GatewayInfo

from sn17_miner.clients.gateway import Account, Answered, GatewayClient
from sn17_miner.context import Context
from sn17_miner.core.fleet import Worker
from sn17_miner.core.nodes import Nodes, Order
from sn17_miner.core.receipt import GatewayError
from sn17_miner.core.records import Assignment, Task
from sn17_miner.core.sources import BadOfferError, Offered, Source, node_urls, read_offer
from sn17_miner.generation import holder
from sn17_miner.journal.journal import Journal

_log = logging.getLogger("sn17.miner.gateways")

_FIND_SECONDS: Final = 30.0
_STALE_SECONDS: Final = 3 * _FIND_SECONDS
_REFUSALS: Final = frozenset({400, 401, 402, 403, 404})
_CLIENT_THRESHOLD: Final = 0.6
"""Of the validation score that the quality gate takes for a chance: clients have none of their own."""

Supervise = Callable[[str, Callable[[], Coroutine[Any, Any, None]]], None]


@dataclass(slots=True)
class Gateways:
    """``start`` carries a task on with the worker that is held for it; ``counted`` is called for a new one;
    ``returned`` takes back workers that were asked for and not needed.
    """

    context: Context
    client: GatewayClient
    sources: dict[str, Source]
    accounts: dict[str, Account]
    nodes: Nodes
    start: Callable[[Task, Worker | None], None] = lambda task, worker: None
    counted: Callable[[], None] = lambda: None
    returned: Callable[[str, int], None] = lambda door, workers: None
    open_tasks: dict[str, int] = field(default_factory=dict)
    """By node, as of the last housekeeping."""
    lengths: dict[str, tuple[float, int]] = field(default_factory=dict)
    """By door: when its nodes last told how many tasks they have, and how many that were."""

    def queued(self, now: float) -> dict[str, int]:
        """Tasks that the gateways have for anybody, by door; a door that has not told lately is left out."""
        return {door: tasks for door, (at, tasks) in self.lengths.items() if now - at <= _STALE_SECONDS}

    def run(self, supervise: Supervise) -> None:
        """Look for nodes for ever."""
        for source in self.sources.values():
            self._listed(source, ())
            supervise(f"nodes of {source.door}", partial(self._find_forever, source))

    async def pull(self, order: Order, workers: Sequence[Worker]) -> None:
        """Ask a node. ``workers`` are held for it, one for each task, under the name ``asker``."""
        context, node = self.context, order.node
        given, came, name = list(workers), 0, asker(order)
        try:
            try:
                answer = await self.client.pull(node.url, self.accounts[node.door], order.count)
            except GatewayError as error:
                self._failed(order, error)
                return
            self._unreadable(node.door, answer)
            assigned_at = context.clock()
            for offer in answer.tasks:
                try:
                    offered = read_offer(offer)
                except BadOfferError as error:
                    self._say(node.door, f"a task is not taken: {error}")
                    continue
                task = await self._journalled(self.sources[node.door], node.url, offered, assigned_at)
                if task is not None:
                    came += 1
                    self._begin(task, given.pop(0) if given else None, name)
            answered = "tasks" if answer.tasks else "none"
            context.metrics.polls.labels(node.door, answered).inc()
            # What cannot be done, or is under way, is no sign that asking again at once brings more.
            self.nodes.on_tasks(context.clock(), node, order.count, came)
            if answer.nodes:
                self._listed(self.sources[node.door], answer.nodes)
        except Exception as error:
            self.nodes.on_failed(context.clock(), node, type(error).__name__)
            raise
        finally:
            for worker in given:
                if worker.held_by == name:
                    context.pool.release(worker.url)
            self.returned(node.door, order.count - came)

    async def _journalled(
        self, source: Source, node: str, offered: Offered, assigned_at: float
    ) -> Task | None:
        """The task, if it is a new one."""
        context = self.context
        assignment = Assignment(
            node=node,
            token=offered.token,
            worker_id=source.worker_id,
            model=offered.model,
            seed=offered.seed,
            expires_at=assigned_at + source.life,
        )
        task, new = await context.journal(
            Journal.task_offered,
            source.door,
            task_id=offered.task_id,
            kind=offered.kind,
            prompt=offered.prompt,
            assignment=assignment,
            assigned_at=assigned_at,
            threshold=_CLIENT_THRESHOLD,
        )
        about = {"door": source.door, "node": node, "task": task.n, "prompt": task.log_id}
        if not new:
            _log.info("task handed out again while it is under way", extra=about)
            return None
        self.counted()
        context.metrics.pulled.labels(source.door, "", task.kind).inc()
        _log.info("task pulled", extra=about)
        return task

    def _begin(self, task: Task, worker: Worker | None, name: str) -> None:
        if worker is not None:
            fleet, now = self.context.pool.fleet, self.context.monotonic()
            if worker.held_by == name:
                fleet.release(worker.url, now)
                fleet.hold(worker.url, holder(task.n), now)
        self.start(task, worker)

    def _failed(self, order: Order, error: GatewayError) -> None:
        context, node = self.context, order.node
        refused = error.status in _REFUSALS
        context.metrics.polls.labels(node.door, "refused" if refused else "failed").inc()
        if node.failures == 0 or refused:
            _log.warning("no tasks: %s", error, extra={"door": node.door, "node": node.url})
        self.nodes.on_failed(context.clock(), node, str(error)[:200], refused=refused)

    async def _find_forever(self, source: Source) -> None:
        """Ask for the list of nodes where the settings point to, or else at any node that is known."""
        while True:
            await self.find(source)
            await asyncio.sleep(_FIND_SECONDS)

    async def find(self, source: Source) -> None:
        """Ask once. Who lists nobody, as a node that has just started, says nothing of the others."""
        known = [node.url for node in self.nodes.nodes.values() if node.door == source.door]
        for url in dict.fromkeys([source.url, *known]):
            try:
                answer = await self.client.pull(url, self.accounts[source.door], 0)
            except GatewayError as error:
                _log.info("no list of nodes: %s", error, extra={"door": source.door, "node": url})
                continue
            self._unreadable(source.door, answer)
            if answer.nodes:
                self._listed(source, answer.nodes)
                return

    def _listed(self, source: Source, nodes: Sequence[GatewayInfo]) -> None:
        if nodes:
            waiting = sum(max(0, node.available_tasks) for node in nodes)
            self.lengths[source.door] = self.context.clock(), waiting
        new, gone = self.nodes.sync(self.context.clock(), source.door, node_urls(source, nodes))
        for word, urls in (("found", new), ("gone", gone)):
            for url in urls:
                _log.info("node %s", word, extra={"door": source.door, "node": url})
        if new:
            self.context.wake()

    def _unreadable(self, door: str, answer: Answered) -> None:
        for what in answer.unreadable:
            self._say(door, f"a part of its answer is left out: {what}")

    def _say(self, door: str, text: str) -> None:
        self.context.metrics.decisions.labels("offer refused").inc()
        _log.warning("%s", text, extra={"door": door})


def asker(order: Order) -> str:
    """The name under which a call for tasks holds its workers."""
    return f"tasks of {order.node.url}"
