"""Splats from and to files and pipes, in the subnet's formats and in those of viewers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from sn17_files import write_atomically
from sn17_splats import Limits, SplatError, Splats, encode_spz, read_splat, write_ply

STDIO = "-"


class Format(StrEnum):
    """What a file can be."""

    PLY = "ply"
    SUBNET = "subnet"
    NIANTIC = "niantic"
    SPLAT = "splat"


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


def sniff(data: bytes, path: str = STDIO) -> Format:
    """What ``data`` is, by its first bytes, and for ``.splat``, which has no mark, by its name.

    Raises :class:`SplatError` where neither tells.
    """
    if data[:3] == b"ply":
        return Format.PLY
    if data[:4] == b"\x28\xb5\x2f\xfd":
        return Format.SUBNET
    if data[:2] == b"\x1f\x8b" or data[:4] == b"NGSP":
        return Format.NIANTIC
    if path.lower().endswith(".splat"):
        return Format.SPLAT
    raise SplatError("neither PLY, nor SPZ of the subnet or Niantic's, nor named .splat")


def decode(data: bytes, kind: Format, limits: Limits | None = None) -> Splats:
    """Read ``data`` as ``kind``. Raises :class:`SplatError` and :class:`MissingLibraryError`."""
    if kind in (Format.NIANTIC, Format.SPLAT):
        data = _exchange(data, "spz" if kind is Format.NIANTIC else "splat", "ply")
    return read_splat(data, limits or Limits())


def encode(splats: Splats, kind: Format) -> bytes:
    """Write ``splats`` as ``kind``; Niantic's SPZ in version 3, which every viewer reads.

    Raises :class:`SplatError` and :class:`MissingLibraryError`.
    """
    if kind is Format.SUBNET:
        return encode_spz(splats)
    if kind is Format.PLY:
        return write_ply(splats)
    return _exchange(write_ply(splats), "ply", "spz" if kind is Format.NIANTIC else "splat")


def format_for(path: str) -> Format:
    """The format that a name stands for. Raises :class:`SplatError` where it does not say."""
    match Path(path).suffix.lower():
        case ".ply":
            return Format.PLY
        case ".splat":
            return Format.SPLAT
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
            "this format needs the library gaussforge: pip install 'sn17[exchange]'"
        ) from error
    with _stdout_to_stderr():
        answer: dict[str, Any] = GaussForge().convert(data, source, target, spz_version=3)
    if "error" in answer:
        raise SplatError(str(answer["error"]))
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
