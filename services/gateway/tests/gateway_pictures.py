"""Pictures in the formats that clients send."""

from __future__ import annotations

import io

from PIL import Image


def picture(kind: str, width: int, height: int, **options: object) -> bytes:
    target = io.BytesIO()
    image = Image.new("RGB", (width, height), (200, 30, 30))
    image.save(target, kind, **options)
    return target.getvalue()


def png(width: int, height: int) -> bytes:
    return picture("PNG", width, height)


def jpeg(width: int, height: int) -> bytes:
    return picture("JPEG", width, height)


def webp(width: int, height: int, **options: object) -> bytes:
    return picture("WEBP", width, height, **options)


def gif() -> bytes:
    return picture("GIF", 8, 8)
