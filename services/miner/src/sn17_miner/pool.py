"""The fleet kept up to date: discovery, polls, and tasks that wait for a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from sn17_miner.clients.worker import WorkerClient, WorkerLostError
from sn17_miner.core.fleet import Fleet, Worker

_log = logging.getLogger("sn17.miner.workers")


class Discovery(Protocol):
    """Where workers are found. Raises OSError when it can not tell."""

    async def __call__(self) -> list[str]:
        """Base URLs."""


def fixed(urls: tuple[str, ...]) -> Discovery:
    """A list that never changes."""

    async def find() -> list[str]:
        return list(urls)

    return find


def by_dns(name: str, port: int) -> Discovery:
    """Every address of a name: a headless Service that publishes workers ready or not."""

    async def find() -> list[str]:
        found = await asyncio.get_running_loop().getaddrinfo(name, port, type=1)
        hosts = dict.fromkeys(str(address[4][0]) for address in found)
        return [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host in hosts]

    return find


@dataclass(slots=True)
class _Waiter:
    holder: str
    kind: str
    future: asyncio.Future[str]


@dataclass(slots=True)
class Pool:
    """``changed`` is called after every change that may have freed a worker."""

    fleet: Fleet
    client: WorkerClient
    discover: Discovery
    monotonic: Callable[[], float]
    poll_seconds: float
    discover_seconds: float
    changed: Callable[[], None] = lambda: None
    _waiters: list[_Waiter] = field(default_factory=list)
    _kicks: dict[str, asyncio.Event] = field(default_factory=dict)
    discovery_error: str | None = None

    async def run(self, supervise: Callable[[str, Callable[[], Coroutine[Any, Any, None]]], None]) -> None:
        """Look for workers for ever; every one found is polled by a task that ``supervise`` keeps going."""
        while True:
            try:
                urls = await self.discover()
                self.discovery_error = None
                # A name that resolves to nothing is a hiccup of DNS more often than an empty fleet:
                # workers that are really gone stop answering.
                new, gone = self.fleet.discovered(urls, forget=bool(urls))
                for url in new:
                    _log.info("worker found", extra={"worker": url})
                    supervise(f"poll {url}", partial(self._poll_forever, url))
                for url in gone:
                    _log.info("worker gone", extra={"worker": url})
            except OSError as error:
                if self.discovery_error is None:
                    _log.warning("workers can not be looked up: %s", error)
                self.discovery_error = str(error)
            await asyncio.sleep(self.discover_seconds)

    async def _poll_forever(self, url: str) -> None:
        kick = self._kicks[url] = asyncio.Event()
        worker = self.fleet.workers.get(url)
        try:
            while self.fleet.workers.get(url) is worker:
                kick.clear()
                await self.poll(url)
                try:
                    async with asyncio.timeout(self.poll_seconds):
                        await kick.wait()
                except TimeoutError:
                    pass
        finally:
            if self._kicks.get(url) is kick:
                del self._kicks[url]

    async def poll(self, url: str) -> None:
        """Ask one worker how it is."""
        worker = self.fleet.workers.get(url)
        before = worker.last_error if worker else None
        try:
            status = await self.client.status(url)
        except WorkerLostError as error:
            if before is None:
                _log.warning("worker does not answer: %s", error, extra={"worker": url})
            self.fleet.unreachable(url, str(error), self.monotonic())
        else:
            self.fleet.observe(url, status, self.monotonic())
        self.dispatch()

    def dispatch(self) -> None:
        """Free workers go to waiting tasks first, in the order they asked."""
        now = self.monotonic()
        for waiter in list(self._waiters):
            free = self.fleet.free(now, kind=waiter.kind)
            if free and not waiter.future.done():
                self.fleet.hold(free[0].url, waiter.holder, now)
                waiter.future.set_result(free[0].url)
                self._waiters.remove(waiter)
        self.changed()

    async def acquire(self, holder: str, kind: str, seconds: float) -> Worker | None:
        """A free worker that does ``kind``, or None after ``seconds``."""
        waiter = _Waiter(holder, kind, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self.dispatch()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return self.fleet.workers[await waiter.future]
        except BaseException as error:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif waiter.future.done() and not waiter.future.cancelled():
                self.release(waiter.future.result())
            if isinstance(error, TimeoutError):
                return None
            raise

    @property
    def waiting(self) -> int:
        """Tasks that wait for a worker."""
        return len(self._waiters)

    def release(self, url: str) -> None:
        """Give a worker back and look at it at once."""
        self.fleet.release(url, self.monotonic())
        kick = self._kicks.get(url)
        if kick is not None:
            kick.set()
        self.dispatch()
