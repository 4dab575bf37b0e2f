"""What the page reads from the miner's ops port, with the admin token; the hotkey stays where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError
from sn17_contract.ready import ReadyFile
from sn17_contract.tasks import TaskList, ValidatorList
from sn17_http import own_async_client

_SECONDS: Final = 5.0
_MAX_ASSET: Final = 256 * 1024 * 1024
_MAX_JSON: Final = 32 * 1024 * 1024
S = TypeVar("S", bound=BaseModel)


class MinerUnavailableError(Exception):
    """The miner gave no usable answer; the text says why in one sentence."""


class AssetMissingError(Exception):
    """The miner has no asset of this task; the text says why."""


class MinerReader:
    """Reads tasks, workers and assets. ``where`` is the address of the miner's ops port, or the ready file
    of a miner on this machine, which may start later or again on another port. Call :meth:`close` at the end.
    """

    def __init__(
        self,
        where: str | Path,
        token_file: Path | None,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._client = own_async_client(timeout=_SECONDS, transport=transport)
        self._where = where
        self._token_file = token_file

    async def close(self) -> None:
        await self._client.aclose()

    async def tasks(self, limit: int) -> TaskList:
        """The newest tasks of every door. Raises MinerUnavailableError."""
        return await self._read("/v1/tasks", TaskList, {"limit": str(limit)})

    async def places(self) -> ValidatorList:
        """Validators, gateways and workers as the miner sees them. Raises MinerUnavailableError."""
        return await self._read("/v1/validators", ValidatorList, {})

    async def asset(self, n: int) -> bytes:
        """The submitted asset of task ``n``, as SPZ.

        Raises:
            AssetMissingError: none is kept.
            MinerUnavailableError: the miner gave no usable answer.
        """
        status, body = await self._get(f"/v1/tasks/{n}/asset", {}, _MAX_ASSET)
        if status == httpx2.codes.NOT_FOUND:
            raise AssetMissingError(f"no asset of task {n} is kept")
        if status != httpx2.codes.OK:
            raise MinerUnavailableError(f"the miner answers {status}")
        return body

    async def _read(self, path: str, shape: type[S], query: dict[str, str]) -> S:
        status, body = await self._get(path, query, _MAX_JSON)
        if status != httpx2.codes.OK:
            hint = ": its admin token is not ours" if status in (401, 403) else ""
            raise MinerUnavailableError(f"the miner answers {status}{hint}")
        try:
            return shape.model_validate_json(body)
        except ValidationError as error:
            raise MinerUnavailableError("the miner's answer is not understood (another version?)") from error

    async def _get(self, path: str, query: dict[str, str], limit: int) -> tuple[int, bytes]:
        try:
            headers = self._authorization()
            url = f"{self._address()}{path}"
            async with self._client.stream("GET", url, params=query, headers=headers) as answer:
                parts, size = [], 0
                async for part in answer.aiter_bytes():
                    size += len(part)
                    if size > limit:
                        raise MinerUnavailableError(f"the miner's answer is larger than {limit} bytes")
                    parts.append(part)
                return answer.status_code, b"".join(parts)
        except httpx2.HTTPError as error:
            raise MinerUnavailableError("the miner does not answer") from error

    def _authorization(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            return {"authorization": f"Bearer {self._token_file.read_text().strip()}"}
        except OSError as error:
            raise MinerUnavailableError(f"the miner's token cannot be read: {error.strerror}") from error

    def _address(self) -> str:
        if isinstance(self._where, str):
            return self._where.rstrip("/")
        try:
            ready = ReadyFile.model_validate_json(self._where.read_bytes())
        except (OSError, ValidationError) as error:
            raise MinerUnavailableError("the miner has not started yet") from error
        return f"http://127.0.0.1:{ready.ops_port}"
