"""A worker and a fixer of this machine's own, for an acceptance run without a cluster."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from sn17.accept.stack import StackError
from sn17.up.process import ManagedProcess, ProcessFailedError, ProcessSpec

START_SECONDS = 900.0
MEMORY_LIMIT_BYTES = 12 << 30
"""As the chart's workers have it; SN17_MEMORY_LIMIT_BYTES sets another one."""


@contextmanager
def local_stack(backend: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """Base URLs of a worker and a fixer that live as long as the context.

    Settings of the worker (checkpoint, device) come from this process's environment, as `sn17-trellis serve`
    reads them.

    Raises:
        StackError: one of them does not start, or ends; the message has the end of its log.
    """
    common = {"SN17_PORT": "0", "SN17_OPS_PORT": "0", "SN17_MEMORY_SOURCE": "process"}
    # Threads of torch that wait in a loop take the processors from each other on a busy machine.
    common["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryDirectory(prefix="sn17-accept-") as name, _loop() as wait:
        folder = Path(name)
        limit = os.environ.get("SN17_MEMORY_LIMIT_BYTES", str(MEMORY_LIMIT_BYTES))
        own = {"SN17_BACKEND": backend, "SN17_SPOOL_DIR": name, "SN17_MEMORY_LIMIT_BYTES": limit}
        worker = ManagedProcess(ProcessSpec("worker", "sn17_trellis", ("serve",), common | own), folder)
        fixer = ManagedProcess(ProcessSpec("fixer", "sn17_fixer", (), common), folder)
        try:
            urls = [f"http://127.0.0.1:{wait(each.start(START_SECONDS)).port}" for each in (worker, fixer)]
            yield (urls[0],), urls[1]
        except StackError as error:
            raise StackError(f"{error}\n{_said(worker)}") from error
        except ProcessFailedError as error:
            raise StackError(str(error)) from error
        finally:
            for each in (worker, fixer):
                wait(each.stop())


def _said(worker: ManagedProcess) -> str:
    """The end of its log, without the lines of our own questions, and whether it had ended."""
    lines = [line for line in worker.tail(10_000).splitlines() if ".access: " not in line][-15:]
    if worker.restarts:
        lines.append(f"the worker ended {worker.restarts} times, last with exit code {worker.last_exit_code}")
    return "\n".join(lines)


@contextmanager
def _loop() -> Iterator[Any]:
    """What runs a coroutine to its end, on a loop that goes on between two of them."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="local-stack", daemon=True)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
