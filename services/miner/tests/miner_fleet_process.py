"""A worker or a fixer as a process of its own, to be killed: what it makes follows from what it was given.

``python miner_fleet_process.py worker|fixer PORT READY``; the file READY appears when it listens.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import uuid
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "gateway/tests"))
sys.path.insert(0, str(Path(__file__).parent))

from aiohttp import web
from gateway_client import splat_bytes
from miner_fakes import PLY, FakeFixer, FakeWorker, Server

_PR_SET_PDEATHSIG = 1
DIGITS = 20


class FlowWorker(FakeWorker):
    """The splat names prompt and seed, so that a repeated generation gives the same bytes."""

    async def generate(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        name = zlib.crc32(f"{form['prompt']}/{form['seed']}".encode())
        self.ply = PLY + str(name).zfill(DIGITS).encode()
        return await super().generate(request)


class FlowFixer(FakeFixer):
    """A small valid SPZ for each splat."""

    async def fix(self, request: web.Request) -> web.Response:
        # The last digits of the form's one file: the boundary behind them has none in front of it.
        body = await request.read()
        found = body.rindex(b"x" * 8) + 8
        self.spz = splat_bytes(int(body[found : found + DIGITS]), n=8)
        return await super().fix(request)


async def serve(server: Server, ready: Path) -> None:
    await server.start()
    await asyncio.to_thread(ready.touch)
    await asyncio.Event().wait()


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    kind, port, ready = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    server: Server = FlowFixer() if kind == "fixer" else FlowWorker(name=f"w{port}", boot_id=uuid.uuid4().hex)
    server.port = port
    if os.getppid() != 1:
        asyncio.run(serve(server, ready))


if __name__ == "__main__":
    main()
