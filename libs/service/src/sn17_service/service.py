"""One service per process: identity, probes, leases, memory, two ports, a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from sn17_contract.http import Code, LeaseOwner

from sn17_service.drain import DrainLease, Lease
from sn17_service.health import Health, Readiness
from sn17_service.memory import MemoryReader, MemoryReading, MemoryUnavailable, memory_reader
from sn17_service.metrics import ServiceCollector, new_registry, refusals
from sn17_service.middleware import RequestLayer
from sn17_service.ops import build_ops_app
from sn17_service.problems import PROBLEM_SCHEMA, install_problems
from sn17_service.process import die_with_parent, write_ready_file, write_termination_reason
from sn17_service.server import ThreadServer, listen, make_server, port_of
from sn17_service.settings import ServiceSettings

_LOOP_BEAT_SECONDS = 1.0
_LOOP_SILENCE_SECONDS = 30.0
_HARD_STOP_SECONDS = 5.0

Hook = Callable[[], Awaitable[None]]


class Service:
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
        self.name = name
        self.version = version
        self.settings = settings
        self.clock = clock
        self.monotonic = monotonic
        self.boot_id = secrets.token_hex(8)
        self.log = logging.getLogger(f"sn17.{name}")
        self.registry: CollectorRegistry = new_registry()
        self.refusals = refusals(self.registry)
        self.drain = DrainLease(monotonic)
        self.health = Health(monotonic)
        self.readiness = Readiness()
        self.memory: MemoryReader = memory or memory_reader(
            settings.memory_source, settings.memory_limit_bytes
        )
        self.memory_marks: dict[str, float] = {}
        self.cleanup_calls: list[Callable[[], object]] = []
        self.canary_call: Callable[[], Mapping[str, Any]] | None = None
        self.exit_calls: list[Callable[[str], None]] = []
        self.on_start: list[Hook] = []
        self.on_stop: list[Hook] = []
        self.port: int | None = None
        self.ops_port: int | None = None
        self.last_admin_call: float | None = None
        self._background: dict[str, Hook] = {}
        self._ops_routers: list[APIRouter] = []
        self._admin_routers: list[APIRouter] = []
        self._memory_failed = False
        self._stop_lock = threading.Lock()
        self._stop: tuple[int, str] | None = None
        self._wake: Callable[[], None] = lambda: None
        self.readiness.add("draining", self._not_draining)
        self.registry.register(ServiceCollector(self))

    # --- what a service registers -----------------------------------------------------------------

    def on_cleanup(self, call: Callable[[], object]) -> None:
        """``POST /admin/v1/cleanup`` runs it on a thread; then heap goes back to the kernel."""
        self.cleanup_calls.append(call)

    def on_canary(self, call: Callable[[], Mapping[str, Any]]) -> None:
        """``POST /admin/v1/canary`` runs it on a thread and answers with what it returns."""
        self.canary_call = call

    def on_exit(self, call: Callable[[str], None]) -> None:
        """``POST /admin/v1/exit`` calls it with the reason before the process stops."""
        self.exit_calls.append(call)

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
        return build_ops_app(self, self._ops_routers, self._admin_routers)

    # --- state ------------------------------------------------------------------------------------

    def count_refusal(self, code: Code) -> None:
        self.refusals.labels(code.value).inc()

    def read_memory(self) -> MemoryReading | None:
        """The reading, or None where the kernel does not tell: unknown is not zero, and not full."""
        try:
            reading = self.memory.read()
        except MemoryUnavailable as error:
            if not self._memory_failed:
                self.log.warning("memory is unknown: %s", error)
            self._memory_failed = True
            return None
        self._memory_failed = False
        return reading

    def seconds_left(self, lease: Lease) -> float | None:
        return None if lease.expires is None else max(0.0, lease.expires - self.monotonic())

    def admin_called(self) -> None:
        self.last_admin_call = self.monotonic()

    @property
    def stopping(self) -> str | None:
        """The reason, once the process is on its way out."""
        return self._stop[1] if self._stop else None

    def stop(self, exit_code: int, reason: str) -> None:
        """Drain, finish what runs, exit. From any thread; the first call decides code and reason."""
        with self._stop_lock:
            if self._stop is not None:
                return
            self._stop = (exit_code, reason)
        self.drain.hold(LeaseOwner.SHUTDOWN, reason)
        self.log.info("stopping", extra={"reason": reason, "exit_code": exit_code})
        write_termination_reason(self.settings.termination_log, reason)
        self._wake()

    def _not_draining(self) -> tuple[bool, str]:
        lease = self.drain.current
        return lease is None, f"{lease.by.value}: {lease.reason}" if lease else ""

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
        self._wake = functools.partial(_set_from_any_thread, loop, stopped)
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
        return self._stop[0] if self._stop else 1

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
            )
            serving = group.create_task(server.serve([data_socket]))
            serving.add_done_callback(lambda _: stopped.set())
            await asyncio.wait(
                {serving, group.create_task(server.listening.wait())}, return_when="FIRST_COMPLETED"
            )
        self._announce()
        await stopped.wait()
        if self._stop is None:
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
                {"port": self.port, "ops_port": self.ops_port, "pid": os.getpid(), "boot_id": self.boot_id},
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
        code = self._stop[0] if self._stop else 1
        return _leave_later(2 * self.settings.grace_seconds + _HARD_STOP_SECONDS, code, self.log)


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
