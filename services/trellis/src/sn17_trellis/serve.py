"""``sn17-trellis serve``: the worker as a process."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version

from sn17_contract.metrics import SwapPhase
from sn17_contract.worker import RecycleHow
from sn17_service import Service, load_settings
from sn17_service.memory import AutoMemory, ProcessMemory

from sn17_trellis.admin import recycle_router
from sn17_trellis.backends import BackendUnavailable, create_backend
from sn17_trellis.device_health import DeviceCollector, DeviceWatch
from sn17_trellis.device_modes import DeviceModes
from sn17_trellis.faults import FaultyBackend
from sn17_trellis.http import build_app
from sn17_trellis.metrics import RecentTasks
from sn17_trellis.model_process.anew import revive
from sn17_trellis.model_process.keeper import Keeper
from sn17_trellis.model_process.launcher import Launcher, new_launcher
from sn17_trellis.model_process.memory import process_bytes
from sn17_trellis.model_process.meter import Meter
from sn17_trellis.model_process.metrics import LivesCollector, ModelMetrics
from sn17_trellis.model_process.process_backend import ProcessBackend
from sn17_trellis.model_process.swap import replace, swap
from sn17_trellis.nvml import Nvml, driver_version, installed_library, visible_device
from sn17_trellis.settings import Faults, WorkerSettings
from sn17_trellis.worker import Worker

CLOSE_SECONDS = 2.0

log = logging.getLogger("sn17.trellis")


def serve(argv: Sequence[str]) -> int:
    """Run a worker until it is told to stop; returns the exit code."""
    settings = load_settings(
        WorkerSettings, prog="sn17-trellis serve", description="TRELLIS worker: prompt in, PLY out", argv=argv
    )
    service = Service("trellis", version("sn17-trellis"), settings)
    settings.spool_dir.mkdir(parents=True, exist_ok=True)
    # Uploads go where writing is allowed, also under a read-only root.
    tempfile.tempdir = str(settings.spool_dir)
    try:
        worker = new_worker(service, settings, nvml=installed_library())
    except BackendUnavailable as error:
        log.error("%s", error)
        return 1
    connect(service, settings, worker)
    return service.main(build_app(service, settings, worker, driver=driver_version(installed_library())))


def new_worker(
    service: Service,
    settings: WorkerSettings,
    *,
    on_phase: Callable[[SwapPhase], None] = lambda _: None,
    nvml: Nvml | None = None,
    launcher: Launcher | None = None,
) -> Worker:
    """A worker with the model in a process of its own, or, for debugging, in this one.

    ``nvml``: the driver's management library; None: nothing is known of devices. ``launcher``: None takes
    the one that fits this system.

    Raises:
        BackendUnavailable: the chosen backend's packages are missing.
    """
    if settings.faults != Faults():
        log.warning("faults are injected: this worker is for tests", extra=settings.faults.model_dump())
    if settings.model_process == "off":
        backend = create_backend(settings)
        if settings.faults != Faults():
            backend = FaultyBackend(backend, settings.faults, service.read_memory)
        watch_device(service, nvml, lambda: None)
        return Worker(service, settings, backend)
    recent = RecentTasks(service.monotonic)
    metrics = ModelMetrics(service.registry)
    folder = settings.spool_dir / "results"
    keeper = Keeper(
        settings,
        launcher or new_launcher(settings),
        metrics,
        acts={RecycleHow.SWAP: swap, RecycleHow.REPLACE: replace},
        revive=revive,
        spool=folder,
        meter=Meter(
            read_memory=service.read_memory,
            job_seconds=lambda: recent.read().seconds_p50,
            refuse_ratio=settings.guard_refuse_ratio,
            why_exclusive=DeviceModes(nvml).why_exclusive,
        ),
        on_phase=on_phase,
        clock=service.clock,
    )
    if isinstance(service.memory, ProcessMemory | AutoMemory):
        service.memory.count(lambda: sum(process_bytes(pid) or 0 for pid in keeper.run.pids()))
    service.registry.register(LivesCollector(keeper, service.boot_id))
    watch_device(service, nvml, lambda: keeper.device)
    return Worker(service, settings, ProcessBackend(keeper), lives=keeper, recent=recent)


def watch_device(service: Service, library: Nvml | None, device: Callable[[], str | None]) -> None:
    """Tell what the driver says of the device that a model process has, or else of the one that the container
    runtime was asked for.
    """
    asked = visible_device(os.environ.get("NVIDIA_VISIBLE_DEVICES"))
    watch = DeviceWatch(library, lambda: device() or asked, service.monotonic)
    DeviceCollector(watch, service.registry)

    async def start() -> None:
        watch.start()

    async def stop() -> None:
        watch.close()

    service.on_start.append(start)
    service.on_stop.append(stop)


def connect(service: Service, settings: WorkerSettings, worker: Worker) -> None:
    """Tie a worker to the life, the probes and the admin routes of its service."""
    if settings.guard == "on":
        service.memory_thresholds["cleanup"] = settings.guard_cleanup_ratio
        service.memory_thresholds["refuse"] = settings.guard_refuse_ratio
    service.add_ops_router(recycle_router(service, worker), admin=True)
    service.readiness.add("worker", worker.not_ready)
    service.on_cleanup(worker.cleanup)
    service.on_canary(worker.canary)
    service.life_id = lambda: worker.lives.life_id
    service.jobs_in_flight = lambda: worker.jobs_in_flight

    async def start() -> None:
        worker.start()

    async def stop() -> None:
        try:
            await asyncio.to_thread(worker.lives.stop_acts)
            ends = [asyncio.wrap_future(done) for done in worker.pending()]
            await asyncio.gather(*(asyncio.shield(end) for end in ends), return_exceptions=True)
        finally:
            worker.cancel_all()
            await asyncio.to_thread(worker.close, CLOSE_SECONDS)

    service.on_start.append(start)
    service.on_stop.append(stop)
