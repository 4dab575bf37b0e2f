"""The tail of a generation: encode, look at the result, keep it on disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from sn17_contract.http import Code
from sn17_service import Problem
from sn17_splats import SplatError, Splats, read_ply, write_ply

from sn17_trellis.backend import Generation, UnusableOutput
from sn17_trellis.jobs import Running
from sn17_trellis.quality import Quality, digest, measure
from sn17_trellis.spool import Spool, StoredResult

log = logging.getLogger("sn17.trellis.output")


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A judged asset: PLY bytes, or a file with them that may be moved."""

    ply: bytes | Path
    quality: Quality
    digest: str | None = None

    @property
    def content_digest(self) -> str:
        """SHA-256 of the bytes."""
        if self.digest is not None:
            return self.digest
        return digest(self.ply if isinstance(self.ply, bytes) else self.ply.read_bytes())

    def discard(self) -> None:
        """Remove the file of an asset that nobody keeps."""
        if isinstance(self.ply, Path):
            self.ply.unlink(missing_ok=True)


def encode(generation: Generation) -> Encoded:
    """PLY bytes and their quality. Blocks while a model process is still encoding.

    Raises:
        UnusableOutput: no gaussians, bytes that are no PLY, or mostly values that are not finite.
        GenerationError: the model process ended meanwhile, twice.
    """
    asset = generation.asset
    if not isinstance(asset, Splats | bytes):
        made = asset()
        return Encoded(made.path, made.quality, made.digest)
    try:
        splats, ply = (asset, write_ply(asset)) if isinstance(asset, Splats) else (read_ply(asset), asset)
    except SplatError as error:
        raise UnusableOutput(str(error)) from error
    quality = measure(splats)
    if not quality.usable:
        raise UnusableOutput(f"only {quality.finite_share:.0%} of {quality.gaussians} gaussians are finite")
    return Encoded(ply, quality)


def keep(spool: Spool, running: Running, encoded: Encoded, lane: str) -> StoredResult:
    """Store the asset for whoever waits, with the lane it was made in.

    Raises:
        Problem: the disk does not take it.
    """
    try:
        return spool.store(
            encoded.ply,
            key=running.key,
            fingerprint=running.fingerprint,
            seed=running.job.seed,
            gaussians=encoded.quality.gaussians,
            lane=lane,
        )
    except OSError as error:
        log.error("the spool does not take the result: %s", error.strerror)
        raise Problem(
            Code.OVERLOADED, "the worker's disk does not take the result; use another worker"
        ) from error
