"""Client keys: made here, shown once, kept as a keyed hash."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sn17_contract.gateway import KeyKind

from sn17_gateway.core.limits import Allowance
from sn17_gateway.storage.database import Database, Row, Transaction
from sn17_gateway.storage.rows import tags_of, tags_text

KEY_FORMAT: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SECRET_BYTES: Final = 32
_TAG: Final = re.compile(r"[a-z0-9_-]{1,32}")
_COLUMNS: Final = "id, kind, name, concurrent, daily, tags, created_at, revoked_at"


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key; the key itself is not. ``id`` is the owner of its tasks."""

    id: str
    kind: KeyKind
    name: str
    concurrent: int
    daily: int
    tags: frozenset[str]
    created_at: float
    revoked_at: float | None = None

    @property
    def allowance(self) -> Allowance:
        return Allowance(self.kind, self.concurrent, self.daily)


class Keys:
    """Keys in the database. ``secret`` keys the hash: without it the stored hashes can't be tried out."""

    def __init__(self, database: Database, secret: bytes) -> None:
        self._db = database
        self._secret = secret

    async def create(
        self, *, name: str, kind: KeyKind, concurrent: int, daily: int, tags: frozenset[str], now: float
    ) -> tuple[Key, str]:
        """A new key and its text, which nobody can be shown again."""
        text = str(uuid.uuid4())
        key = Key(secrets.token_hex(6), kind, name, concurrent, daily, tags, now)

        async def work(tx: Transaction) -> None:
            await tx.fetch(
                f"INSERT INTO keys ({_COLUMNS}, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                key.id, kind.value, name, concurrent, daily, tags_text(tags), now, None, self._hash(text),
            )  # fmt: skip

        await self._db.run(work)
        return key, text

    async def find(self, text: str) -> Key | None:
        """The key of this very text, unless revoked."""

        async def work(tx: Transaction) -> Key | None:
            rows = await tx.fetch(
                f"SELECT {_COLUMNS} FROM keys WHERE hash=? AND revoked_at IS NULL", self._hash(text)
            )
            return _key(rows[0]) if rows else None

        return await self._db.run(work)

    async def list(self) -> list[Key]:
        """All keys, revoked ones included, oldest first."""

        async def work(tx: Transaction) -> list[Key]:
            return [
                _key(row) for row in await tx.fetch(f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, id")
            ]

        return await self._db.run(work)

    async def revoke(self, key_id: str, now: float) -> Key | None:
        """The key as it is then; None for an unknown id. A second time changes nothing."""

        async def work(tx: Transaction) -> Key | None:
            await tx.fetch("UPDATE keys SET revoked_at=? WHERE id=? AND revoked_at IS NULL", now, key_id)
            rows = await tx.fetch(f"SELECT {_COLUMNS} FROM keys WHERE id=?", key_id)
            return _key(rows[0]) if rows else None

        return await self._db.run(work)

    def _hash(self, text: str) -> str:
        return hashlib.blake2b(text.encode(), key=self._secret, digest_size=32).hexdigest()


def read_secret(file: Path | None, folder: Path) -> bytes:
    """The secret of ``file``, or one made in ``folder`` at the first start and kept there.

    Raises:
        OSError: the file can't be read or written.
        ValueError: the file holds less than 16 bytes.
    """
    if file is None:
        file = folder / "key.secret"
        _create_once(file)
    secret = file.read_bytes().strip()
    if len(secret) < 16:
        raise ValueError(f"{file} holds {len(secret)} bytes: a secret has at least 16")
    return hashlib.blake2b(secret, digest_size=_SECRET_BYTES).digest()


def _create_once(file: Path) -> None:
    """Another replica may do the same at this moment: the first one's secret stays."""
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    mine = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    handle = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, secrets.token_hex(_SECRET_BYTES).encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        os.link(mine, file)
    except FileExistsError:
        return
    finally:
        mine.unlink()


def _key(row: Row) -> Key:
    return Key(row[0], KeyKind(row[1]), row[2], row[3], row[4], tags_of(row[5]), row[6], row[7])


class BadTag(ValueError):  # noqa: N818
    """A tag has other letters or another length than allowed."""


def clean_tags(tags: Iterable[str]) -> frozenset[str]:
    """Trimmed and in lower case. Raises BadTag."""
    cleaned = frozenset(tag.strip().lower() for tag in tags)
    if not all(_TAG.fullmatch(tag) for tag in cleaned):
        raise BadTag("a tag has 1 to 32 letters a-z, digits, _ or -")
    return cleaned
