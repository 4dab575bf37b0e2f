"""What the store needs of a database, and the schema that both kinds share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")
Row = Sequence[Any]

SCHEMA_VERSION: Final = "1"
#: ``{serial}`` is how the database spells a number that counts up by itself.
SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS tasks (
      n {serial}, id TEXT NOT NULL UNIQUE, model TEXT NOT NULL, prompt TEXT, image TEXT, seed BIGINT NOT NULL,
      params TEXT, tags TEXT NOT NULL, owner TEXT, address TEXT NOT NULL, origin TEXT NOT NULL,
      slots BIGINT NOT NULL, created_at DOUBLE PRECISION NOT NULL, expires_at DOUBLE PRECISION NOT NULL,
      free_at DOUBLE PRECISION NOT NULL, ended_at DOUBLE PRECISION, cleaned BIGINT NOT NULL DEFAULT 0)""",
    "CREATE INDEX IF NOT EXISTS tasks_waiting ON tasks (model, n) WHERE ended_at IS NULL",
    "CREATE INDEX IF NOT EXISTS tasks_by_owner ON tasks (owner, created_at)",
    "CREATE INDEX IF NOT EXISTS tasks_by_end ON tasks (ended_at)",
    """CREATE TABLE IF NOT EXISTS deliveries (
      n {serial}, token TEXT NOT NULL UNIQUE, task TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
      hotkey TEXT NOT NULL, worker_id TEXT NOT NULL, given_at DOUBLE PRECISION NOT NULL,
      lease_until DOUBLE PRECISION NOT NULL, outcome TEXT NOT NULL, finished_at DOUBLE PRECISION,
      number BIGINT, reason TEXT, file TEXT, size BIGINT, digest TEXT)""",
    "CREATE INDEX IF NOT EXISTS deliveries_by_task ON deliveries (task, n)",
    """CREATE TABLE IF NOT EXISTS requests (
      name TEXT PRIMARY KEY, digest TEXT NOT NULL,
      task TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE)""",
    "CREATE INDEX IF NOT EXISTS requests_by_task ON requests (task)",
    """CREATE TABLE IF NOT EXISTS keys (
      id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, name TEXT NOT NULL,
      concurrent BIGINT NOT NULL, daily BIGINT NOT NULL, tags TEXT NOT NULL,
      created_at DOUBLE PRECISION NOT NULL, revoked_at DOUBLE PRECISION)""",
)


class StorageError(RuntimeError):
    """The database does not answer or does not take what it is given; the request can be repeated."""


class Transaction(Protocol):
    """Statements with ``?`` for values; all or none of a transaction's changes are kept."""

    async def fetch(self, sql: str, *values: Any) -> Sequence[Row]:
        """All rows of a query, or of a change with RETURNING."""
        ...

    async def claim(self, sql: str, *values: Any) -> Sequence[Row]:
        """Rows locked until the end; those that another transaction holds are left out."""
        ...

    async def lock(self, sql: str, *values: Any) -> Sequence[Row]:
        """Rows locked until the end; waits for those that another transaction holds."""
        ...

    async def serialise(self) -> None:
        """Wait until no other transaction that called this one is running."""
        ...


Work = Callable[[Transaction], Awaitable[T]]


class Database(Protocol):
    """Runs units of work, each as one transaction; a unit may await nothing but its transaction."""

    async def open(self) -> None:
        """Connect and create what is missing. Raises StorageError."""
        ...

    async def run(self, work: Work[T]) -> T:
        """Raises StorageError; nothing of ``work`` is kept then."""
        ...

    async def close(self) -> None: ...


async def check_version(tx: Transaction) -> None:
    """Write the schema's version, or refuse one that this program does not know. Raises StorageError."""
    await tx.fetch(
        "INSERT INTO meta (name, value) VALUES ('schema', ?) ON CONFLICT (name) DO NOTHING", SCHEMA_VERSION
    )
    rows = await tx.fetch("SELECT value FROM meta WHERE name='schema'")
    if rows[0][0] != SCHEMA_VERSION:
        raise StorageError(
            f"the database has schema {rows[0][0]}, this program knows {SCHEMA_VERSION}: use a newer one"
        )
