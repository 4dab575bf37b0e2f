"""From request bytes to answer bytes; runs on a worker thread and knows nothing of HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from sn17_contract.http import MEDIA_PLY, MEDIA_SPZ
from sn17_splats import Limits, Splats, encode_spz, is_canonical, read_splat, write_ply
from sn17_splats.ply import Buffer
from sn17_splats.spz import ZSTD_MAGIC, announced_gaussians

from sn17_fixer.diagnosis import diagnose
from sn17_fixer.model import Diagnosis
from sn17_fixer.policy import Fixed, FixOptions, fix
from sn17_fixer.render.preview import preview_png

#: Bytes of one gaussian in a canonical PLY without spherical harmonics.
GAUSSIAN_BYTES = 68

Timer = Callable[[str, float], None]


class Format(StrEnum):
    """What an asset is sent as."""

    SPZ = MEDIA_SPZ
    PLY = MEDIA_PLY


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Reports how long each stage took to ``observe(stage, seconds)``."""

    observe: Timer
    now: Callable[[], float] = time.perf_counter

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body as ``name``, also where it fails."""
        started = self.now()
        try:
            yield
        finally:
            self.observe(name, self.now() - started)


def unpacked_bytes(data: Buffer, limits: Limits) -> int:
    """Bytes that ``data`` takes once unpacked, by its header alone. Raises :class:`SplatError`."""
    size = memoryview(data).nbytes
    if bytes(memoryview(data)[:4]) == ZSTD_MAGIC:
        return announced_gaussians(data, limits) * GAUSSIAN_BYTES
    return size


def run_fix(
    data: Buffer, options: FixOptions, output: Format, limits: Limits, watch: Stopwatch
) -> tuple[Fixed, bytes]:
    """Read, fix and encode. Raises :class:`SplatError` for bytes that are no splat."""
    with watch.stage("read"):
        splats = read_splat(data, limits)
    with watch.stage("fix"):
        fixed = fix(splats, options)
    with watch.stage("encode"):
        return fixed, encode(fixed.splats, output, original=data if fixed.splats is splats else None)


def run_diagnose(data: Buffer, limits: Limits, watch: Stopwatch) -> Diagnosis:
    """Read and diagnose. Raises :class:`SplatError` for bytes that are no splat."""
    with watch.stage("read"):
        splats = read_splat(data, limits)
    with watch.stage("diagnose"):
        return diagnose(splats)


def run_preview(data: Buffer, size: int, limits: Limits, watch: Stopwatch) -> bytes:
    """Read and draw the grid of four views. Raises :class:`SplatError` for what can't be drawn."""
    with watch.stage("read"):
        splats = read_splat(data, limits)
    with watch.stage("render"):
        return preview_png(splats, size=size)


def encode(splats: Splats, output: Format, *, original: Buffer | None = None) -> bytes:
    """The splat in the asked format; an untouched canonical PLY goes out as it came in."""
    if output is Format.SPZ:
        return encode_spz(splats)
    if original is not None and bytes(memoryview(original)[:3]) == b"ply" and is_canonical(original):
        return bytes(original)
    return write_ply(splats)
