"""The model process: one backend, one job at a time, told what to do over a socket.

The main thread runs the backend. One thread receives, one encodes assets beside the next job, one tells how
much device memory there is. When the service is gone, this process ends at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from sn17_contract.metrics import GenerationKind
from sn17_service import MemoryReading, MemoryUnavailable, configure_logging, memory_reader, return_heap

from sn17_trellis.backend import Backend, Generation, Progress, UnusableOutput
from sn17_trellis.backends import create_backend
from sn17_trellis.device_turn import DeviceTurn, Spent, lock_file
from sn17_trellis.encode import encode
from sn17_trellis.faults import FaultyBackend
from sn17_trellis.model_process.messages import (
    Cancel,
    Channel,
    Cleaned,
    Cleanup,
    Close,
    Command,
    Encoded,
    Generated,
    Load,
    Loaded,
    Run,
    Turns,
    Vitals,
    Warm,
    WarmUp,
    failed,
    job_of,
)
from sn17_trellis.model_process.messages import (
    Progress as ProgressReport,
)
from sn17_trellis.picture import decoded
from sn17_trellis.settings import Faults, WorkerSettings

VITALS_SECONDS: Final = 1.0

log = logging.getLogger("sn17.trellis.model")


def run_model(connection: Connection, settings: WorkerSettings) -> None:
    """Serve one service until it closes or is gone; never returns an error, it exits with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    configure_logging(settings.log_format, settings.log_level)
    backend = create_backend(settings)
    if settings.faults != Faults():
        backend = FaultyBackend(backend, settings.faults, _own_memory(settings))
    ModelProcess(Channel(connection), backend, settings.device_locks, settings.max_image_pixels).serve()


class ModelProcess:
    """Commands in the order in which they came; a cancellation overtakes."""

    def __init__(self, channel: Channel, backend: Backend, locks: Path, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._channel = channel
        self._backend = backend
        self._locks = locks
        self._turn = DeviceTurn(None)
        self._commands: queue.SimpleQueue[tuple[Command, bytes | None]] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._tail = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._loaded = False

    def serve(self) -> None:
        threading.Thread(target=self._receive, name="receive", daemon=True).start()
        threading.Thread(target=self._tell_vitals, name="vitals", daemon=True).start()
        while True:
            command, attached = self._commands.get()
            if isinstance(command, Close):
                self._tail.shutdown(wait=True)
                self._backend.close()
                return
            self._obey(command, attached)

    def _receive(self) -> None:
        while True:
            try:
                command, attached = self._channel.command()
            except (EOFError, OSError):
                os._exit(0)
            if isinstance(command, Cancel):
                self._cancelled.add(command.number)
            else:
                self._commands.put((command, attached))

    def _obey(self, command: Command, attached: bytes | None) -> None:
        number = command.number if isinstance(command, Run) else 0
        try:
            match command:
                case Load():
                    self._backend.load()
                    device = _device_uuid()
                    self._turn = DeviceTurn(lock_file(self._locks, device))
                    self._loaded = True
                    self._channel.send(
                        Loaded(
                            name=self._backend.name,
                            identity=self._backend.identity,
                            models=self._backend.models,
                            device=device,
                        )
                    )
                case WarmUp():
                    self._warm_up(command.turns)
                case Cleanup():
                    self._backend.cleanup()
                    return_heap()
                    self._channel.send(Cleaned())
                case Run():
                    self._run(command, attached)
        except Exception as error:
            # Its frames hold the arrays of a job that is over.
            error.__traceback__ = None
            self._channel.send(failed(number, error))

    def _warm_up(self, turns: Turns) -> None:
        spent = Spent(self._turn)
        with self._turn:
            self._backend.warmup(self._yielding(self._progress(0), turns), lambda: False)
        self._channel.send(Warm(device_seconds=spent.held, waited_seconds=spent.waited))

    def _yielding(self, tell: Progress, turns: Turns) -> Progress:
        """Progress that lets a caller's job in another process have the device."""
        began = time.monotonic()

        def progress(stage: str, step: int, steps: int) -> None:
            tell(stage, step, steps)
            self._turn.offer(turns.at(time.monotonic() - began))

        return progress

    def _run(self, run: Run, attached: bytes | None) -> None:
        canary = run.job is GenerationKind.CANARY
        job = self._backend.canary() if canary else decoded(job_of(run, attached), self._max_pixels)
        progress, spent = self._progress(run.number), Spent(self._turn)
        if run.turns is not None:
            progress = self._yielding(progress, run.turns)
        try:
            with self._turn:
                generation = self._backend.generate(job, progress, lambda: run.number in self._cancelled)
        finally:
            self._cancelled.discard(run.number)
        self._channel.send(
            Generated(
                number=run.number,
                gaussians=generation.gaussians,
                stage_seconds=dict(generation.stage_seconds),
                lane=generation.lane,
                device_seconds=spent.held,
                waited_seconds=spent.waited,
            )
        )
        self._tail.submit(self._encode, run, generation)

    def _encode(self, run: Run, generation: Generation) -> None:
        path = Path(run.file)
        try:
            encoded = encode(generation)
            if not isinstance(encoded.ply, bytes):
                raise UnusableOutput("a backend may not name a file of its own")
            path.write_bytes(encoded.ply)
            canary = run.job is GenerationKind.CANARY
            self._channel.send(
                Encoded(
                    number=run.number,
                    size=len(encoded.ply),
                    digest=encoded.content_digest if canary else "",
                    gaussians=encoded.quality.gaussians,
                    finite_share=encoded.quality.finite_share,
                    statistics=dict(encoded.quality.statistics),
                )
            )
        except Exception as error:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            self._channel.send(failed(run.number, error))

    def _progress(self, number: int) -> Progress:
        def progress(stage: str, step: int, steps: int) -> None:
            self._channel.send(ProgressReport(number=number, stage=stage, step=step, steps=steps))

        return progress

    def _tell_vitals(self) -> None:
        pause = threading.Event()
        while not pause.wait(VITALS_SECONDS):
            if self._loaded:
                with contextlib.suppress(OSError):
                    self._channel.send(Vitals(gpu_memory=dict(self._backend.gpu_memory())))


def _own_memory(settings: WorkerSettings) -> Callable[[], MemoryReading | None]:
    reader = memory_reader(settings.memory_source, settings.memory_limit_bytes)

    def read() -> MemoryReading | None:
        try:
            return reader.read()
        except MemoryUnavailable:
            return None

    return read


def _device_uuid() -> str | None:
    """The card's UUID where torch is loaded and uses one."""
    import sys

    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """A model process whose service is gone ends without a word."""
    try:
        yield
    except BrokenPipeError:
        os._exit(0)
