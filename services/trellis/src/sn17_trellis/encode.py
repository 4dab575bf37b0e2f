"""The tail of a generation: encode, look at the result, keep it on disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from sn17_contract.http import Code
from sn17_service import Problem
from sn17_splats import SplatError, Splats, read_ply, write_ply

from sn17_trellis.backend import Generation
from sn17_trellis.jobs import Running
from sn17_trellis.quality import Quality, measure
from sn17_trellis.spool import Spool, StoredResult

log = logging.getLogger("sn17.trellis.output")


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    ply: bytes
    quality: Quality


class UnusableOutput(Exception):  # noqa: N818
    """The backend made something that no one can repair."""


def encode(generation: Generation) -> Encoded:
    """PLY bytes and their quality.

    Raises:
        UnusableOutput: no gaussians, bytes that are no PLY, or mostly values that are not finite.
    """
    try:
        if isinstance(generation.asset, Splats):
            splats, ply = generation.asset, write_ply(generation.asset)
        else:
            splats, ply = read_ply(generation.asset), generation.asset
    except SplatError as error:
        raise UnusableOutput(str(error)) from error
    quality = measure(splats)
    if not quality.usable:
        raise UnusableOutput(f"only {quality.finite_share:.0%} of {quality.gaussians} gaussians are finite")
    return Encoded(ply, quality)


def keep(spool: Spool, running: Running, encoded: Encoded) -> StoredResult:
    """Store the asset for whoever waits.

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
        )
    except OSError as error:
        log.error("the spool does not take the result: %s", error.strerror)
        raise Problem(
            Code.OVERLOADED, "the worker's disk does not take the result; use another worker"
        ) from error
