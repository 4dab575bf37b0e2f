"""Several replicas: Postgres through asyncpg (Apache-2.0); rows are claimed with SKIP LOCKED."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import count
from typing import Any, Final, TypeVar

import asyncpg

from sn17_gateway.storage.database import SCHEMA, Row, StorageError, Work, check_version

T = TypeVar("T")

#: Any number that is this program's alone; taken for a transaction, it lets replicas wait for each other.
_ADVISORY_LOCK: Final = 1_704_190_317
#: A connection that ends in the middle of an operation can leave asyncpg in a state it calls internal.
_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


@functools.cache
def numbered(sql: str) -> str:
    """``?`` as Postgres counts them: ``$1``, ``$2``; statements hold no ``?`` in texts."""
    numbers = count(1)
    return "".join(f"${next(numbers)}" if letter == "?" else letter for letter in sql)


class PostgresTransaction:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch(self, sql: str, *values: Any) -> Sequence[Row]:
        rows: Sequence[Row] = await self._connection.fetch(numbered(sql), *values)
        return rows

    async def claim(self, sql: str, *values: Any) -> Sequence[Row]:
        return await self.fetch(sql + " FOR UPDATE SKIP LOCKED", *values)

    async def lock(self, sql: str, *values: Any) -> Sequence[Row]:
        return await self.fetch(sql + " FOR UPDATE", *values)

    async def serialise(self) -> None:
        await self.fetch("SELECT pg_advisory_xact_lock(?)", _ADVISORY_LOCK)


class PostgresDatabase:
    """``url`` may hold a password: it appears in no message."""

    def __init__(self, url: str, connections: int, timeout_seconds: float) -> None:
        self._url = url
        self._connections = connections
        self._timeout = timeout_seconds
        self._pool: Any = None

    async def open(self) -> None:
        try:
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=self._connections,
                timeout=self._timeout,
                command_timeout=self._timeout,
            )
        except _ERRORS as error:
            raise StorageError(_named(error)) from error
        except ValueError:
            raise StorageError("Postgres: the address is not a postgresql:// URL") from None
        await self.run(_create)

    async def run(self, work: Work[T]) -> T:
        try:
            async with self._pool.acquire(timeout=self._timeout) as connection, connection.transaction():
                return await work(PostgresTransaction(connection))
        except _ERRORS as error:
            raise StorageError(_named(error)) from error

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()


async def _create(tx: Any) -> None:
    await tx.serialise()
    for statement in SCHEMA:
        await tx.fetch(statement.format(serial="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"))
    await check_version(tx)


def _named(error: BaseException) -> str:
    """Kind and first line: what follows may quote values."""
    return f"Postgres: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
