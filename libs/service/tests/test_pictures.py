from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sn17_service.pictures import Picture, read_picture


def made(kind: str, width: int = 17, height: int = 5, **options: object) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(target, kind, **options)
    return target.getvalue()


PICTURES = {
    "png": made("PNG"),
    "jpeg": made("JPEG"),
    "progressive": made("JPEG", progressive=True, comment=b"x" * 3000),
    "webp": made("WEBP"),
    "lossless": made("WEBP", lossless=True),
    "extended": made("WEBP", exif=b"Exif\0\0"),
}
KINDS = {"progressive": "jpeg", "lossless": "webp", "extended": "webp"}


@settings(deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP"]), st.integers(1, 3000), st.integers(1, 40))
def test_sizes_are_those_that_were_written(kind: str, width: int, height: int) -> None:
    assert read_picture(made(kind, width, height)) == Picture(kind.lower(), width, height)


@settings(deadline=None)
@given(st.binary(max_size=80), st.sampled_from(sorted(PICTURES)), st.integers(1, 300))
def test_any_bytes_are_a_picture_with_a_size_or_none(noise: bytes, kind: str, at: int) -> None:
    whole = PICTURES[kind]
    assert read_picture(whole) == Picture(KINDS.get(kind, kind), 17, 5)
    for data in (noise, whole[:at], whole[:at] + noise + whole[at:], whole[:12] + noise):
        found = read_picture(data)
        assert found is None or (found.width > 0 and found.height > 0)


def test_other_kinds_are_none() -> None:
    assert read_picture(made("GIF")) is None
    assert read_picture(made("BMP")) is None
    assert read_picture(b"") is None
