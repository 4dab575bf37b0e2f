"""Gateway, Postgres, miner and workers are killed as clients' tasks flow: none is lost, no result changes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from gateway_databases import postgres
from gateway_flow import check
from gateway_process import GatewayProcess
from miner_flow import Fleet, MinerFlow, check_journal
from miner_kill_record import attempt

QUICK: dict[str, Any] = {
    "lease_seconds": 4,
    "sweep_seconds": 0.5,
    "task_seconds": 7200,
    "result_seconds": 7200,
    "queue_limit": 20_000,
    "database": "postgres",
}


def through_everything(folder: Path, tasks: int, kills: int) -> None:
    url = folder / "url"
    with attempt(tasks) as found, postgres() as server:
        url.write_text(server.url)
        with GatewayProcess(folder, **QUICK, database_url_file=url) as gateway:
            fleet = Fleet(folder, gateway)

            def gateway_again() -> None:
                gateway.kill()
                gateway.start()

            def postgres_again() -> None:
                server.kill()
                server.start()

            ways = {"gateway": gateway_again, "postgres": postgres_again, "miner": fleet.miner.restart}
            ways |= {f"worker {number}": worker.restart for number, worker in enumerate(fleet.workers, 1)}
            flow = MinerFlow([gateway], tasks, seed=21)
            with fleet.running():
                started = time.monotonic()
                seen = flow.run(ways, kills)
                seconds = time.monotonic() - started
                fleet.miner.finish()
            journal = check_journal(fleet, seen)
            check(seen, [gateway])
        found |= {
            "tasks": seen.wanted,
            "seconds": round(seconds),
            "kills": dict(sorted(seen.kills.items())),
            "lost": seen.wanted - len(seen.got),
            "fetched_again": seen.repeats,
            "answers_with_other_bytes": len(seen.different),
            "journal": journal,
        }
        print(found)


@pytest.mark.timeout(600)
def test_everything_is_killed_at_random(tmp_path: Path) -> None:
    through_everything(tmp_path, 150, kills=7)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_tasks_while_everything_is_killed(tmp_path: Path) -> None:
    """``FLOW_TASKS`` changes the number; a kill for each 150 of them."""
    tasks = int(os.environ.get("FLOW_TASKS", "10000"))
    through_everything(tmp_path, tasks, kills=max(7, tasks // 150))
