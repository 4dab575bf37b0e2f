"""Tasks and deliveries as rows, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sn17_gateway.core.model import Asset, Delivery, Outcome, Task
from sn17_gateway.storage.database import Row, Transaction

TASK_COLUMNS: Final = (
    "id, model, prompt, image, seed, params, tags, owner, address, origin, slots, created_at, expires_at"
)
DELIVERY_COLUMNS: Final = (
    "token, hotkey, worker_id, given_at, lease_until, outcome, finished_at, number,"
    " reason, file, size, digest"
)


def tags_text(tags: Iterable[str]) -> str:
    """``,a,b,`` so that each tag can be found between two commas; empty without tags."""
    ordered = sorted(tags)
    return f",{','.join(ordered)}," if ordered else ""


def tags_of(text: str) -> frozenset[str]:
    return frozenset(filter(None, text.split(",")))


def task_values(task: Task) -> Sequence[Any]:
    """In the order of :data:`TASK_COLUMNS`."""
    return (
        task.id, task.model, task.prompt, task.image, task.seed, task.params, tags_text(task.tags),
        task.owner, task.address, task.origin, task.slots, task.created_at, task.expires_at,
    )  # fmt: skip


def delivery_values(delivery: Delivery) -> Sequence[Any]:
    """In the order of :data:`DELIVERY_COLUMNS`."""
    asset = delivery.asset
    return (
        delivery.token, delivery.hotkey, delivery.worker_id, delivery.given_at, delivery.lease_until,
        delivery.outcome.value, delivery.finished_at, delivery.number, delivery.reason,
        *((asset.file, asset.size, asset.digest) if asset else (None, None, None)),
    )  # fmt: skip


def read_delivery(row: Row) -> Delivery:
    file, size, digest = row[9:12]
    return Delivery(
        token=row[0], hotkey=row[1], worker_id=row[2], given_at=row[3], lease_until=row[4],
        outcome=Outcome(row[5]), finished_at=row[6], number=row[7], reason=row[8],
        asset=None if file is None else Asset(file, size, digest),
    )  # fmt: skip


async def read_task(tx: Transaction, task_id: str, *, lock: bool = False) -> Task | None:
    """The task with its deliveries; ``lock`` keeps others from changing it until the end."""
    query = tx.lock if lock else tx.fetch
    rows = await query(f"SELECT {TASK_COLUMNS} FROM tasks WHERE id=?", task_id)
    if not rows:
        return None
    row = rows[0]
    deliveries = await tx.fetch(f"SELECT {DELIVERY_COLUMNS} FROM deliveries WHERE task=? ORDER BY n", task_id)
    return Task(
        id=row[0], model=row[1], prompt=row[2], image=row[3], seed=row[4], params=row[5],
        tags=tags_of(row[6]), owner=row[7], address=row[8], origin=row[9], slots=row[10],
        created_at=row[11], expires_at=row[12],
        deliveries=tuple(read_delivery(item) for item in deliveries),
    )  # fmt: skip
