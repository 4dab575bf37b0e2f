"""Gateways, and the database, are killed while tasks flow: none is lost, and no result ever changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gateway_databases import Postgres, postgres
from gateway_flow import Flow, Seen, check
from gateway_process import GatewayProcess

QUICK: dict[str, Any] = {
    "lease_seconds": 3,
    "sweep_seconds": 0.5,
    "task_seconds": 3600,
    "result_seconds": 3600,
    "queue_limit": 20_000,
    "max_uploads": 64,
}


def restarts(gateway: GatewayProcess) -> Callable[[], None]:
    def restart() -> None:
        gateway.kill()
        gateway.start()

    return restart


def restarts_database(server: Postgres) -> Callable[[], None]:
    def restart() -> None:
        server.kill()
        server.start()

    return restart


def told(seen: Seen) -> str:
    kills = seen.kills.total()
    return f"{seen.wanted} tasks, {seen.deliveries} deliveries, {kills} kills, {seen.died} workers died"


def on_sqlite(folder: Path, tasks: int, kills: int) -> None:
    with GatewayProcess(folder, **QUICK) as gateway:
        flow = Flow([gateway], tasks, seed=17)
        seen = flow.run({"gateway": restarts(gateway)}, kills)
        check(seen, [gateway])
        files = folder / "data" / "files"
        kept = [path for path in files.iterdir() if path.suffix == ".result"]
        print(f"{told(seen)}, {len(kept)} files")
        assert len(kept) >= tasks


def on_postgres(folder: Path, tasks: int, kills: int) -> None:
    with postgres() as server:
        url = folder / "url"
        url.write_text(server.url)
        gateways = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            shared = {"database": "postgres", "database_url_file": url, "data_dir": folder / "data"}
            gateways.append(GatewayProcess(folder / name, **QUICK, **shared))
        with gateways[0], gateways[1]:
            flow = Flow(gateways, tasks, seed=18)
            ways = {
                "gateway a": restarts(gateways[0]),
                "gateway b": restarts(gateways[1]),
                "postgres": restarts_database(server),
            }
            seen = flow.run(ways, kills)
            check(seen, gateways)
            print(told(seen))


@pytest.mark.timeout(600)
def test_a_gateway_is_killed_at_random(tmp_path: Path) -> None:
    on_sqlite(tmp_path, 300, kills=4)


@pytest.mark.timeout(600)
def test_two_gateways_and_their_postgres_are_killed_at_random(tmp_path: Path) -> None:
    on_postgres(tmp_path, 120, kills=3)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_ten_thousand_tasks_through_a_gateway_that_is_killed(tmp_path: Path) -> None:
    on_sqlite(tmp_path, 10_000, kills=40)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_thousands_of_tasks_through_two_gateways_and_postgres(tmp_path: Path) -> None:
    on_postgres(tmp_path, 3_000, kills=30)
