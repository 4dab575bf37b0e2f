"""The operator of the local stack: the cluster's policy and planner over child processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from sn17.up.process import ManagedProcess
from sn17.up.session import Session
from sn17.up.stack import Stack
from sn17_operator.adapters.local import LocalEvent, LocalOperator, default_spec
from sn17_operator.adapters.local_scrape import LocalWorker
from sn17_operator.api import Spec

DESIGN_MEAN = 400_000
DESIGN_MINIMUM = 150_000


def local_spec(max_gaussians: int) -> Spec:
    """The defaults with times that fit a run of a minute, and the gaussian minimum scaled to small assets."""
    minimum = max(1, max_gaussians * DESIGN_MINIMUM // DESIGN_MEAN)
    return default_spec(
        rules={
            "memory": {"highForSeconds": 2, "clearForSeconds": 3},
            "gaussians": {"minimumMean": minimum, "minimumGenerations": 4},
        },
        drain={"timeoutSeconds": 20, "leaseSeconds": 30},
        recycle={"exitTimeoutSeconds": 10, "replacementTimeoutSeconds": 300, "cooldownSeconds": 5},
    )


def local_operator(session: Session) -> LocalOperator:
    """An operator over the session's workers; what it does and why goes to the session's events."""
    by_name = {worker.spec.name: worker for worker in session.stack.workers}

    def say(event: LocalEvent) -> None:
        session.events.say(event.worker or "operator", f"{event.reason}: {event.message}")

    async def restart(name: str) -> None:
        by_name[name].kill()

    return LocalOperator(
        _addresses(session.stack.workers),
        token_file=session.stack.token_file,
        neighbours=neighbours(session.stack),
        spec=local_spec(session.options.max_gaussians),
        on_event=say,
        restart=restart,
        tick_seconds=1.0,
        scrape_seconds=0.5,
    )


@contextlib.asynccontextmanager
async def healing(session: Session, *, enabled: bool) -> AsyncIterator[LocalOperator | None]:
    """Run the operator beside the session; it ends before the processes it looks after."""
    if not enabled:
        yield None
        return
    operator = local_operator(session)
    task = asyncio.create_task(operator.run(), name="operator")
    task.add_done_callback(lambda done: _report_end(session, done))
    try:
        yield operator
    finally:
        task.cancel()
        await asyncio.wait({task})


def under_way(operator: LocalOperator | None) -> bool:
    """Whether the operator has taken a worker out of service and not yet put it back."""
    return operator is not None and bool(operator.status.cordoned or operator.status.recycling)


def _report_end(session: Session, task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        session.events.say("operator", f"ended with {error!r}; workers are no longer looked after")


def neighbours(stack: Stack) -> list[str]:
    """Ops URLs of what stands beside the workers."""
    found = (stack.fixer, stack.miner, stack.devnet)
    return [f"http://127.0.0.1:{each.ready.ops_port}" for each in found if each is not None]


def _addresses(workers: Sequence[ManagedProcess]) -> list[LocalWorker]:
    return [
        LocalWorker(
            name=worker.spec.name,
            ops_url=f"http://127.0.0.1:{worker.ready.ops_port}",
            data_url=f"http://127.0.0.1:{worker.ready.port}",
        )
        for worker in workers
    ]
