"""Tasks in the database: every method is one transaction around a decision of the core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sn17_contract.gateway import KeyKind

from sn17_gateway.core.limits import Allowance, OverLimit, Usage, admit, day_start
from sn17_gateway.core.model import Asset, Delivery, Named, Task, Worker
from sn17_gateway.core.selection import interleave, turns
from sn17_gateway.core.tasks import Refused, ended_at, find_delivery, finish, free_at, hand_out, offered, over
from sn17_gateway.storage.database import Database, Transaction
from sn17_gateway.storage.rows import (
    DELIVERY_COLUMNS,
    TASK_COLUMNS,
    delivery_values,
    read_task,
    tags_text,
    task_values,
)

#: For the column ``free_at`` of a complete task; any time beyond all others.
_FAR: Final = 1e15
_SWEEP_AT_ONCE: Final = 500
_TASK_PLACEHOLDERS: Final = ", ".join("?" for _ in TASK_COLUMNS.split(", "))
_DELIVERY_PLACEHOLDERS: Final = ", ".join("?" for _ in DELIVERY_COLUMNS.split(", "))


@dataclass(frozen=True, slots=True)
class QueueFull:
    """No place is left; ``limit`` tasks wait."""

    limit: int


@dataclass(frozen=True, slots=True)
class Earlier:
    """A request of this name made ``task``; ``same``: it asked for the same."""

    task: str
    same: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Tasks that wait for a worker, that a worker holds, and the time of the oldest waiting one."""

    waiting: int
    in_progress: int
    oldest: float | None


@dataclass(frozen=True, slots=True)
class Swept:
    """Tasks whose life ended without a success, files that can go, rows that went."""

    timed_out: int
    files: tuple[str, ...]
    forgotten: int


class Store:
    """``queue_limit`` is for tasks that wait; times come from the caller."""

    def __init__(self, database: Database, *, queue_limit: int, new_token: Callable[[], str]) -> None:
        self._db = database
        self._queue_limit = queue_limit
        self._new_token = new_token
        self._last_model: str | None = None

    async def queue_full(self, now: float) -> bool:
        return await self._db.run(lambda tx: self._full(tx, now))

    async def earlier(self, request: Named) -> Earlier | None:
        return await self._db.run(lambda tx: _earlier(tx, request))

    async def add(
        self, task: Task, allowance: Allowance, request: Named | None = None
    ) -> Earlier | QueueFull | OverLimit | None:
        """Keep the task unless its request came before, or queue or key is at its limit; all as one."""

        async def work(tx: Transaction) -> Earlier | QueueFull | OverLimit | None:
            await tx.serialise()
            if request is not None and (earlier := await _earlier(tx, request)) is not None:
                return earlier
            if await self._full(tx, task.created_at):
                return QueueFull(self._queue_limit)
            usage = await _usage(tx, allowance, task)
            limit = admit(allowance, usage)
            if limit is None:
                sql = f"INSERT INTO tasks ({TASK_COLUMNS}, free_at) VALUES ({_TASK_PLACEHOLDERS}, 0)"
                await tx.fetch(sql, *task_values(task))
            if limit is None and request is not None:
                await tx.fetch("INSERT INTO requests VALUES (?, ?, ?)", request.name, request.digest, task.id)
            return limit

        return await self._db.run(work)

    async def get(self, task_id: str) -> Task | None:
        return await self._db.run(lambda tx: read_task(tx, task_id))

    async def claim(
        self, worker: Worker, models: Sequence[str], count: int, now: float, lease_seconds: float
    ) -> list[tuple[Task, Delivery]]:
        """Hand out at most ``count`` tasks of ``models``; each belongs to the worker until its lease ends."""
        order = turns(models, self._last_model)

        async def work(tx: Transaction) -> list[tuple[Task, Delivery]]:
            waiting = {model: await _candidates(tx, worker, model, count, now) for model in order}
            given = []
            for task_id in interleave(order, waiting, count):
                task = await read_task(tx, task_id)
                if task is None or not offered(task, worker, now):
                    continue
                changed = hand_out(task, worker, self._new_token(), now, lease_seconds)
                delivery = changed.deliveries[-1]
                sql = (
                    f"INSERT INTO deliveries ({DELIVERY_COLUMNS}, task) VALUES ({_DELIVERY_PLACEHOLDERS}, ?)"
                )
                await tx.fetch(sql, *delivery_values(delivery), task.id)
                await _save_times(tx, changed, now)
                given.append((changed, delivery))
            return given

        given = await self._db.run(work)
        if given:
            self._last_model = given[-1][0].model
        return given

    async def find(self, task_id: str, worker: Worker, token: str | None, now: float) -> Delivery | Refused:
        """The delivery that a result would belong to, without changing anything."""

        async def work(tx: Transaction) -> Delivery | Refused:
            return find_delivery(await read_task(tx, task_id), worker, token, now)

        return await self._db.run(work)

    async def finish(
        self, task_id: str, worker: Worker, token: str | None, result: Asset | str, now: float
    ) -> Delivery | Refused:
        """Keep a result: an asset that lies in the folder, or the reason of a failure."""

        async def work(tx: Transaction) -> Delivery | Refused:
            task = await read_task(tx, task_id, lock=True)
            found = find_delivery(task, worker, token, now)
            if task is None or isinstance(found, Refused):
                return found if isinstance(found, Refused) else Refused.GONE
            changed = finish(task, found.token, result, now)
            delivery = next(item for item in changed.deliveries if item.token == found.token)
            columns = ", ".join(f"{name}=?" for name in DELIVERY_COLUMNS.split(", "))
            await tx.fetch(
                f"UPDATE deliveries SET {columns} WHERE token=?", *delivery_values(delivery), delivery.token
            )
            await _save_times(tx, changed, now)
            return delivery

        return await self._db.run(work)

    async def snapshot(self, now: float) -> Snapshot:
        async def work(tx: Transaction) -> Snapshot:
            sql = (
                "SELECT count(*), count(CASE WHEN free_at<=? THEN 1 END),"
                " min(CASE WHEN free_at<=? THEN created_at END)"
                " FROM tasks WHERE ended_at IS NULL AND expires_at>?"
            )
            total, waiting, oldest = (await tx.fetch(sql, now, now, now))[0]
            return Snapshot(waiting, total - waiting, oldest)

        return await self._db.run(work)

    async def sweep(self, now: float, keep_results: float, keep_states: float) -> Swept:
        """End tasks whose life is over, and forget what has been kept long enough.

        The caller removes the files; those of a crash in between are found as orphans.
        """

        async def work(tx: Transaction) -> Swept:
            ended = await tx.fetch(
                "UPDATE tasks SET ended_at=expires_at WHERE ended_at IS NULL AND expires_at<=? RETURNING"
                " (SELECT count(*) FROM deliveries WHERE task=tasks.id AND outcome='success')",
                now,
            )
            timed_out = sum(successes == 0 for (successes,) in ended)
            done = await tx.fetch(
                "UPDATE tasks SET cleaned=1 WHERE id IN (SELECT id FROM tasks WHERE cleaned=0 AND ended_at<=?"
                f" ORDER BY ended_at LIMIT {_SWEEP_AT_ONCE}) RETURNING id, image",
                now - keep_results,
            )
            files = [image for _, image in done if image is not None]
            for task_id, _ in done:
                rows = await tx.fetch(
                    "SELECT file FROM deliveries WHERE task=? AND file IS NOT NULL", task_id
                )
                files += [file for (file,) in rows]
            forgotten = await tx.fetch(
                "DELETE FROM tasks WHERE cleaned=1 AND id IN"
                f" (SELECT id FROM tasks WHERE ended_at<=? ORDER BY ended_at LIMIT {_SWEEP_AT_ONCE}) "
                " RETURNING id",
                now - max(keep_results, keep_states),
            )
            return Swept(timed_out, tuple(files), len(forgotten))

        return await self._db.run(work)

    async def files(self) -> frozenset[str]:
        """Names of all files that a row still needs."""

        async def work(tx: Transaction) -> frozenset[str]:
            rows = [
                *await tx.fetch("SELECT image FROM tasks WHERE cleaned=0 AND image IS NOT NULL"),
                *await tx.fetch(
                    "SELECT file FROM deliveries JOIN tasks ON tasks.id=deliveries.task"
                    " WHERE cleaned=0 AND file IS NOT NULL"
                ),
            ]
            return frozenset(name for (name,) in rows)

        return await self._db.run(work)

    async def _full(self, tx: Transaction, now: float) -> bool:
        rows = await tx.fetch(
            "SELECT count(*) FROM tasks WHERE ended_at IS NULL AND free_at<=? AND expires_at>?", now, now
        )
        count: int = rows[0][0]
        return count >= self._queue_limit


async def _earlier(tx: Transaction, request: Named) -> Earlier | None:
    rows = await tx.fetch("SELECT task, digest FROM requests WHERE name=?", request.name)
    return Earlier(rows[0][0], rows[0][1] == request.digest) if rows else None


async def _usage(tx: Transaction, allowance: Allowance, task: Task) -> Usage:
    """Failures of a company are not counted for its day."""
    owner = "owner IS NULL" if task.owner is None else "owner=?"
    values = () if task.owner is None else (task.owner,)
    now, since = task.created_at, day_start(allowance.kind, task.created_at)
    rows = await tx.fetch(
        f"SELECT count(*) FROM tasks WHERE {owner} AND ended_at IS NULL AND expires_at>?", *values, now
    )
    open_tasks = rows[0][0]
    counted = (
        " AND (ended_at IS NULL OR EXISTS"
        " (SELECT 1 FROM deliveries WHERE task=tasks.id AND outcome='success'))"
        if allowance.kind is KeyKind.COMPANY
        else ""
    )
    sql = (
        "SELECT count(*), count(CASE WHEN address=? THEN 1 END) FROM tasks"
        f" WHERE {owner} AND created_at>?{counted}"
    )
    today, by_address = (await tx.fetch(sql, task.address, *values, since))[0]
    return Usage(open_tasks, today, by_address)


async def _candidates(tx: Transaction, worker: Worker, model: str, count: int, now: float) -> Sequence[str]:
    """Ids of waiting tasks that :func:`offered` will say yes to, first come first served."""
    if worker.tags:
        tags = " OR ".join("tags LIKE ? ESCAPE '!'" for _ in worker.tags)
        patterns = [f"%{_escaped(tags_text([tag]))}%" for tag in sorted(worker.tags)]
    else:
        tags, patterns = "tags=?", [""]
    sql = (
        "SELECT id FROM tasks WHERE ended_at IS NULL AND model=? AND free_at<=? AND expires_at>?"
        f" AND ({tags}) AND NOT EXISTS (SELECT 1 FROM deliveries WHERE task=tasks.id AND hotkey=?"
        " AND (outcome!='open' OR lease_until>?)) ORDER BY n LIMIT ?"
    )
    rows = await tx.claim(sql, model, now, now, *patterns, worker.hotkey, now, count)
    return [task_id for (task_id,) in rows]


async def _save_times(tx: Transaction, task: Task, now: float) -> None:
    end = ended_at(task) if over(task, now) else None
    await tx.fetch(
        "UPDATE tasks SET free_at=?, ended_at=? WHERE id=?", min(free_at(task, now), _FAR), end, task.id
    )


def _escaped(text: str) -> str:
    return text.replace("!", "!!").replace("_", "!_").replace("%", "!%")
