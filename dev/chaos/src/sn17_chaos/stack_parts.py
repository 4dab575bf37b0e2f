"""What the world of processes is made of beside the processes: its operator, and the miner's records."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

from sn17.up.health import neighbours
from sn17.up.stack import Stack
from sn17_miner.core.records import Task
from sn17_miner.journal.journal import Journal
from sn17_operator.adapters.local import LocalEvent, LocalOperator
from sn17_operator.adapters.local_scrape import LocalWorker

from sn17_chaos.history import Completed, Journalled
from sn17_chaos.stack_settings import quick_spec

_GENERATED = re.compile(r"sn17\.trellis: generated key=(\S+)")


def operator_over(
    stack: Stack,
    token_file: Path,
    on_event: Callable[[LocalEvent], None],
    restart: Callable[[str], Awaitable[None]],
) -> LocalOperator:
    """An operator over the stack's workers, with times that fit a run of minutes."""
    workers = [
        LocalWorker(
            worker.spec.name,
            ops_url=f"http://127.0.0.1:{worker.ready.ops_port}",
            data_url=f"http://127.0.0.1:{worker.ready.port}",
        )
        for worker in stack.workers
    ]
    return LocalOperator(
        workers,
        token_file=token_file,
        neighbours=neighbours(stack),
        spec=quick_spec(),
        on_event=on_event,
        restart=restart,
        tick_seconds=1.0,
        scrape_seconds=0.8,
    )


def completed(worker: str, log: str) -> list[Completed]:
    """The generations that this part of a worker's log tells of."""
    return [Completed(key, worker) for key in _GENERATED.findall(log)]


def journalled(path: Path) -> list[Journalled]:
    """What the miner's own records say of every task. Raises JournalError."""
    with closing(Journal(path, readonly=True)) as journal:
        tasks = journal.tasks(limit=100_000)
    return [Journalled(t.task_id, t.validator, t.pulled_at, t.outcome, t.reason) for t in tasks]


def open_tasks(path: Path) -> list[Task]:
    """The tasks that the miner's records say are under way. Raises JournalError."""
    with closing(Journal(path, readonly=True)) as journal:
        return journal.open_tasks()
