"""The one interface of every source of chain snapshots, and the two simple ones."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol

import aiohttp
from pydantic import ValidationError
from sn17_protocol import ChainSnapshot

from sn17_miner.clients.web import read_bounded, short, within

MAX_SNAPSHOT_BYTES: Final = 16 * 1024 * 1024


class ChainError(Exception):
    """No snapshot this time; the message says why."""


class ChainSource(Protocol):
    """Reads one snapshot after another."""

    async def read(self) -> ChainSnapshot:
        """A fresh snapshot. Raises ChainError. Always ends within the source's own deadline."""

    async def close(self) -> None:
        """Let go of processes and connections."""


def parse_snapshot(raw: bytes, netuid: int) -> ChainSnapshot:
    """Raises ChainError for what is no snapshot, or one of another subnet."""
    if len(raw) > MAX_SNAPSHOT_BYTES:
        raise ChainError(f"the snapshot is larger than {MAX_SNAPSHOT_BYTES} bytes")
    try:
        snapshot = ChainSnapshot.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ChainError(f"no snapshot: {place or 'body'}: {first['msg']}") from error
    if snapshot.netuid != netuid:
        raise ChainError(f"the snapshot is of subnet {snapshot.netuid}, this miner works on {netuid}")
    return snapshot


class FileSource:
    """A static file, as a ConfigMap or a test writes it."""

    def __init__(self, path: Path, netuid: int) -> None:
        self._path = path
        self._netuid = netuid

    async def read(self) -> ChainSnapshot:
        """See ChainSource."""
        try:
            raw = await asyncio.to_thread(self._path.read_bytes)
        except OSError as error:
            raise ChainError(f"{self._path}: {error.strerror}") from error
        return parse_snapshot(raw, self._netuid)

    async def close(self) -> None:
        """Nothing to let go of."""


class HttpSource:
    """Another service that reads the chain, or the local network."""

    def __init__(self, session: aiohttp.ClientSession, url: str, netuid: int, *, deadline: float) -> None:
        self._session = session
        self._url = url
        self._netuid = netuid
        self._deadline = deadline

    async def read(self) -> ChainSnapshot:
        """See ChainSource."""
        try:
            async with self._session.get(
                self._url, timeout=within(self._deadline), allow_redirects=False
            ) as response:
                raw = await read_bounded(response, MAX_SNAPSHOT_BYTES)
                if response.status != 200:
                    raise ChainError(f"the chain source answered {response.status}")
        except TimeoutError as error:
            raise ChainError(f"no snapshot within {self._deadline:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ChainError(short(error)) from error
        return parse_snapshot(raw, self._netuid)

    async def close(self) -> None:
        """The session is not ours."""
