"""Read whatever splat the bytes hold."""

from __future__ import annotations

from sn17_splats.container import Limits, SplatError, Splats
from sn17_splats.ply import Buffer, read_ply
from sn17_splats.spz import ZSTD_MAGIC, decode_spz


def read_splat(data: Buffer, limits: Limits = Limits()) -> Splats:
    """Read a PLY or the subnet's SPZ, told apart by their first bytes.

    Raises :class:`SplatError` where the bytes are neither or are damaged, :class:`SplatTooLarge` over
    ``limits``.
    """
    head = bytes(memoryview(data)[:4])
    if head.startswith(b"ply"):
        return read_ply(data, limits)
    if head == ZSTD_MAGIC or head[:2] == b"\x1f\x8b" or head == b"NGSP":
        return decode_spz(data, limits)
    raise SplatError("the bytes are neither a PLY nor the subnet's SPZ")
