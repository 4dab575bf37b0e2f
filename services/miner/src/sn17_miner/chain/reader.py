"""The process that reads the chain: one request per line on stdin, one answer per line on stdout.

``python -m sn17_miner.chain.reader --endpoint ws://... --netuid 17 --deadline 60``

It lives apart from the miner because the library's calls have no deadline of their own: a websocket that
accepts and stays silent hangs for good. Every call here has one, after which the client is built anew; and
the miner ends the whole process when even that does not help.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Protocol

from sn17_protocol import ChainSnapshot, Neuron
from sn17_service import die_with_parent

_RAO: Final = 1e9
_CLOSE_SECONDS: Final = 5.0
_IMMUNITY_PERIOD: Final = 4096


class ChainClient(Protocol):
    """What is used of ``bittensor.Client``."""

    async def connect(self) -> Any:
        """Open the websocket."""

    async def close(self) -> Any:
        """Close it."""

    async def metagraph(self, netuid: int) -> Any:
        """A typed metagraph, or None for a subnet that does not exist."""


class SdkClient:
    """``bittensor.Client`` (11.x), imported only where it is used."""

    def __init__(self, endpoint: str) -> None:
        import bittensor

        # One endpoint, the configured one: silent fallbacks would hide that it is down.
        self._client = bittensor.Client(endpoint, fallback_endpoints=[], archive_endpoints=[])

    async def connect(self) -> None:
        """See ChainClient."""
        await self._client.connect()

    async def close(self) -> None:
        """See ChainClient."""
        await self._client.close()

    async def metagraph(self, netuid: int) -> Any:
        """See ChainClient."""
        return await self._client.subnets.metagraph(netuid, commitments=False)


def snapshot_of(graph: Any, *, taken_at: float) -> ChainSnapshot:
    """The miner's snapshot of the library's metagraph. Stakes and emissions come in units of 1e-9."""
    raw: dict[str, Any] = getattr(graph, "raw", None) or {}
    immunity = int(raw.get("immunity_period") or _IMMUNITY_PERIOD)
    return ChainSnapshot(
        netuid=graph.netuid,
        block=graph.block,
        taken_at=taken_at,
        burn_price=_number(raw.get("burn")) / _RAO,
        neurons=tuple(_neuron(neuron, graph.block, immunity) for neuron in graph.neurons),
    )


def _neuron(neuron: Any, block: int, immunity: int) -> Neuron:
    host, _, port = (neuron.axon or "").rpartition(":")
    host = host.strip("[]")
    serving = bool(host) and host not in ("0.0.0.0", "::") and port.isdecimal() and 0 < int(port) < 65536
    return Neuron(
        uid=neuron.uid,
        hotkey=neuron.hotkey,
        ip=host if serving else "0.0.0.0",
        port=int(port) if serving else 0,
        serving=serving,
        stake=_number(neuron.total_stake) / _RAO,
        emission=_number(neuron.emission) / _RAO,
        incentive=float(neuron.incentive),
        registered_at_block=neuron.block_at_registration,
        immune_blocks_left=max(0, neuron.block_at_registration + immunity - block),
    )


def _number(value: Any) -> float:
    """A balance or a plain number, in units of 1e-9."""
    return float(getattr(value, "rao", value) or 0)


class Reader:
    """Keeps one client, replaces it when a call fails or takes longer than ``deadline`` seconds."""

    def __init__(
        self,
        new_client: Callable[[], ChainClient],
        netuid: int,
        *,
        deadline: float,
        clock: Callable[[], float],
    ) -> None:
        self._new_client = new_client
        self._netuid = netuid
        self._deadline = deadline
        self._clock = clock
        self._client: ChainClient | None = None

    async def read(self) -> ChainSnapshot:
        """A fresh snapshot; any exception means that there is none this time."""
        try:
            async with asyncio.timeout(self._deadline):
                if self._client is None:
                    client = self._new_client()
                    self._client = client
                    await client.connect()
                graph = await self._client.metagraph(self._netuid)
        except BaseException:
            await self._rebuild()
            raise
        if graph is None:
            raise LookupError(f"subnet {self._netuid} does not exist on this chain")
        return snapshot_of(graph, taken_at=self._clock())

    async def _rebuild(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await client.close()


async def serve(
    requests: AsyncIterator[bytes],
    answer: Callable[[bytes], None],
    read: Callable[[], Awaitable[ChainSnapshot]],
) -> None:
    """Answer every request line until there are no more."""
    async for _ in requests:
        try:
            snapshot = await read()
        except Exception as error:
            text = f"{type(error).__name__}: {str(error)[:300]}" if str(error) else type(error).__name__
            answer(json.dumps({"error": text}).encode() + b"\n")
        else:
            answer(b'{"snapshot":' + snapshot.model_dump_json().encode() + b"}\n")


async def _stdin() -> AsyncIterator[bytes]:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async for line in reader:
        yield line


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(prog="sn17_miner.chain.reader")
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--netuid", type=int, required=True)
    parser.add_argument("--deadline", type=float, default=60.0)
    options = parser.parse_args()
    die_with_parent()
    # The answers have stdout for themselves: whatever the library prints goes to stderr.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)

    def answer(line: bytes) -> None:
        answers.write(line)

    reader = Reader(
        lambda: SdkClient(options.endpoint), options.netuid, deadline=options.deadline, clock=time.time
    )
    asyncio.run(serve(_stdin(), answer, reader.read))


if __name__ == "__main__":
    main()
