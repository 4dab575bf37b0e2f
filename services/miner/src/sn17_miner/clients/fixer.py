"""Calls to the fixer: a PLY from the spool in, the subnet's SPZ and a report out."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Final
from urllib.parse import urlencode

import aiohttp
from sn17_contract.fixer import FixReport, ReportError
from sn17_contract.http import HEADER_REPORT, MEDIA_PLY, MEDIA_SPZ

from sn17_miner.clients.web import read_bounded, short, within, write_part

_SMALL: Final = 1 << 20


class FixerBusyError(Exception):
    """Unreachable or refusing for now: ask again."""


class SplatRefusedError(Exception):
    """It cannot read this splat: the generation was bad."""


class FixerClient:
    """Talks to the fixer at ``url``; ``max_bytes`` bounds its answer."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, *, policy: str | None, timeout: float, max_bytes: int
    ) -> None:
        self._session = session
        self._target = f"{url}/fix" + (f"?{urlencode({'policy': policy})}" if policy else "")
        self._timeout = timeout
        self._max_bytes = max_bytes

    async def fix(self, ply: Path, file: IO[bytes]) -> FixReport:
        """Send the splat, write the SPZ to ``file``.

        Raises:
            FixerBusyError: no usable answer; one without a complete report is none, for nothing is known
                about its splat.
            SplatRefusedError: the fixer cannot read this splat.
            DiskError: our own disk does not take the answer.
        """
        try:
            with ply.open("rb") as source:
                async with self._session.post(
                    self._target,
                    data=source,
                    headers={"Content-Type": MEDIA_PLY, "Accept": MEDIA_SPZ},
                    timeout=within(self._timeout),
                    allow_redirects=False,
                ) as response:
                    if response.status != 200:
                        body = (await read_bounded(response, _SMALL))[:300].decode(errors="replace")
                        if response.status in (400, 413, 415, 422):
                            raise SplatRefusedError(f"{response.status}: {body}")
                        raise FixerBusyError(f"{response.status}: {body}")
                    if not response.headers.get("Content-Type", "").startswith(MEDIA_SPZ):
                        raise FixerBusyError("the answer is no SPZ: is this the fixer's address?")
                    report = FixReport.from_header(response.headers.get(HEADER_REPORT))
                    await self._stream(response, file)
                    return report
        except ReportError as error:
            raise FixerBusyError(str(error)) from error
        except TimeoutError as error:
            raise FixerBusyError(f"no answer within {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise FixerBusyError(short(error)) from error

    async def _stream(self, response: aiohttp.ClientResponse, file: IO[bytes]) -> None:
        size = 0
        async for part in response.content.iter_chunked(1 << 18):
            size += len(part)
            if size > self._max_bytes:
                raise SplatRefusedError(f"the SPZ is larger than {self._max_bytes} bytes")
            write_part(file, part)
        if size == 0:
            raise FixerBusyError("empty answer")
