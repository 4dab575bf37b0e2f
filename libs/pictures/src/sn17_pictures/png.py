"""PNG's chunks, walked without decoding anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_SIGNATURE: Final = 8
_TEXT: Final = (b"tEXt", b"zTXt", b"iTXt")


@dataclass(frozen=True, slots=True)
class PngLayout:
    """The file without its text, and what the walk saw.

    ``bits`` are those of one sample (1 to 16), 0 where the header is missing; ``whole`` says that the end
    chunk is there; ``text_bytes`` counts the text chunks as they lie in the file; ``apple`` names the
    variant with a ``CgBI`` chunk, which is no PNG for anybody but Apple.
    """

    content: bytes
    bits: int
    whole: bool
    text_bytes: int
    apple: bool


def walk_png(data: bytes) -> PngLayout:
    """Leave out text chunks: they say nothing about pixels, and unpacking them may cost any amount."""
    kept = bytearray(data[:_SIGNATURE])
    text, bits = 0, 0
    apple = whole = False
    for kind, chunk in _chunks(data):
        if kind in _TEXT:
            text += len(chunk)
            continue
        if kind == b"IHDR" and len(chunk) >= 17:
            bits = chunk[16]
        apple = apple or kind == b"CgBI"
        whole = kind == b"IEND" and len(chunk) >= 12
        kept += chunk
        if whole:
            break
    return PngLayout(bytes(kept), bits, whole, text, apple)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and bytes of each chunk, length and checksum included; the last one may be cut short."""
    at = _SIGNATURE
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], data[at:end]
        at = end
