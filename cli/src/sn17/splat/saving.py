"""An asset from elsewhere, checked and written in the format that its name says."""

from __future__ import annotations

from dataclasses import dataclass

from sn17_splats import SplatError, read_splat

from sn17.splat.formats import STDIO, encode, format_for, write_bytes
from sn17.splat.sniffing import Format, sniff


@dataclass(frozen=True, slots=True)
class Saved:
    """What was written."""

    size: int
    gaussians: int


def format_of(output: str) -> Format:
    """``.spz`` and standard output are the subnet's SPZ. Raises :class:`SplatError` for other endings."""
    if output == STDIO or output.lower().endswith(".spz"):
        return Format.SUBNET
    try:
        return format_for(output)
    except SplatError:
        raise SplatError(
            f"{output}: the name must end in .ply, .spz or .splat, which says the format"
        ) from None


def save(asset: bytes, output: str, kind: Format) -> Saved:
    """Decode ``asset``, so that nothing damaged is kept, and write it as ``kind``.

    Raises :class:`SplatError` and :class:`OSError`; a file that was there is then as it was.
    """
    splats = read_splat(asset)
    if sniff(asset[:64], output) is not kind:
        asset, _ = encode(splats, kind)
    write_bytes(output, asset)
    return Saved(len(asset), len(splats))
