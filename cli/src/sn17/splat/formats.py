"""Splats from and to files and pipes, in the subnet's formats and in those of viewers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

from sn17_files import write_atomically
from sn17_splats import Limits, SplatError, Splats, encode_spz, read_splat, write_ply

from sn17.splat.sniffing import BY_NAME, Format, unpacked
from sn17.splat.verification import PRECISIONS, losses

STDIO = "-"
LIBRARY_NAMES: Final = {
    Format.COMPRESSED: "compressed.ply",
    Format.NIANTIC: "spz",
    Format.SPLAT: "splat",
    Format.KSPLAT: "ksplat",
    Format.SOG: "sog",
}
"""Formats that the exchange library reads, by its own names for them."""


class MissingLibraryError(RuntimeError):
    """A viewer's format was asked for and its library is not installed."""


def read_bytes(path: str) -> bytes:
    """The content of a file, or of standard input for ``-``. Raises :class:`OSError`."""
    return sys.stdin.buffer.read() if path == STDIO else Path(path).read_bytes()


def write_bytes(path: str, data: bytes) -> None:
    """Replace a file, or write to standard output for ``-``.

    Raises :class:`OSError`; a file that was there is then as it was.
    """
    if path == STDIO:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_atomically(Path(path), data)


def decode(data: bytes, kind: Format, limits: Limits = Limits()) -> Splats:
    """Read ``data`` as ``kind``. Raises :class:`SplatError` and :class:`MissingLibraryError`."""
    data = unpacked(data, kind, limits)
    if kind in LIBRARY_NAMES:
        data = _exchange(data, LIBRARY_NAMES[kind], "ply")
    return read_splat(data, limits)


def encode(splats: Splats, kind: Format) -> tuple[bytes, list[str]]:
    """``splats`` as ``kind``, read back and compared, and what the format cannot hold of them.

    Niantic's SPZ is written in version 3, which every viewer reads. Raises :class:`SplatError`, also where
    what comes back is not what was given, and :class:`MissingLibraryError`.
    """
    if kind not in PRECISIONS:
        raise SplatError(f"{kind} is read and not written: choose {', '.join(PRECISIONS)}")
    if kind is Format.SUBNET:
        data = encode_spz(splats)
    elif kind is Format.PLY:
        data = write_ply(splats)
    else:
        data = _exchange(write_ply(splats), "ply", LIBRARY_NAMES[kind])
    return data, losses(splats, decode(data, kind), kind)


def format_for(path: str) -> Format:
    """The format that a name stands for. Raises :class:`SplatError` where it does not say."""
    match Path(path).suffix.lower():
        case ".ply":
            return Format.PLY
        case ".splat" | ".ksplat" | ".sog" as ending:
            return BY_NAME[ending]
        case ".spz":
            raise SplatError(
                "two formats are called .spz: say --to subnet (validators) or --to niantic (viewers)"
            )
        case _:
            raise SplatError(f"the name {path} does not say the format: use --to")


def _exchange(data: bytes, source: str, target: str) -> bytes:
    try:
        from gaussforge import GaussForge  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingLibraryError(
            "this format needs the library gaussforge: run `make sync`, or pip install gaussforge beside sn17"
        ) from error
    with _stdout_to_stderr():
        answer: dict[str, Any] = GaussForge().convert(data, source, target, spz_version=3)
    if "error" in answer:
        raise SplatError(f"not read as {source}: {answer['error']}")
    return cast(bytes, answer["data"])


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """The library prints on standard output, where a pipe may carry an asset."""
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
