"""Gateway, miner and workers are killed while clients' tasks flow: none is lost, no result ever changes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from gateway_flow import check
from gateway_process import GatewayProcess
from miner_flow import Fleet, MinerFlow, check_journal

QUICK: dict[str, Any] = {
    "lease_seconds": 4,
    "sweep_seconds": 0.5,
    "task_seconds": 3600,
    "result_seconds": 3600,
    "queue_limit": 20_000,
}


def through_everything(folder: Path, tasks: int, kills: int) -> None:
    with GatewayProcess(folder, **QUICK) as gateway:
        fleet = Fleet(folder, gateway)
        flow = MinerFlow([gateway], tasks, seed=21)

        def gateway_again() -> None:
            gateway.kill()
            gateway.start()

        ways = [fleet.miner.restart, gateway_again, *(worker.restart for worker in fleet.workers)]
        with fleet.running():
            started = time.monotonic()
            seen = flow.run(ways, kills)
            took = time.monotonic() - started
            fleet.miner.finish()
        ended = check_journal(fleet, seen)
        check(seen, [gateway])
        told = ", ".join(f"{name} {count}" for name, count in sorted(ended.items()))
        print(f"{tasks} tasks in {took:.0f} s, {seen.kills} kills, 0 lost; journal: {told}")


@pytest.mark.timeout(600)
def test_everything_is_killed_at_random(tmp_path: Path) -> None:
    through_everything(tmp_path, 150, kills=6)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_tasks_while_everything_is_killed(tmp_path: Path) -> None:
    """``FLOW_TASKS`` changes the number; a kill for each hundred of them."""
    tasks = int(os.environ.get("FLOW_TASKS", "10000"))
    through_everything(tmp_path, tasks, kills=max(6, tasks // 100))
