"""The chain read by a process of its own, killed and started again when it does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Final

from sn17_protocol import ChainSnapshot

from sn17_miner.chain.source import MAX_SNAPSHOT_BYTES, ChainError, parse_snapshot

_GRACE: Final = 10.0
"""Seconds beyond the reader's own deadline before it is killed: import and clean-up."""


class SdkSource:
    """``command`` replaces the reader in tests."""

    def __init__(
        self,
        endpoint: str,
        netuid: int,
        *,
        deadline: float,
        grace: float = _GRACE,
        command: Sequence[str] | None = None,
    ) -> None:
        module = [sys.executable, "-m", "sn17_miner.chain.reader", "--endpoint", endpoint]
        self._command = list(command or [*module, "--netuid", str(netuid), "--deadline", str(deadline)])
        self._netuid = netuid
        self._deadline = deadline + grace
        self._process: asyncio.subprocess.Process | None = None
        self.restarts = 0

    async def read(self) -> ChainSnapshot:
        """See ChainSource."""
        try:
            async with asyncio.timeout(self._deadline):
                line = await self._ask()
        except TimeoutError as error:
            await self.close()
            raise ChainError(f"the chain reader was silent for {self._deadline:g} s and was ended") from error
        except (OSError, ValueError) as error:
            await self.close()
            raise ChainError(f"the chain reader failed: {type(error).__name__}") from error
        except asyncio.CancelledError:
            await self.close()
            raise
        try:
            answer = json.loads(line)
            if "error" in answer:
                raise ChainError(str(answer["error"])[:400])
            return parse_snapshot(json.dumps(answer["snapshot"]).encode(), self._netuid)
        except (ValueError, KeyError, TypeError) as error:
            await self.close()
            raise ChainError("the chain reader said something unreadable and was ended") from error

    async def _ask(self) -> bytes:
        process = self._process
        if process is None or process.returncode is not None:
            self.restarts += process is not None
            # bittensor writes to the home folder on import unless told that it may not.
            environment = {**os.environ, "READ_ONLY": "1"}
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=MAX_SNAPSHOT_BYTES,
                env=environment,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"read\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            await process.wait()
            raise ChainError(f"the chain reader ended with code {process.returncode}")
        return line

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
