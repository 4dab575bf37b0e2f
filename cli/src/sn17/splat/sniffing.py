"""What a file is, by its first bytes; what it is instead, when it is no splat."""

from __future__ import annotations

import zlib
from enum import StrEnum
from typing import Final

from sn17_pictures import phrase_of
from sn17_splats import Limits, SplatError, SplatTooLarge

ZSTD: Final = b"\x28\xb5\x2f\xfd"
GZIP: Final = b"\x1f\x8b"
ZIP: Final = b"PK\x03\x04"
HEAD_BYTES: Final = 16 * 1024
"""As much as is looked at: a PLY's header lies within it."""

_GZIP_WINDOW: Final = 31


class Format(StrEnum):
    """What a file can be."""

    PLY = "ply"
    COMPRESSED = "compressed"
    SUBNET = "subnet"
    NIANTIC = "niantic"
    SPLAT = "splat"
    KSPLAT = "ksplat"
    SOG = "sog"


BY_NAME: Final = {".splat": Format.SPLAT, ".ksplat": Format.KSPLAT, ".sog": Format.SOG}
"""formats without a signature of their own in the first bytes."""


def sniff(data: bytes, path: str) -> Format:
    """What ``data`` is, by its first bytes, and by the name of ``path`` where a format has no signature.

    Raises :class:`SplatError` that names what was found instead.
    """
    head = data[:HEAD_BYTES]
    if head[:2] == GZIP:
        inner = _first_unpacked(data)
        return Format.NIANTIC if inner[:4] == b"NGSP" else _of(inner, path.removesuffix(".gz"), "gzipped ")
    return _of(head, path, "")


def unpacked(data: bytes, kind: Format, limits: Limits) -> bytes:
    """``data`` without a gzip layer around it; Niantic's SPZ keeps its own.

    Raises :class:`SplatError` where the stream is damaged, :class:`SplatTooLarge` over ``limits``.
    """
    if data[:2] != GZIP or kind is Format.NIANTIC:
        return data
    stream = zlib.decompressobj(_GZIP_WINDOW)
    try:
        content = stream.decompress(data, limits.max_bytes + 1)
    except zlib.error as error:
        raise SplatError(f"the gzip stream is damaged: {error}") from error
    if len(content) > limits.max_bytes:
        raise SplatTooLarge(f"unpacked it is over the limit of {limits.max_bytes} bytes")
    if not stream.eof:
        raise SplatError("the gzip stream is cut short")
    return content


def _of(head: bytes, path: str, layer: str) -> Format:
    if head[:3] == b"ply":
        return Format.COMPRESSED if b"packed_position" in head.partition(b"end_header")[0] else Format.PLY
    if head[:4] == ZSTD:
        return Format.SUBNET
    if head[:4] == b"NGSP":
        return Format.NIANTIC
    if head[:4] == ZIP and b"meta.json" in head:
        return Format.SOG
    found = phrase_of(head)
    for ending, kind in BY_NAME.items():
        if path.lower().endswith(ending) and found is None:
            return kind
    raise SplatError(
        f"this is {layer}{found or 'nothing known'}, not a splat: neither PLY, nor SPZ of the subnet or "
        "Niantic's, nor SOG, nor named .splat or .ksplat"
    )


def _first_unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(_GZIP_WINDOW).decompress(data, HEAD_BYTES)
    except zlib.error as error:
        raise SplatError(f"the gzip stream is damaged: {error}") from error
