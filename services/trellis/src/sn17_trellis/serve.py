"""``sn17-trellis serve``: the worker as a process."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Sequence
from importlib.metadata import version

from sn17_service import Service, load_settings

from sn17_trellis.backends import BackendUnavailable, create_backend
from sn17_trellis.faults import FaultyBackend
from sn17_trellis.http import build_app
from sn17_trellis.settings import Faults, WorkerSettings
from sn17_trellis.worker import Worker

CLOSE_SECONDS = 2.0


def serve(argv: Sequence[str]) -> int:
    """Run a worker until it is told to stop; returns the exit code."""
    settings = load_settings(
        WorkerSettings, prog="sn17-trellis serve", description="TRELLIS worker: prompt in, PLY out", argv=argv
    )
    service = Service("trellis", version("sn17-trellis"), settings)
    settings.spool_dir.mkdir(parents=True, exist_ok=True)
    # Uploads go where writing is allowed, also under a read-only root.
    tempfile.tempdir = str(settings.spool_dir)
    log = logging.getLogger("sn17.trellis")
    try:
        backend = create_backend(settings)
    except BackendUnavailable as error:
        log.error("%s", error)
        return 1
    if settings.faults != Faults():
        log.warning("faults are injected: this worker is for tests", extra=settings.faults.model_dump())
        backend = FaultyBackend(backend, settings.faults, service.read_memory)
    worker = Worker(service, settings, backend)
    connect(service, settings, worker)
    return service.main(build_app(service, settings, worker))


def connect(service: Service, settings: WorkerSettings, worker: Worker) -> None:
    """Tie a worker to the life, the probes and the admin routes of its service."""
    service.memory_marks["cleanup"] = settings.guard_cleanup_ratio
    service.memory_marks["refuse"] = settings.guard_refuse_ratio
    service.readiness.add("worker", worker.not_ready)
    service.on_cleanup(worker.cleanup)
    service.on_canary(worker.canary)
    service.life_id = lambda: worker.life_id
    service.jobs_in_flight = lambda: worker.jobs_in_flight

    async def start() -> None:
        worker.start()

    async def stop() -> None:
        try:
            ends = [asyncio.wrap_future(done) for done in worker.pending()]
            await asyncio.gather(*(asyncio.shield(end) for end in ends), return_exceptions=True)
        finally:
            worker.cancel_all()
            await asyncio.to_thread(worker.close, CLOSE_SECONDS)

    service.on_start.append(start)
    service.on_stop.append(stop)
