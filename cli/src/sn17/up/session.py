"""One run of the local stack: start, watch, settle the counts, stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import httpx2
from sn17.up.collect import WorkerTally, assigned_tasks, observe_worker, read_tasks
from sn17.up.interrupts import Interrupts
from sn17.up.report import Report, build
from sn17.up.stack import Stack, StackOptions
from sn17_contract.files import WrongShapeError
from sn17_contract.local_network import NetworkLedger
from sn17_contract.text import neutralise
from sn17_contract.worker import BY_GUARD
from sn17_http import own_async_client

REFRESH_SECONDS = 0.5
EVENTS_SHOWN = 8


class EventLog:
    """The latest events with the seconds since the start, also handed on line by line."""

    def __init__(
        self, on_line: Callable[[str], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.lines: deque[str] = deque(maxlen=EVENTS_SHOWN)
        self._on_line = on_line
        self._monotonic = monotonic
        self._started = monotonic()

    def say(self, name: str, text: str) -> None:
        """Note that something happened to the process ``name``."""
        line = f"{self._monotonic() - self._started:6.1f} s  {name}: {neutralise(text)}"
        self.lines.append(line)
        self._on_line(line)


@dataclass(slots=True)
class Session:
    """A running stack and what is known of it so far."""

    options: StackOptions
    stack: Stack
    client: httpx2.AsyncClient
    events: EventLog
    tallies: list[WorkerTally]
    hotkeys: list[str]
    waiting: str = ""
    """Why the miner asked for no task when it was last asked."""

    async def observe(self) -> Report:
        """Ask every worker once and read the journal."""
        before = [tally.last_recycle for tally in self.tallies]
        await asyncio.gather(
            *(
                observe_worker(
                    self.client,
                    tally,
                    url=f"http://127.0.0.1:{worker.ready.port}",
                    ops_url=f"http://127.0.0.1:{worker.ready.ops_port}",
                )
                for tally, worker in zip(self.tallies, self.stack.workers, strict=True)
            )
        )
        for tally, known in zip(self.tallies, before, strict=True):
            # What the operator asked for it tells itself.
            if (last := tally.last_recycle) not in (None, known) and last.reason.startswith(BY_GUARD):
                self.events.say(tally.name, f"{last.how} {last.outcome}, {last.reason}")
        waiting = await self._why_no_tasks()
        if waiting and waiting != self.waiting:
            self.events.say("miner", f"asks for no task: {waiting}")
        self.waiting = waiting
        return replace(self._report({}), waiting=waiting)

    async def _why_no_tasks(self) -> str:
        """What the miner's readiness says of it; empty where it asks for tasks, or has ended."""
        miner = self.stack.miner
        if miner is None:
            return ""
        try:
            answer = await self.client.get(f"http://127.0.0.1:{miner.ready.ops_port}/ready")
            return str(answer.json()["reasons"].get("pulling", ""))
        except (httpx2.HTTPError, ValueError, KeyError, TypeError, AttributeError):
            return ""

    async def settle(self) -> tuple[Report, bool]:
        """The final report, and whether it was held against what the validators say they handed out."""
        url = self.stack.devnet_info().ledger_url
        try:
            answer = (await self.client.get(url)).raise_for_status()
            ledger = NetworkLedger.parse(answer.content, url)
        except (httpx2.HTTPError, WrongShapeError) as error:
            self.events.say("validators", f"their ledger could not be read: {error}")
            return self._report({}), False
        return self._report(assigned_tasks(ledger)), True

    def _report(self, assigned: dict[str, str]) -> Report:
        return build(
            read_tasks(self.options.state_dir / "miner" / "journal.sqlite"),
            [
                tally.record(worker.restarts)
                for tally, worker in zip(self.tallies, self.stack.workers, strict=True)
            ],
            validators=self.hotkeys,
            assigned=assigned,
        )


@contextlib.asynccontextmanager
async def running(options: StackOptions, events: EventLog, interrupts: Interrupts) -> AsyncIterator[Session]:
    """Start the stack, hand it out, stop it whatever happens.

    Raises:
        ProcessFailedError: a process did not start.
        InterruptedRunError: a signal came before all had.
    """
    async with own_async_client(timeout=5.0) as client:
        stack = Stack(options, events.say, client)
        try:
            await interrupts.unless_stopped(stack.start())
            hotkeys = [each.hotkey for each in stack.devnet_info().validators]
            tallies = [WorkerTally(worker.spec.name) for worker in stack.workers]
            yield Session(options, stack, client, events, tallies, hotkeys)
        finally:
            if interrupts.now.is_set():
                stack.kill()
            ending = asyncio.ensure_future(stack.stop())
            hurry = asyncio.ensure_future(interrupts.now.wait())
            await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
            if hurry.done():
                stack.kill()
            hurry.cancel()
            await ending
