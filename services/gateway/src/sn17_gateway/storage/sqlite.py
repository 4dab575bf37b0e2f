"""The embedded database: SQLite in WAL mode, on one thread of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from sn17_gateway.storage.database import SCHEMA, Row, StorageError, Work, check_version

T = TypeVar("T")

_PAGE_CACHE_KIB: Final = 2048
_LOG_LIMIT_BYTES: Final = 8 * 1024 * 1024


class SqliteTransaction:
    """Its methods are coroutines by contract; none ever waits."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    async def fetch(self, sql: str, *values: Any) -> Sequence[Row]:
        return self._db.execute(sql, values).fetchall()

    claim = fetch
    lock = fetch

    async def serialise(self) -> None:
        """Nothing to do: transactions follow one another."""


class SqliteDatabase:
    """One file; another process may read it meanwhile (WAL). Each commit is on disk when it returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite")
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        await self._on_thread(self._open)
        await self.run(check_version)

    async def run(self, work: Work[T]) -> T:
        # Shielded: a client that leaves must not stop a transaction half-way.
        return await asyncio.shield(self._on_thread(self._run, work))

    async def close(self) -> None:
        def close() -> None:
            if self._db is not None:
                self._db.close()
                self._db = None

        await self._on_thread(close)

    async def _on_thread(self, call: Any, *values: Any) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, call, *values)
        except sqlite3.Error as error:
            raise StorageError(f"{self._path}: {error}") from error

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10.0)
        for pragma in (
            "foreign_keys=ON",
            f"cache_size=-{_PAGE_CACHE_KIB}",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"journal_size_limit={_LOG_LIMIT_BYTES}",
        ):
            db.execute(f"PRAGMA {pragma}")
        for statement in SCHEMA:
            db.execute(statement.format(serial="INTEGER PRIMARY KEY AUTOINCREMENT"))
        self._db = db

    def _run(self, work: Work[T]) -> T:
        db = self._db
        if db is None:
            raise StorageError("the database is closed")
        db.execute("BEGIN IMMEDIATE")
        try:
            result = _finished(work, SqliteTransaction(db))
            db.execute("COMMIT")
        except BaseException:
            # A full disk ends the transaction by itself.
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return result


def _finished(work: Work[T], tx: SqliteTransaction) -> T:
    """Run a coroutine that awaits nothing but ``tx``, and so never waits, to its end."""
    steps = work(tx).__await__()
    try:
        next(steps)
    except StopIteration as end:
        return cast(T, end.value)
    raise RuntimeError("a unit of work waited for something other than its transaction")
