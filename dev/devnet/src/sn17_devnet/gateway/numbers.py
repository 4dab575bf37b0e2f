"""The numbers of a node's public ``/metrics``."""

from __future__ import annotations

from collections import Counter

from sn17_devnet.gateway.database import Database
from sn17_devnet.gateway.memory import Memory
from sn17_devnet.gateway.model import DEADLINE, TIMED_OUT, State


def metrics_text(memory: Memory, database: Database, node: int) -> str:
    """Text of Prometheus: the queue, open assignments by hotkey, tasks by end."""
    mine = [record for record in database.records.values() if record.node == node]
    ends = Counter(record.end.text for record in mine if record.end is not None)
    late = sum(record.end is not None and record.end.reason in (TIMED_OUT, DEADLINE) for record in mine)
    open_by_hotkey = Counter(
        delivery.hotkey
        for context in memory.contexts.values()
        for delivery in context.record.deliveries
        if delivery.success is None
    )
    lines = [
        f"queue_len {len(memory.queue)}",
        f"tasks_received_total {len(mine)}",
        f"completed_tasks_total {ends[State.SUCCESS]}",
        f"failed_tasks_total {ends[State.FAILURE]}",
        f"timeout_failures_total {late}",
        *(f'tasks_in_progress{{worker="{hotkey}"}} {count}' for hotkey, count in open_by_hotkey.items()),
    ]
    return "\n".join(lines) + "\n"
