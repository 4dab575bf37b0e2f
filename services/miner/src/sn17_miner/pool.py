"""The fleet kept up to date: discovery, polls, and tasks that wait for a worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from sn17_miner.clients.worker import WorkerClient, WorkerLostError
from sn17_miner.core.fleet import Fleet, Worker

_log = logging.getLogger("sn17.miner.workers")


class Discovery(Protocol):
    """Where workers are found. Raises OSError when it cannot tell."""

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


@dataclass(slots=True, eq=False)
class _Waiter:
    holder: str
    kind: str
    url: str | None
    future: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


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
                new, gone = self.fleet.discovered(urls, self.monotonic(), forget=bool(urls))
                for url in new:
                    _log.info("worker found", extra={"worker": url})
                    supervise(f"poll {url}", partial(self._poll_forever, url))
                for url in gone:
                    _log.info("worker gone", extra={"worker": url})
            except OSError as error:
                if self.discovery_error is None:
                    _log.warning("workers cannot be looked up: %s", error)
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
            url = self._match(waiter, now)
            if url is not None and not waiter.future.done():
                self.fleet.hold(url, waiter.holder, now)
                waiter.future.set_result(url)
                self._waiters.remove(waiter)
        self.changed()

    def _match(self, waiter: _Waiter, now: float) -> str | None:
        if waiter.url is None:
            free = self.fleet.free(now, kind=waiter.kind)
            return free[0].url if free else None
        # Its own generation makes this one look busy.
        worker = self.fleet.workers.get(waiter.url)
        answers = worker is not None and worker.last_error is None and worker.held_by is None
        return waiter.url if answers else None

    @contextlib.contextmanager
    def held(self, worker: Worker | None, holder: str) -> Iterator[None]:
        """Give a worker back in the end, unless its holder did so before."""
        try:
            yield
        finally:
            if worker is not None and worker.held_by == holder:
                self.release(worker.url)

    @contextlib.asynccontextmanager
    async def lease(
        self, holder: str, kind: str, seconds: float, *, held: Worker | None = None, url: str | None = None
    ) -> AsyncIterator[Worker | None]:
        """A worker for the time of the block: the one that is ``held`` already if it does ``kind``, the one
        at ``url`` as soon as it answers, or the first free one that does ``kind``. None after ``seconds``.
        """
        worker: Worker | None = None
        if held is not None and held.held_by == holder:
            if held.status is not None and kind in held.status.models:
                worker = held
            else:
                self.release(held.url)
        if worker is None:
            worker = await self._acquire(_Waiter(holder, kind, url), seconds)
        with self.held(worker, holder):
            yield worker

    async def _acquire(self, waiter: _Waiter, seconds: float) -> Worker | None:
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

    def holders(self) -> tuple[set[str], set[str]]:
        """Who holds a worker, and who waits for one."""
        held = {worker.held_by for worker in self.fleet.workers.values() if worker.held_by is not None}
        return held, {waiter.holder for waiter in self._waiters}

    def release(self, url: str) -> None:
        """Give a worker back and look at it at once."""
        self.fleet.release(url, self.monotonic())
        kick = self._kicks.get(url)
        if kick is not None:
            kick.set()
        self.dispatch()
