"""Bytes to upright sRGB pixels with straight alpha."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Final

from PIL import Image, UnidentifiedImageError

from sn17_pictures.colour import to_srgb
from sn17_pictures.kinds import ACCEPTED, name_of
from sn17_pictures.png import walk_png

MAX_METADATA_BYTES: Final = 8 * 1024**2
"""Text chunks beside the pixels; they are skipped, never unpacked."""
_ORIENTATION: Final = 0x0112
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DAMAGE: Final = (
    OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, TypeError, struct.error,
    zlib.error,
)  # fmt: skip
"""What Pillow's readers raise on damaged files."""


class PictureError(ValueError):
    """The picture is refused; the message says what the file is and what is wrong with it."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """``image`` is RGBA where the file has transparency, else RGB; upright, in sRGB, alpha not premultiplied.

    ``format`` is one of ``ACCEPTED``; ``changes`` says what was done to the stored pixels: ``turned``,
    ``colour profile applied``, ``gamma applied``, ``colour profile ignored: ...``.
    """

    image: Image.Image
    format: str
    changes: tuple[str, ...]


def decode_picture(data: bytes, max_pixels: int, max_side: int | None = None) -> Decoded:
    """Decode a PNG, JPEG or WebP file; of an animation the first picture.

    The number of pixels is checked by the file's head, before any pixel is decoded. ``max_side`` (pixels)
    reduces larger pictures.

    Raises:
        PictureError: another format, damaged, cut short, or too large.
    """
    kind = _accepted(data)
    content, bits, whole = data, 8, True
    if kind == "PNG":
        layout = walk_png(data)
        if layout.apple:
            raise PictureError("the file is a PNG in Apple's own variant (CgBI); export it as a plain PNG")
        if layout.text_bytes > MAX_METADATA_BYTES:
            raise PictureError(
                f"the PNG holds {layout.text_bytes} bytes of text metadata; "
                f"at most {MAX_METADATA_BYTES} are taken: save it without metadata"
            )
        content, bits, whole = layout.content, layout.bits, layout.whole
    elif kind == "JPEG":
        whole = b"\xff\xd9" in data[-4096:]
    else:
        whole = len(data) >= 8 + int.from_bytes(data[4:8], "little")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=[kind]) as opened:
                return _decoded(opened, kind, bits, max_pixels, max_side)
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"the {kind} has too many pixels; at most {max_pixels} are taken") from error
    except _DAMAGE as error:
        if not whole or "truncated" in str(error).lower():
            raise PictureError(
                f"the {kind} file is cut short: it ends after {len(data)} bytes, "
                "before its picture does; send it again"
            ) from error
        raise PictureError(f"the {kind} file is damaged ({_reason(error)}); export it again") from error


def _accepted(data: bytes) -> str:
    kinds = ", ".join(ACCEPTED)
    if not data:
        raise PictureError(f"the image file is empty; send {kinds}")
    kind = name_of(data)
    if kind is None:
        raise PictureError(f"the file is no picture of a known format; send {kinds}")
    if kind not in ACCEPTED:
        raise PictureError(f"the file is {kind}, whatever its name says; send {kinds}")
    return kind


def _decoded(opened: Image.Image, kind: str, bits: int, max_pixels: int, max_side: int | None) -> Decoded:
    width, height = opened.size
    if width * height > max_pixels:
        raise PictureError(f"the image has {width} x {height} pixels; at most {max_pixels} are taken")
    if max_side is not None:
        opened.draft(None, (max_side, max_side))
    opened.load()
    turn = _TURNS.get(_orientation(opened))
    image, changes = to_srgb(opened, bits)
    if max_side is not None:
        image.thumbnail((max_side, max_side))
    if turn is not None:
        image = image.transpose(turn)
        changes = ("turned", *changes)
    return Decoded(image, kind, changes)


def _orientation(opened: Image.Image) -> int:
    """1 to 8; 1 where the metadata is broken: viewers show such a picture as it is stored."""
    try:
        value = opened.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) else 1


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "its head cannot be read"
    return " ".join(str(error).split())[:120] or type(error).__name__
