"""The store on SQLite and on a real Postgres: what it hands out is what the core says."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from gateway_databases import Postgres, postgres
from sn17_contract.gateway import KeyKind
from sn17_gateway.core.limits import Allowance, OverLimit
from sn17_gateway.core.model import Asset, Named, State, Task, Worker
from sn17_gateway.core.tasks import Refused, offered, status
from sn17_gateway.keys import Keys, read_secret
from sn17_gateway.storage.database import Database, StorageError
from sn17_gateway.storage.folder import Folder
from sn17_gateway.storage.postgres import PostgresDatabase
from sn17_gateway.storage.sqlite import SqliteDatabase
from sn17_gateway.storage.store import Earlier, QueueFull, Store

FREE = Allowance(KeyKind.COMPANY, 0, 0)
LEASE = 20.0


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    made: Database
    if request.param == "sqlite":
        made = SqliteDatabase(tmp_path / "gateway.sqlite")
    else:
        made = PostgresDatabase(request.getfixturevalue("server").url, 8, 20.0)
    await made.open()

    async def empty(tx: Any) -> None:
        for table in ("deliveries", "tasks", "keys"):
            await tx.fetch(f"DELETE FROM {table}")

    await made.run(empty)
    yield made
    await made.close()


DRIVER_ERRORS = sorted(
    (
        each
        for each in vars(asyncpg).values()
        if isinstance(each, type)
        and issubclass(each, Exception)
        and not issubclass(each, Warning | asyncpg.PostgresWarning)
    ),
    key=lambda each: each.__name__,
)


async def test_whatever_the_driver_raises_is_storage_trouble(server: Postgres) -> None:
    """A clean-up survives storage trouble; any other error ends the gateway."""
    database = PostgresDatabase(server.url, 2, 20.0)
    await database.open()
    assert len(DRIVER_ERRORS) > 200
    for kind in DRIVER_ERRORS:

        async def fails(_: Any, kind: type[Exception] = kind) -> None:
            raise kind("connection lost\npassword")

        with pytest.raises(StorageError, match=f"{kind.__name__}: connection lost$"):
            await database.run(fails)
    assert [dict(row) for row in await database.run(lambda tx: tx.fetch("SELECT 1 AS one"))] == [{"one": 1}]
    await database.close()


async def test_a_failed_commit_leaves_no_transaction_behind(tmp_path: Path) -> None:
    """The next unit of work runs, and nothing of the failed one is kept."""
    database = SqliteDatabase(tmp_path / "gateway.sqlite")
    await database.open()
    store = store_of(database)

    async def dangling(tx: Any) -> None:
        await tx.fetch("PRAGMA defer_foreign_keys = ON")
        await tx.fetch("INSERT INTO requests VALUES ('name', 'digest', 'no such task')")

    with pytest.raises(StorageError, match="FOREIGN KEY"):
        await database.run(dangling)
    given = task(0.0)
    assert await store.add(given, FREE) is None
    assert await store.get(given.id) == given
    await database.close()


def store_of(database: Database, queue_limit: int = 1000) -> Store:
    return Store(database, queue_limit=queue_limit, new_token=lambda: str(uuid.uuid4()))


def task(now: float, **changes: Any) -> Task:
    values: dict[str, Any] = {
        "id": str(uuid.uuid4()), "model": "404-3dgs", "prompt": "a red robot", "image": None, "seed": -5,
        "params": None, "tags": frozenset(), "owner": "k", "address": "192.0.2.1", "origin": "api",
        "slots": 1, "created_at": now, "expires_at": now + 600, **changes,
    }  # fmt: skip
    return Task(**values)


async def test_a_task_comes_back_as_it_was(database: Database) -> None:
    store = store_of(database)
    given = task(0.0, params='{"a":"\\u0000"}', tags=frozenset({"b_1", "a"}), image="0.image", prompt=None)
    assert await store.add(given, FREE) is None
    assert await store.get(given.id) == given
    assert await store.get(str(uuid.uuid4())) is None
    worker = Worker("h", "w", frozenset({"b_1"}))
    ((claimed, delivery),) = await store.claim(worker, ["404-3dgs"], 5, 1.0, LEASE)
    assert await store.get(given.id) == claimed
    asset = Asset("1.result", 12, "ab")
    done = await store.finish(given.id, worker, delivery.token, asset, 2.0)
    assert not isinstance(done, Refused)
    stored = await store.get(given.id)
    assert stored is not None
    assert stored.successes == (done,)
    assert done.asset == asset


@pytest.mark.parametrize("seed", range(4))
async def test_claims_are_what_the_core_offers(database: Database, seed: int) -> None:
    """Random tasks, workers and pauses; every pull is compared with the core's answer for all tasks."""
    rng, store, now, ids = random.Random(seed), store_of(database), 0.0, []
    tags = [frozenset[str](), frozenset({"a_b"}), frozenset({"axb"}), frozenset({"a_b", "c"})]
    for _ in range(70):
        now += rng.choice([0.1, 1.0, LEASE, 90.0])
        if rng.random() < 0.5:
            new = task(
                now, slots=rng.randint(1, 3), tags=rng.choice(tags), expires_at=now + rng.choice([50, 400])
            )
            assert await store.add(new, FREE) is None
            ids.append(new.id)
        worker = Worker(f"h{rng.randint(0, 2)}", "w", rng.choice(tags))
        before = [found for task_id in ids if (found := await store.get(task_id))]
        expected = [item.id for item in before if offered(item, worker, now)]
        count = rng.randint(1, 4)
        claimed = await store.claim(worker, ["404-3dgs"], count, now, LEASE)
        assert [item.id for item, _ in claimed] == expected[:count]
        for item, delivery in claimed:
            if rng.random() < 0.6:
                result = Asset("1.result", 1, "00") if rng.random() < 0.7 else "it broke"
                await store.finish(item.id, worker, delivery.token, result, now)
        waiting = [item for task_id in ids if (item := await store.get(task_id))]
        fresh = [item for item in waiting if offered(item, Worker("nobody", "w", item.tags), now)]
        assert (await store.snapshot(now)).waiting == len(fresh)


async def test_pulls_side_by_side_never_share_a_task(database: Database) -> None:
    store = store_of(database)
    for number in range(60):
        assert await store.add(task(float(number)), FREE) is None

    async def pull(number: int) -> list[str]:
        taken = []
        for _ in range(12):
            claimed = await store.claim(Worker(f"h{number}", "w"), ["404-3dgs"], 3, 100.0, LEASE)
            taken += [item.id for item, _ in claimed]
        return taken

    pulls = await asyncio.gather(*(pull(number) for number in range(6)))
    taken = [task_id for pulled in pulls for task_id in pulled]
    assert len(taken) == len(set(taken)) == 60


async def test_one_of_two_results_for_the_last_slot_is_kept(database: Database) -> None:
    store = store_of(database)
    given = task(0.0)
    await store.add(given, FREE)
    a, b = Worker("a", "w"), Worker("b", "w")
    ((_, first),) = await store.claim(a, ["404-3dgs"], 1, 0.0, LEASE)
    ((_, second),) = await store.claim(b, ["404-3dgs"], 1, LEASE, LEASE)
    answers = await asyncio.gather(
        store.finish(given.id, a, first.token, Asset("a.result", 1, "aa"), LEASE + 1),
        store.finish(given.id, b, second.token, Asset("b.result", 1, "bb"), LEASE + 1),
    )
    assert sum(answer is Refused.GONE for answer in answers) == 1
    stored = await store.get(given.id)
    assert stored is not None
    assert len(stored.successes) == 1


async def test_limits_hold_side_by_side(database: Database) -> None:
    store = store_of(database, queue_limit=10)
    full = await asyncio.gather(*(store.add(task(0.0), FREE) for _ in range(25)))
    assert sum(answer is None for answer in full) == 10
    assert all(answer == QueueFull(10) for answer in full if answer is not None)
    roomy = store_of(database)
    two = Allowance(KeyKind.PERSONAL, 2, 0)
    answers = await asyncio.gather(*(roomy.add(task(0.0, owner="p"), two) for _ in range(9)))
    assert sorted(map(str, answers)).count("None") == 2
    assert set(answers) == {None, OverLimit.CONCURRENT}


async def test_a_named_request_makes_one_task_side_by_side(database: Database) -> None:
    store, tasks = store_of(database), [task(1.0) for _ in range(8)]
    request = Named("k/first", "digest")
    found = await asyncio.gather(
        *(store.add(item, Allowance(KeyKind.COMPANY, 1, 1), request) for item in tasks)
    )
    (added,) = [item.id for item, refused in zip(tasks, found, strict=True) if refused is None]
    assert [refused for refused in found if refused is not None] == [Earlier(added, same=True)] * 7
    assert await store.earlier(Named("k/first", "other")) == Earlier(added, same=False)
    assert await store.earlier(Named("other/first", "digest")) is None
    await store.sweep(2000.0, 10.0, 10.0)
    await store.sweep(90_000.0, 10.0, 10.0)
    assert await store.get(added) is None
    assert await store.earlier(request) is None


async def test_days(database: Database) -> None:
    """Guests count by 24 hours and address; a company's failures are not counted."""
    store, day = store_of(database), 86_400.0
    guests = Allowance(KeyKind.GENERIC, 0, 4, 2)
    start = 1000 * day

    async def guest(now: float, address: str) -> object:
        return await store.add(task(now, owner=None, address=address, expires_at=now + 1), guests)

    assert [await guest(start, "a") for _ in range(3)] == [None, None, OverLimit.DAILY]
    assert [await guest(start, "b") for _ in range(2)] == [None, None]
    assert await guest(start, "c") is OverLimit.DAILY
    assert await guest(start + day + 1, "a") is None
    company = Allowance(KeyKind.COMPANY, 0, 2)
    worker, start = Worker("h", "w"), start + 3 * day
    for number in range(5):
        assert await store.add(task(start + number, owner="c"), company) is None
        ((item, delivery),) = await store.claim(worker, ["404-3dgs"], 1, start + number, LEASE)
        await store.finish(item.id, worker, delivery.token, "it broke", start + number)
    assert [await store.add(task(start + 9, owner="c"), company) for _ in range(3)] == [
        None,
        None,
        OverLimit.DAILY,
    ]
    assert await store.add(task(start + day, owner="c"), company) is None


async def test_the_sweep_ends_forgets_and_names_files(database: Database) -> None:
    store, worker = store_of(database), Worker("h", "w")
    with_picture = task(0.0, image="1.image", prompt=None)
    lonely = task(0.0)
    for item in (with_picture, lonely):
        await store.add(item, FREE)
    ((item, delivery),) = await store.claim(worker, ["404-3dgs"], 1, 0.0, LEASE)
    await store.finish(item.id, worker, delivery.token, Asset("2.result", 1, "00"), 5.0)
    assert await store.files() == {"1.image", "2.result"}
    swept = await store.sweep(600.0, 300.0, 86_400.0)
    assert (swept.timed_out, swept.forgotten) == (1, 0)
    assert set(swept.files) == {"1.image", "2.result"}
    assert await store.files() == frozenset()
    assert (await store.sweep(600.0, 300.0, 86_400.0)).files == ()
    for found, state in ((with_picture, State.SUCCESS), (lonely, State.FAILURE)):
        assert status(await store.get(found.id), 700.0).state is state
    assert (await store.sweep(90_000.0, 300.0, 86_400.0)).forgotten == 2
    assert status(await store.get(lonely.id), 90_000.0).state is State.NO_RESULT


async def test_keys(database: Database, tmp_path: Path) -> None:
    secret = read_secret(None, tmp_path)
    assert read_secret(None, tmp_path) == secret
    assert (tmp_path / "key.secret").stat().st_mode & 0o777 == 0o600
    keys = Keys(database, secret)
    key, text = await keys.create(
        name="mine", kind=KeyKind.COMPANY, concurrent=3, daily=9, tags=frozenset({"gpu"}), now=5.0
    )
    assert await keys.find(text) == key
    assert await keys.find(text.upper()) is None
    assert await Keys(database, b"x" * 32).find(text) is None

    async def everything(tx: Any) -> str:
        return str([tuple(row) for row in await tx.fetch("SELECT * FROM keys")])

    assert text not in await database.run(everything)
    revoked = await keys.revoke(key.id, 7.0)
    assert revoked is not None
    assert revoked.revoked_at == 7.0
    assert await keys.find(text) is None
    assert await keys.revoke(key.id, 8.0) == revoked
    assert await keys.list() == [revoked]
    assert await keys.revoke("nobody", 8.0) is None


async def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    store, given = store_of(database), task(0.0)

    async def work(tx: Any) -> None:
        await tx.fetch("DELETE FROM tasks")
        raise KeyError("half-way")

    await store.add(given, FREE)
    with pytest.raises(KeyError):
        await database.run(work)
    assert await store.get(given.id) == given

    async def wrong(tx: Any) -> None:
        await tx.fetch("SELECT nonsense FROM nowhere")

    with pytest.raises(StorageError):
        await database.run(wrong)
    assert await store.get(given.id) == given


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "gateway.sqlite")
    await database.open()

    async def newer(tx: Any) -> None:
        await tx.fetch("UPDATE meta SET value='99'")

    await database.run(newer)
    await database.close()
    with pytest.raises(StorageError, match="schema 99"):
        await SqliteDatabase(tmp_path / "gateway.sqlite").open()


async def test_postgres_restarts_under_the_store(server: Postgres) -> None:
    database = PostgresDatabase(server.url, 4, 20.0)
    await database.open()
    store, given = store_of(database), task(0.0)
    await store.add(given, FREE)
    server.kill()
    with pytest.raises(StorageError):
        await store.get(given.id)
    server.start()
    assert await store.get(given.id) == given
    await database.close()


async def test_an_unreachable_postgres_is_named_without_its_password() -> None:
    for url in ("postgresql://sn17:hunter2@127.0.0.1:1/x", "nonsense:hunter2"):
        with pytest.raises(StorageError) as refused:
            await PostgresDatabase(url, 1, 2.0).open()
        assert "hunter2" not in str(refused.value)


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "files")
    folder.create()
    upload = folder.upload("a-1.result")
    upload.write(b"half")
    with pytest.raises(FileNotFoundError):
        folder.read("a-1.result")
    asset = upload.keep()
    upload.close()
    assert folder.read("a-1.result") == b"half"
    assert (asset.size, len(asset.digest)) == (4, 64)
    abandoned = folder.upload("b-2.result")
    abandoned.write(b"x")
    abandoned.flush()
    old = folder.older_than(2e12)
    assert sorted(old) == ["a-1.result", "b-2.result.partial"]
    assert folder.remove_orphans(old, frozenset({"a-1.result"})) == 1
    assert folder.older_than(2e12) == ["a-1.result"]
    assert folder.older_than(0.0) == []
    for name in ("../etc/passwd.result", "a.txt", "A.result", ""):
        with pytest.raises(ValueError, match="not a name"):
            folder.read(name)
