"""HTTP the way the miner needs it: a connection per call, no redirects followed, answers bounded."""

from __future__ import annotations

from typing import IO

import aiohttp

CONNECT_SECONDS = 10.0


def new_session() -> aiohttp.ClientSession:
    """A session without keep-alive: servers close idle connections after seconds, and the next call on one
    would fail after its body was sent. Proxies of the environment are not used.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=0, ttl_dns_cache=10),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def within(seconds: float) -> aiohttp.ClientTimeout:
    """A deadline for a whole call, with a shorter one for connecting."""
    return aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_SECONDS))


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body of an answer.

    Raises:
        aiohttp.ClientPayloadError: larger than ``limit`` bytes, or cut short.
    """
    parts, size = [], 0
    async for part in response.content.iter_chunked(1 << 18):
        size += len(part)
        if size > limit:
            raise aiohttp.ClientPayloadError(f"the answer is larger than {limit} bytes")
        parts.append(part)
    return b"".join(parts)


class DiskError(Exception):
    """Our own disk does not take an answer. Whoever sent it is not to blame, and sends it again."""


def write_part(file: IO[bytes], part: bytes) -> None:
    """Write a part of an answer down. Raises DiskError."""
    try:
        file.write(part)
    except OSError as error:
        raise DiskError(f"the result cannot be written: {error.strerror}") from error


def never_sent(error: BaseException) -> bool:
    """Whether the call failed before any of it can have reached the other side."""
    return isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)


def short(error: BaseException) -> str:
    """An error for logs and the journal: its kind and the start of its text."""
    text = str(error)
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
