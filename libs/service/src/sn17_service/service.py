"""One service per process: identity, probes, leases, memory, two ports, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from sn17_contract.http import Code
from sn17_contract.ready import ReadyFile

from sn17_service.memory import MemoryReader
from sn17_service.metrics import ServiceCollector, new_registry, refusals
from sn17_service.middleware import RequestLayer
from sn17_service.ops import MAX_OPS_BODY, add_ops_routes
from sn17_service.problems import PROBLEM_SCHEMA, install_problems
from sn17_service.process import die_with_parent, write_ready_file
from sn17_service.server import ThreadServer, TlsFiles, listen, make_server, port_of
from sn17_service.settings import ServiceSettings
from sn17_service.state import ServiceState

_LOOP_BEAT_SECONDS = 1.0
_LOOP_SILENCE_SECONDS = 30.0
_HARD_STOP_SECONDS = 5.0

Hook = Callable[[], Awaitable[None]]


class Service(ServiceState):
    """What every pod needs once.

    Register checks, hooks and background tasks, then ``raise SystemExit(service.main(app))``. Hooks of
    ``on_start`` run before anything listens, those of ``on_stop`` while both ports still answer (with
    ``draining``): they finish running work and are cut off after ``grace_seconds``.
    """

    def __init__(
        self,
        name: str,
        version: str,
        settings: ServiceSettings,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        memory: MemoryReader | None = None,
    ) -> None:
        super().__init__(name, version, settings, clock=clock, monotonic=monotonic, memory=memory)
        self.registry: CollectorRegistry = new_registry()
        self.refusals = refusals(self.registry)
        self.on_start: list[Hook] = []
        self.on_stop: list[Hook] = []
        self.tls: TlsFiles | None = None
        self.port: int | None = None
        self.ops_port: int | None = None
        self._background: dict[str, Hook] = {}
        self._ops_routers: list[APIRouter] = []
        self._admin_routers: list[APIRouter] = []
        self.registry.register(ServiceCollector(self))

    # --- what a service registers -----------------------------------------------------------------

    def background(self, name: str, task: Hook) -> None:
        """Run ``task`` beside the servers. If it fails the process ends with code 1; returning is fine."""
        self._background[name] = task

    def add_ops_router(self, router: APIRouter, *, admin: bool) -> None:
        """More routes on the ops port; ``admin`` asks for the token."""
        (self._admin_routers if admin else self._ops_routers).append(router)

    # --- applications -----------------------------------------------------------------------------

    def new_app(self, title: str, max_body_bytes: int, *, probes: bool = False) -> FastAPI:
        """An application with problem+json errors, request ids, limits, counts and an access log."""
        app = FastAPI(
            title=title,
            version=self.version,
            docs_url=None,
            redoc_url=None,
            responses={"default": PROBLEM_SCHEMA},
        )
        install_problems(app)
        app.add_middleware(
            RequestLayer,
            log=logging.getLogger(f"sn17.{self.name}.access"),
            access_level=logging.DEBUG if probes else logging.INFO,
            max_body_bytes=max_body_bytes,
            body_timeout=self.settings.body_timeout_seconds,
            send_timeout=self.settings.send_timeout_seconds,
            count_refusal=self.count_refusal,
            monotonic=self.monotonic,
        )
        return app

    def ops_app(self) -> FastAPI:
        """The application of the ops port."""
        app = self.new_app(f"{self.name} ops", MAX_OPS_BODY, probes=True)
        add_ops_routes(app, self, self.registry, self._ops_routers, self._admin_routers)
        return app

    def count_refusal(self, code: Code) -> None:
        """Count one request that was answered with an error."""
        self.refusals.labels(code.value).inc()

    # --- life -------------------------------------------------------------------------------------

    def main(self, data_app: FastAPI | None) -> int:
        """``run`` in a new event loop; returns the exit code of the process, which must end now."""
        try:
            code = asyncio.run(self.run(data_app))
        except OSError as error:
            self.log.error("%s", error)
            code = 1
        _leave_later(_HARD_STOP_SECONDS, code, self.log)
        return code

    async def run(self, data_app: FastAPI | None) -> int:
        """Serve until :meth:`stop` or SIGTERM; returns the exit code.

        Raises:
            OSError: a port is taken.
        """
        settings = self.settings
        if settings.die_with_parent:
            die_with_parent()
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        self._stop_asked = functools.partial(_set_from_any_thread, loop, stopped)
        data_socket = listen(settings.host, settings.port) if data_app is not None else None
        try:
            ops_socket = listen(settings.host, settings.ops_port)
        except OSError:
            if data_socket is not None:
                data_socket.close()
            raise
        self.port = port_of(data_socket) if data_socket is not None else None
        self.ops_port = port_of(ops_socket)
        ops = ThreadServer(self.ops_app(), ops_socket, head_timeout=settings.header_timeout_seconds)
        beat = self.health.watch("event_loop", _LOOP_SILENCE_SECONDS)
        with self._signals(loop):
            ops.start()
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(_beat_forever(beat))]
                    try:
                        await self._serve(data_app, data_socket, group, stopped)
                    finally:
                        for task in tasks:
                            task.cancel()
            finally:
                self.health.unwatch("event_loop")
                await asyncio.to_thread(ops.stop)
        return self.exit_code

    async def _serve(
        self,
        data_app: FastAPI | None,
        data_socket: socket.socket | None,
        group: asyncio.TaskGroup,
        stopped: asyncio.Event,
    ) -> None:
        if self.stopping is not None:
            stopped.set()
        for hook in self.on_start:
            await hook()
        tasks = [group.create_task(self._guarded(name, task)) for name, task in self._background.items()]
        server = None
        serving: asyncio.Task[None] | None = None
        if data_app is not None and data_socket is not None:
            server = make_server(
                data_app,
                head_timeout=self.settings.header_timeout_seconds,
                grace_seconds=self.settings.grace_seconds,
                tls=self.tls,
            )
            serving = group.create_task(server.serve([data_socket]))
            serving.add_done_callback(lambda _: stopped.set())
            await asyncio.wait(
                {serving, group.create_task(server.listening.wait())}, return_when="FIRST_COMPLETED"
            )
        self._announce()
        await stopped.wait()
        if self.stopping is None:
            self.stop(1, "the data server ended by itself")
        watchdog = self._hard_stop_later()
        try:
            for hook in self.on_stop:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.settings.grace_seconds):
                        await hook()
            for task in tasks:
                task.cancel()
            if server is not None and serving is not None:
                server.should_exit = True
                await serving
        finally:
            watchdog.cancel()

    async def _guarded(self, name: str, task: Hook) -> None:
        try:
            await task()
        except asyncio.CancelledError:
            raise
        except Exception:
            self.log.exception("background task %s failed", name)
            self.stop(1, f"{name} failed")

    def _announce(self) -> None:
        reading = self.read_memory()
        self.log.info(
            "listening",
            extra={
                "host": self.settings.host,
                "port": self.port,
                "ops_port": self.ops_port,
                "boot_id": self.boot_id,
                "version": self.version,
                "memory": self.memory.name,
                "memory_limit_bytes": reading.limit if reading else None,
                "memory_level": reading.level if reading else None,
            },
        )
        if self.settings.ready_file is not None:
            write_ready_file(
                self.settings.ready_file,
                ReadyFile(
                    schema="sn17.ready/v1",
                    port=self.port,
                    ops_port=self.ops_port,
                    pid=os.getpid(),
                    boot_id=self.boot_id,
                ),
            )

    @contextlib.contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop) -> Any:
        """SIGTERM and SIGINT stop; the second one exits at once. Only the main thread gets signals."""

        def received(number: signal.Signals) -> None:
            if self.stopping is not None:
                self.log.warning("%s while stopping: leaving at once", number.name)
                os._exit(128 + number)
            self.stop(0, number.name)

        handled: list[signal.Signals] = []
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, received, number)
                handled.append(number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _hard_stop_later(self) -> threading.Timer:
        """End the process even if a hook, a thread or the loop hangs."""
        return _leave_later(2 * self.settings.grace_seconds + _HARD_STOP_SECONDS, self.exit_code, self.log)


def _set_from_any_thread(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(event.set)


def _leave_later(seconds: float, code: int, log: logging.Logger) -> threading.Timer:
    """Exit the hard way unless cancelled, or gone, before."""

    def leave() -> None:
        log.error("not stopped in time: leaving at once")
        os._exit(code)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    return timer


async def _beat_forever(beat: Callable[[], None]) -> None:
    while True:
        beat()
        await asyncio.sleep(_LOOP_BEAT_SECONDS)
