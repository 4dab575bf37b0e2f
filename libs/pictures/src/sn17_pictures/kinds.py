"""What a file is, told by its first bytes; its name and its media type are never believed."""

from __future__ import annotations

import json
from typing import Final

ACCEPTED: Final = ("PNG", "JPEG", "WEBP")
"""Formats that are decoded, by Pillow's names."""

_STARTS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x89PNG", "PNG"),
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
    (b"glTF", "binary glTF"),
    (b"ply\n", "PLY"),
    (b"ply\r\n", "PLY"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"\x80\x02", "Python pickle"),
    (b"\x80\x03", "Python pickle"),
    (b"\x80\x04", "Python pickle"),
    (b"\x80\x05", "Python pickle"),
    (b"\x93NUMPY", "NumPy"),
    (b"solid ", "STL"),
    (b"SQLite format 3\0", "SQLite"),
    (b"\x7fELF", "ELF"),
    (b"P1", "Netpbm"),
    (b"P2", "Netpbm"),
    (b"P3", "Netpbm"),
    (b"P4", "Netpbm"),
    (b"P5", "Netpbm"),
    (b"P6", "Netpbm"),
)
_TEXTS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"version https://git-lfs", "Git LFS pointer"),
    (b"<svg", "SVG"),
    (b"<!doctype html", "HTML"),
    (b"<html", "HTML"),
    (b"data:image", "data URI in text"),
)
_HEAD_BYTES: Final = 16 * 1024
_PHRASES: Final = {
    "PNG": "a PNG picture",
    "JPEG": "a JPEG picture",
    "WEBP": "a WebP picture",
    "ZIP": "a zip archive",
    "gzip": "a gzip archive",
    "7-Zip": "a 7-Zip archive",
    "glTF": "a glTF file",
    "HTML": "a web page",
    "NumPy": "a NumPy array",
    "Python pickle": "a Python pickle",
    "Git LFS pointer": "a Git LFS pointer (the file itself was not fetched: git lfs pull)",
    "base64 text": "base64 text",
    "data URI in text": "a data URI in text",
    "text": "a text file",
    "SQLite": "an SQLite database",
    "ELF": "a program",
}
_AN: Final = "AEFHILMNORSX"
"""Letters whose names begin with a vowel."""
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
    return _of_text(data[:_HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n"))


def phrase_of(data: bytes) -> str | None:
    """What a file is, for a sentence such as "this is a web page"; None for what is not known."""
    if not data:
        return "an empty file"
    name = name_of(data)
    if name is None or name in _PHRASES:
        return None if name is None else _PHRASES[name]
    initials = name.partition(" ")[0].isupper()
    article = "an" if (initials and name[0] in _AN) or name[0] in "AEIO" else "a"
    return f"{article} {name} file"


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
    if head[:1] == b"<":
        return "SVG" if b"<svg" in lower else "HTML" if b"<html" in lower else "XML"
    if head[:1] in (b"{", b"["):
        return "text" if not _is_json(head) else "glTF" if b'"asset"' in head else "JSON"
    return None


def _is_json(text: bytes) -> bool:
    """Of the beginning of a longer file nothing else can be said than that it may be."""
    try:
        json.loads(text)
    except ValueError:
        return len(text) >= _HEAD_BYTES - 64
    return True
