"""The memory of one node: queue, assignments and results, all gone after a restart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from sn17_contract.gateway import DEFAULT_MODEL

from sn17_devnet.gateway.database import Database
from sn17_devnet.gateway.model import Context, Delivery, Result, State, Status, ended, partial

QUEUE_PLACE_SECONDS: Final = 1800.0


class Refused(StrEnum):
    """Why a result is not taken."""

    GONE = "gone"
    NOT_ASSIGNED = "not assigned"


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds: a task's life from add_task; results, from the last one."""

    task: float
    results: float


@dataclass(slots=True)
class Kept:
    """Results of a task, by arrival."""

    results: list[Result] = field(default_factory=list)

    @property
    def assets(self) -> list[bytes]:
        return [result.asset for result in self.results if result.asset is not None]


class Memory:
    """Clean-up happens in :meth:`tick` alone, so that all ends are late by its interval."""

    def __init__(
        self,
        database: Database,
        lifetimes: Lifetimes,
        clock: Callable[[], float],
        new_token: Callable[[], str],
    ) -> None:
        self.contexts: dict[str, Context] = {}
        self.kept: dict[str, Kept] = {}
        self.queue: list[Context] = []
        self.last_pull = 0.0
        self._database = database
        self._lifetimes = lifetimes
        self._clock = clock
        self._new_token = new_token
        self._served: str | None = None

    def add(self, context: Context) -> None:
        self._database.add(context.record)
        self.contexts[context.record.id] = context
        self.queue.append(context)

    def pull(
        self, hotkey: str, worker_id: str, tags: frozenset[str], models: Sequence[str], count: int
    ) -> list[tuple[Context, Delivery]]:
        """Hand out tasks: the models in turn, first come first served within one, each once per hotkey."""
        now = self._clock()
        order = list(dict.fromkeys(models))
        if self._served in order:
            at = order.index(self._served) + 1
            order = order[at:] + order[:at]
        waiting = {
            model: [c for c in self.queue if c.model == model and self._offered(c, hotkey, tags, now)]
            for model in order
        }
        given: list[tuple[Context, Delivery]] = []
        while len(given) < count and any(waiting.values()):
            for model in order:
                if waiting[model] and len(given) < count:
                    context = waiting[model].pop(0)
                    given.append((context, self._hand_out(context, hotkey, worker_id)))
                    self._served = model
        if given:
            self.last_pull = now
        return given

    def find(self, task: str, hotkey: str, worker_id: str, token: str | None) -> Delivery | Refused:
        """The open delivery that a result belongs to."""
        context = self.contexts.get(task)
        if context is None or context.record.complete or self._clock() >= context.record.expires_at:
            return Refused.GONE
        for delivery in context.record.deliveries:
            mine = delivery.hotkey == hotkey and delivery.worker_id == worker_id
            if mine and token in (None, delivery.token) and delivery.success is None:
                return delivery
        return Refused.NOT_ASSIGNED

    def finish(self, task: str, delivery: Delivery, asset: bytes | None, reason: str | None) -> None:
        """Keep a result of an open delivery."""
        record = self.contexts[task].record
        delivery.success, delivery.reason = asset is not None, reason
        record.finished.append(delivery)
        kept = self.kept.setdefault(task, Kept())
        kept.results.append(Result(delivery.worker_id, asset, reason, self._clock()))
        if record.complete:
            self._database.end(record, ended(kept.results))

    def status(self, task: str) -> Status:
        """What memory says, else the database."""
        context, kept = self.contexts.get(task), self.kept.get(task)
        if context is None or context.record.end is not None:
            return ended(kept.results) if kept is not None else self._database.status(task)
        if kept is not None:
            return partial(len(kept.assets))
        holding = any(delivery.success is None for delivery in context.record.deliveries)
        return Status(State.IN_PROGRESS if holding else State.NO_RESULT)

    def model_of(self, task: str) -> str:
        """After its life a task's model is forgotten: what is kept of it counts as a splat."""
        context = self.contexts.get(task)
        return DEFAULT_MODEL if context is None else context.model

    def tick(self) -> None:
        """End tasks whose life is over, drop results that were kept long enough."""
        now = self._clock()
        for task, kept in list(self.kept.items()):
            if now >= kept.results[-1].at + self._lifetimes.results:
                del self.kept[task]
        for task, context in list(self.contexts.items()):
            if now >= context.record.expires_at:
                past = self.kept.get(task)
                self._database.end(context.record, ended(past.results if past is not None else ()))
                del self.contexts[task]
        self.queue = [
            context for context in self.queue if now < context.record.created_at + QUEUE_PLACE_SECONDS
        ]

    def _offered(self, context: Context, hotkey: str, tags: frozenset[str], now: float) -> bool:
        record = context.record
        if record.end is not None or now >= record.expires_at:
            return False
        if any(delivery.hotkey == hotkey for delivery in record.deliveries):
            return False
        return bool(context.tags & tags) if context.tags else not tags

    def _hand_out(self, context: Context, hotkey: str, worker_id: str) -> Delivery:
        delivery = Delivery(self._new_token(), hotkey, worker_id)
        record = context.record
        record.deliveries.append(delivery)
        if len(record.deliveries) >= record.slots:
            self.queue.remove(context)
        return delivery
