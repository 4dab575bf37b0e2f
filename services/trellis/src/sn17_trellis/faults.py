"""Faults that a test asks for, around any backend: they leak, decay, hang, crash and lie for real."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from sn17_contract.metrics import GenerationKind
from sn17_service import MemoryReading
from sn17_splats import Splats, read_ply

from sn17_trellis.backend import (
    Backend,
    Cancelled,
    DeviceError,
    EmptyStructure,
    Generation,
    IsCancelled,
    Job,
    Progress,
    plain,
)
from sn17_trellis.settings import Faults

MIB = 1024 * 1024
DECAYED_SHARE = 1 / 8
"""What is left at the worst: the design saw 400,000 gaussians fall to 50,000."""
SLICE_SECONDS = 0.05


class FaultyBackend:
    """A backend with faults; only generations of tasks count and are hit, leak and decay hit all."""

    def __init__(
        self, inner: Backend, faults: Faults, read_memory: Callable[[], MemoryReading | None]
    ) -> None:
        self._inner = inner
        self._faults = faults
        self._read_memory = read_memory
        self._leak: list[np.ndarray] = []
        self._tasks = 0

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def models(self) -> tuple[str, ...]:
        return self._inner.models

    @property
    def identity(self) -> str:
        return self._inner.identity

    def load(self) -> None:
        self._inner.load()

    def warmup(self, progress: Progress, cancelled: IsCancelled) -> None:
        self._inner.warmup(progress, cancelled)

    def generate(self, job: Job, progress: Progress, cancelled: IsCancelled) -> Generation:
        if job.kind is GenerationKind.TASK:
            self._tasks += 1
            self._hit(progress, cancelled)
        generation = self._inner.generate(job, progress, cancelled)
        leak = int(self._faults.leak_mib_per_generation * MIB)
        if leak:
            self._leak.append(np.ones(leak, dtype=np.uint8))
        return self._decayed(generation, job.seed) if self._faults.gaussian_decay else generation

    def cleanup(self) -> None:
        self._inner.cleanup()
        if self._faults.leak_is_cache:
            self._leak.clear()

    def gpu_memory(self) -> Mapping[str, int]:
        return self._inner.gpu_memory()

    def canary(self) -> Job:
        return self._inner.canary()

    def close(self) -> None:
        self._inner.close()

    def _hit(self, progress: Progress, cancelled: IsCancelled) -> None:
        faults = self._faults
        if _after(faults.crash_after, self._tasks):
            os.kill(os.getpid(), signal.SIGKILL)
        if _after(faults.gpu_error_after, self._tasks):
            raise DeviceError("injected", "an injected fatal device error")
        if faults.empty_every and self._tasks % faults.empty_every == 0:
            raise EmptyStructure("an injected empty structure")
        while _after(faults.hang_after, self._tasks):
            time.sleep(SLICE_SECONDS)
        end = time.monotonic() + faults.slow_seconds
        steps = max(1, round(faults.slow_seconds / SLICE_SECONDS))
        for step in range(1, steps + 1):
            left = end - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, SLICE_SECONDS))
            progress("slow", step, steps)
            if cancelled():
                raise Cancelled

    def _decayed(self, generation: Generation, seed: int) -> Generation:
        share = self._share_left()
        if share >= 1:
            return generation
        asset = (
            generation.asset if isinstance(generation.asset, Splats) else read_ply(plain(generation.asset))
        )
        count = max(1, round(len(asset) * share))
        kept = np.sort(np.random.default_rng(seed).choice(len(asset), count, replace=False))
        return replace(generation, asset=asset.select(kept), gaussians=count)

    def _share_left(self) -> float:
        reading = self._read_memory()
        if reading is None or reading.ratio is None:
            return 1.0
        start, end = self._faults.gaussian_decay_from, self._faults.gaussian_decay_to
        worst = float(np.clip((reading.ratio - start) / max(end - start, 1e-6), 0.0, 1.0))
        return 1.0 - worst * (1.0 - DECAYED_SHARE)


class AnswerFaults:
    """What happens to finished answers on their way out."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._answers = 0

    def next(self) -> str | None:
        """``half``, ``garbage`` or None for the answer that is about to be sent."""
        self._answers += 1
        if self._faults.half_answer_every and self._answers % self._faults.half_answer_every == 0:
            return "half"
        if self._faults.garbage_every and self._answers % self._faults.garbage_every == 0:
            return "garbage"
        return None


def _after(start: int | None, count: int) -> bool:
    return start is not None and count > start
