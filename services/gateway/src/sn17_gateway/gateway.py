"""The parts of a running gateway, opened and closed together, and the clean-up beside the requests."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from sn17_contract.http import Code
from sn17_contract.metrics import GatewayOutcome
from sn17_service import Problem, Service

from sn17_gateway.core.model import Task
from sn17_gateway.keys import Keys, read_secret
from sn17_gateway.metrics import GatewayMetrics, QueueCollector
from sn17_gateway.settings import GatewaySettings
from sn17_gateway.storage.database import Database, StorageError
from sn17_gateway.storage.folder import Folder
from sn17_gateway.storage.sqlite import SqliteDatabase
from sn17_gateway.storage.store import Snapshot, Store
from sn17_gateway.trouble import StorageTrouble

T = TypeVar("T")

#: Files younger than this may belong to a request that is not finished.
_ORPHAN_SECONDS: Final = 3600.0
_ORPHAN_SWEEPS: Final = 120
#: Splats decoded at once; one of five million gaussians takes 400 MB meanwhile.
_DECODERS: Final = 2
_READING_SECONDS: Final = 1.0
_SNAPSHOT_AGE: Final = 30.0


class Gateway:
    """Opened by :meth:`open` before anything listens. ``snapshot`` is the queue as it was at ``read_at``."""

    def __init__(
        self,
        service: Service,
        settings: GatewaySettings,
        *,
        draw: Callable[[], int] | None = None,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.service = service
        self.settings = settings
        self.clock = service.clock
        self.new_id = new_id
        self.draw = draw or (lambda: random.SystemRandom().randrange(2**31))
        self.database = make_database(settings)
        self.folder = Folder(settings.data_dir / "files")
        self.store = Store(self.database, queue_limit=settings.queue_limit, new_token=new_id)
        self.keys = Keys(self.database, read_secret(settings.key_secret_file, settings.data_dir))
        self.metrics = GatewayMetrics(service.registry)
        self.trouble = StorageTrouble(service.log, service.monotonic)
        self.snapshot: Snapshot | None = None
        self.read_at = 0.0
        self.last_pull = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._decoders = ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode")
        service.registry.register(QueueCollector(lambda: self.snapshot, self.clock))
        service.readiness.add("storage", self._storage_answers)
        service.on_start.append(self.open)
        service.background("sweep", self.sweep_forever)
        service.background("queue", self.read_forever)

    async def open(self) -> None:
        """Raises StorageError or OSError."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self.folder.create)
        await self.database.open()
        await self._read_queue()

    async def on_data_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work`` where the database lives: the ops port has a loop of its own.

        Raises Problem where the storage does not answer.
        """
        if self._loop is None:
            work.close()
            raise Problem(Code.WARMING_UP, "the gateway is not open yet", retry_after_seconds=1)
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
        except StorageError as error:
            self.trouble.failed(error)
            raise Problem(Code.OVERLOADED, "the storage does not answer", retry_after_seconds=5) from error

    async def decode(self, work: Callable[..., T], *values: Any) -> T:
        """Heavy work on a splat, a few at once."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work, *values)

    def visible(self, task: Task | None, owner: str | None) -> Task | None:
        """The task, if it belongs to this key; guests (None) see the tasks of guests."""
        return task if task is not None and task.owner == owner else None

    async def sweep_forever(self) -> None:
        """Clean up again and again; storage trouble is logged and tried again."""
        turn = 0
        while True:
            try:
                await self.sweep()
                if turn % _ORPHAN_SWEEPS == 0:
                    await self.remove_orphans()
                turn += 1
            except (StorageError, OSError) as error:
                self.service.log.error("clean-up failed: %s", error)
            await asyncio.sleep(self.settings.sweep_seconds)

    async def sweep(self) -> None:
        """One clean-up: end what timed out, remove what was kept long enough."""
        now = self.clock()
        swept = await self.store.sweep(now, self.settings.result_seconds, self.settings.state_seconds)
        await asyncio.to_thread(self.folder.remove, swept.files)
        if swept.timed_out:
            self.metrics.results.labels(GatewayOutcome.TIMEOUT.value).inc(swept.timed_out)
            self.service.log.warning("tasks timed out", extra={"tasks": swept.timed_out})

    async def remove_orphans(self) -> None:
        """Remove files that a crash left behind. Old ones are listed first, so no new row is missed."""
        old = await asyncio.to_thread(self.folder.older_than, self.clock() - _ORPHAN_SECONDS)
        if old:
            removed = await asyncio.to_thread(self.folder.remove_orphans, old, await self.store.files())
            if removed:
                self.service.log.info("files without a task removed", extra={"files": removed})

    async def read_forever(self) -> None:
        """Keep the numbers of the queue fresh for metrics and workers."""
        while True:
            await asyncio.sleep(_READING_SECONDS)
            try:
                await self._read_queue()
            except StorageError as error:
                self.service.log.error("the queue can't be read: %s", error)

    async def _read_queue(self) -> None:
        now = self.clock()
        self.snapshot = await self.store.snapshot(now)
        self.read_at = now

    def _storage_answers(self) -> tuple[bool, str]:
        age = self.clock() - self.read_at
        return age < _SNAPSHOT_AGE, f"the database gave no answer for {age:.0f} s"


def make_database(settings: GatewaySettings) -> Database:
    """The database that the settings name.

    Raises:
        StorageError: Postgres is wanted and its client is not installed, or the file with its address can't
            be read.
    """
    if settings.database == "sqlite" or settings.database_url_file is None:
        return SqliteDatabase(settings.data_dir / "gateway.sqlite")
    try:
        from sn17_gateway.storage.postgres import PostgresDatabase
    except ImportError as error:
        raise StorageError("SN17_DATABASE=postgres needs the extra: sn17-gateway[postgres]") from error
    try:
        url = settings.database_url_file.read_text().strip()
    except OSError as error:
        raise StorageError(f"{settings.database_url_file}: {error.strerror}") from error
    return PostgresDatabase(url, settings.database_connections, settings.database_timeout_seconds)
