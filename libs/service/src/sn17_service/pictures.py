"""Kind and size of a picture from its first bytes: nothing is decoded, so nothing can grow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_PNG: Final = b"\x89PNG\r\n\x1a\n"
#: Start-of-frame codes of JPEG: all of C0..CF but DHT, JPG and DAC.
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True, slots=True)
class Picture:
    kind: str
    width: int
    height: int


def read_picture(data: bytes) -> Picture | None:
    """PNG, JPEG or WebP; None for anything else and for a header that is cut short."""
    if data.startswith(_PNG):
        return _of_png(data)
    if data.startswith(b"\xff\xd8\xff"):
        return _of_jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _of_webp(data)
    return None


def _of_png(data: bytes) -> Picture | None:
    if len(data) < 33 or data[12:16] != b"IHDR":
        return None
    return _sized("png", int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))


def _of_jpeg(data: bytes) -> Picture | None:
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        code = data[at + 1]
        if code == 0xFF:
            at += 1
        elif code in _JPEG_ALONE:
            at += 2
        elif code in _JPEG_FRAMES:
            return _sized(
                "jpeg", int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
            )
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4]))
    return None


def _of_webp(data: bytes) -> Picture | None:
    if len(data) < 30:
        return None
    match data[12:16]:
        case b"VP8X":
            return _sized(
                "webp", 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
            )
        case b"VP8L" if data[20] == 0x2F:
            bits = int.from_bytes(data[21:25], "little")
            return _sized("webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        case b"VP8 " if data[23:26] == b"\x9d\x01\x2a":
            width, height = data[26:28], data[28:30]
            return _sized(
                "webp", int.from_bytes(width, "little") & 0x3FFF, int.from_bytes(height, "little") & 0x3FFF
            )
    return None


def _sized(kind: str, width: int, height: int) -> Picture | None:
    return Picture(kind, width, height) if width and height else None
