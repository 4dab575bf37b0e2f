"""What a file is, told by its first bytes; its name and its media type are never believed."""

from __future__ import annotations

from typing import Final

ACCEPTED: Final = ("PNG", "JPEG", "WEBP")
"""Formats that are decoded, by Pillow's names."""

_STARTS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"BM", "BMP"),
    (b"\0\0\1\0", "ICO"),
    (b"8BPS", "Photoshop (PSD)"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"v/1\1", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"%PDF", "PDF"),
    (b"PK\3\4", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"glTF", "glTF"),
    (b"ply\n", "PLY"),
    (b"ply\r\n", "PLY"),
    (b"version https://git-lfs", "Git LFS pointer"),
    (b"P1", "Netpbm"),
    (b"P2", "Netpbm"),
    (b"P3", "Netpbm"),
    (b"P4", "Netpbm"),
    (b"P5", "Netpbm"),
    (b"P6", "Netpbm"),
)
_TEXTS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"<svg", "SVG"),
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
    (b"data:image", "data URI in text"),
    (b"{", "JSON"),
)
_BASE64: Final = (b"iVBORw0KGgo", b"/9j/", b"UklGR")
"""How PNG, JPEG and WebP begin in base64."""


def name_of(data: bytes) -> str | None:
    """One of ``ACCEPTED``, the usual name of another format, or None for what is not known."""
    if data[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"WAVE": "WAV", b"AVI ": "AVI"}.get(data[8:12])
    if data[4:8] == b"ftyp":
        return _of_box(data[8:12])
    for start, name in _STARTS:
        if data.startswith(start):
            return name
    return _of_text(data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n"))


def _of_box(brand: bytes) -> str:
    if brand in (b"avif", b"avis"):
        return "AVIF"
    if brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
        return "HEIC"
    return "MP4 or MOV"


def _of_text(head: bytes) -> str | None:
    if head.startswith(_BASE64):
        return "base64 text"
    lower = head.lower()
    for start, name in _TEXTS:
        if lower.startswith(start):
            return name
    if lower.startswith((b"<?xml", b"<!--", b"<!doctype svg")):
        return "SVG" if b"<svg" in lower else "XML"
    return None
