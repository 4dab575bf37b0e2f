"""Picture files of every kind, made on the spot, each with the pixels that a viewer shows."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

Pixels = NDArray[np.uint8]
ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Sample:
    """``expected`` is RGBA (h, w, 4) or RGB (h, w, 3); ``tolerance`` is the largest difference allowed."""

    name: str
    data: bytes
    expected: Pixels
    tolerance: int = 1


def quarters(side: int = 32) -> Pixels:
    """Four colours, so that every turn shows: red, green over blue, yellow; not square."""
    pixels = np.zeros((side, side * 2, 3), np.uint8)
    half = side // 2
    pixels[:half, :side] = (200, 30, 40)
    pixels[:half, side:] = (40, 180, 60)
    pixels[half:, :side] = (50, 60, 210)
    pixels[half:, side:] = (230, 220, 70)
    return pixels


def ramp() -> Pixels:
    """Grey 0 to 255 in 256 columns."""
    return np.tile(np.arange(256, dtype=np.uint8), (4, 1))


def grey(levels: Pixels) -> Pixels:
    return np.repeat(levels[..., None], 3, axis=2)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def raw_png(width: int, height: int, bits: int, colour: int, rows: list[bytes], *extra: bytes) -> bytes:
    """A PNG written by hand: what Pillow cannot write."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), *extra, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    )


def packed(samples: NDArray[np.integer], bits: int) -> list[bytes]:
    """Rows of samples of 1, 2, 4, 8 or 16 bits."""
    if bits == 16:
        return [row.astype(">u2").tobytes() for row in samples]
    planes = ((samples[..., None] >> np.arange(bits - 1, -1, -1)) & 1).reshape(len(samples), -1)
    return [np.packbits(row.astype(np.uint8)).tobytes() for row in planes]


def with_chunk(data: bytes, *chunks: bytes) -> bytes:
    """Insert chunks behind a PNG's header."""
    return data[:33] + b"".join(chunks) + data[33:]


def orientations() -> Iterator[Sample]:
    pixels = quarters()
    turned = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1],
        5: pixels.transpose(1, 0, 2), 6: np.rot90(pixels, -1), 7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels),
    }  # fmt: skip
    for kind, options in (
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
    ):
        for number, expected in turned.items():
            exif = Image.Exif()
            exif[ORIENTATION] = number
            data = saved(Image.fromarray(pixels), kind, exif=exif, **options)
            yield Sample(f"{kind}-orientation-{number}", data, expected, 8 if kind == "JPEG" else 0)
    for name, value in (("0", 0), ("9", 9)):
        exif = Image.Exif()
        exif[ORIENTATION] = value
        yield Sample(f"png-orientation-{name}", saved(Image.fromarray(pixels), exif=exif), pixels, 0)
    broken = saved(Image.fromarray(pixels), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    yield Sample("png-broken-exif", broken, pixels, 0)


def depths() -> Iterator[Sample]:
    for bits in (1, 2, 4, 8, 16):
        most = (1 << bits) - 1
        samples = np.tile(np.linspace(0, most, 32).round().astype(np.int64), (4, 1))
        levels = (samples * 255 / most).round().astype(np.uint8)
        rows = packed(samples, bits)
        yield Sample(f"grey-{bits}", raw_png(32, 4, bits, 0, rows), grey(levels))
        key = int(samples[0, -1])
        alpha = np.where(samples == key, 0, 255).astype(np.uint8)
        clear = raw_png(32, 4, bits, 0, rows, chunk(b"tRNS", struct.pack(">H", key)))
        yield Sample(f"grey-{bits}-one-level-clear", clear, np.dstack([grey(levels), alpha]))
    for bits in (1, 2, 4, 8):
        samples = np.tile(np.arange(32) % (1 << bits), (4, 1))
        colours = np.array(
            [(i * 7 % 256, 255 - i * 5 % 256, i * 3 % 256) for i in range(1 << bits)], np.uint8
        )
        palette = chunk(b"PLTE", colours.tobytes())
        rows = packed(samples, bits)
        yield Sample(f"palette-{bits}", raw_png(32, 4, bits, 3, rows, palette), colours[samples], 0)
        alphas = np.full(1 << bits, 255, np.uint8)
        alphas[0] = 60
        clear = raw_png(32, 4, bits, 3, rows, palette, chunk(b"tRNS", alphas[:1].tobytes()))
        yield Sample(f"palette-{bits}-clear", clear, np.dstack([colours[samples], alphas[samples]]), 0)
    wide = np.repeat(np.linspace(0, 65535, 32).round().astype(np.int64)[None, :, None], 3, axis=2)
    levels = (wide / 257).round().astype(np.uint8)
    yield Sample("rgb-16", raw_png(32, 1, 16, 2, packed(wide.reshape(1, -1), 16)), levels)
    rgba = np.dstack([wide, wide[..., :1]])
    yield Sample(
        "rgba-16", raw_png(32, 1, 16, 6, packed(rgba.reshape(1, -1), 16)), np.dstack([levels, levels[..., 0]])
    )
    ga = np.dstack([wide[..., 0], wide[..., 0][:, ::-1]])
    yield Sample(
        "grey-alpha-16", raw_png(32, 1, 16, 4, packed(ga.reshape(1, -1), 16)),
        np.dstack([levels, levels[:, ::-1, 0]]),
    )  # fmt: skip
    pixels = quarters()
    red = np.where((pixels == (200, 30, 40)).all(axis=2), 0, 255).astype(np.uint8)
    key8 = with_chunk(saved(Image.fromarray(pixels)), chunk(b"tRNS", struct.pack(">HHH", 200, 30, 40)))
    yield Sample("rgb-8-one-colour-clear", key8, np.dstack([pixels, red]), 0)
    straight = np.dstack([pixels, np.full(pixels.shape[:2], 90, np.uint8)])
    yield Sample("rgba-8", saved(Image.fromarray(straight)), straight, 0)
    yield Sample(
        "webp-rgba", saved(Image.fromarray(straight), "WEBP", lossless=True, exact=True), straight, 0
    )


def colours() -> Iterator[Sample]:
    pixels = quarters()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for kind in ("PNG", "JPEG", "WEBP"):
        options: dict[str, object] = (
            {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0}
        )
        image = Image.fromarray(pixels)
        yield Sample(f"{kind}-srgb-profile", saved(image, kind, icc_profile=srgb, **options), pixels, 8)
        swapped = saved(image, kind, icc_profile=swapped_profile(srgb), **options)
        yield Sample(f"{kind}-profile-that-swaps-red-and-blue", swapped, pixels[..., ::-1], 12)
    yield Sample("profile-of-another-space", saved(Image.fromarray(pixels), icc_profile=lab), pixels, 0)
    yield Sample("profile-of-garbage", saved(Image.fromarray(pixels), icc_profile=b"x" * 200), pixels, 0)
    plain = saved(Image.fromarray(ramp()))
    for gamma, exponent in ((0.45455, 1.0), (1.0, 1 / 2.2), (0.55, 1 / 1.21), (0.3, 1 / 0.66)):
        levels = (255 * (ramp() / 255) ** exponent).round().astype(np.uint8)
        tagged = with_chunk(plain, chunk(b"gAMA", struct.pack(">I", round(gamma * 100000))))
        yield Sample(f"gamma-{gamma}", tagged, grey(levels))
    both = with_chunk(plain, chunk(b"sRGB", b"\0"), chunk(b"gAMA", struct.pack(">I", 100000)))
    yield Sample("srgb-chunk-before-gamma", both, grey(ramp()), 0)
    cmyk = Image.fromarray(pixels).convert("CMYK")
    yield Sample("jpeg-cmyk", saved(cmyk, "JPEG", quality=95), np.asarray(cmyk.convert("RGB")), 8)
    yield Sample("jpeg-grey", saved(Image.fromarray(ramp()), "JPEG", quality=95), grey(ramp()), 4)
    yield Sample("jpeg-progressive", saved(Image.fromarray(pixels), "JPEG", quality=95, progressive=True,
                                           subsampling=0), pixels, 8)  # fmt: skip


def swapped_profile(srgb: bytes) -> bytes:
    """An sRGB profile whose red and blue primaries have changed places in its table of tags."""
    return srgb.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")


def metadata() -> Iterator[Sample]:
    pixels = quarters()
    for name, compressed, size in (("plain", False, 1_500_000), ("packed", True, 3_000_000)):
        info = PngInfo()
        info.add_text("workflow", "x" * size, zip=compressed)
        yield Sample(f"png-text-{name}", saved(Image.fromarray(pixels), pnginfo=info), pixels, 0)
    info = PngInfo()
    info.add_itxt("Comment", "ü" * 800_000)
    yield Sample("png-text-utf8", saved(Image.fromarray(pixels), pnginfo=info), pixels, 0)
    no_end = saved(Image.fromarray(pixels))[:-12]
    yield Sample("png-whole-but-for-its-end-chunk", no_end, pixels, 0)
    comment = saved(Image.fromarray(pixels), "JPEG", quality=95, subsampling=0, comment=b"y" * 60_000)
    yield Sample("jpeg-comment", comment, pixels, 8)


def samples() -> list[Sample]:
    return [*orientations(), *depths(), *colours(), *metadata()]


def refusals() -> list[tuple[str, bytes, tuple[str, ...]]]:
    """Name, file, and what the sentence must say."""
    noise = np.random.default_rng(7).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    cut = [
        (f"{kind}-cut-at-{share}", whole[: len(whole) * share // 100], (kind, "cut short"))
        for kind in ("PNG", "JPEG", "WEBP")
        for whole in [saved(image, kind)]
        for share in (20, 50, 90)
    ]
    others = [
        (kind, saved(image, kind), (name, "send PNG, JPEG, WEBP"))
        for kind, name in (("GIF", "GIF"), ("TIFF", "TIFF"), ("BMP", "BMP"), ("ICO", "ICO"), ("AVIF", "AVIF"),
                           ("JPEG2000", "JPEG 2000"), ("PPM", "Netpbm"), ("PDF", "PDF"))
    ]  # fmt: skip
    info = PngInfo()
    info.add_text("a", "x" * 9_000_000)
    good = saved(image)
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 0xFF
    return [
        *cut,
        *others,
        ("svg", b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", ("SVG",)),
        ("html", b"<!DOCTYPE html><html>404</html>", ("HTML",)),
        ("base64", b"iVBORw0KGgoAAAANSUhEUg==", ("base64 text",)),
        ("lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ("Git LFS pointer",)),
        ("heic", b"\0\0\0\x18ftypheic\0\0\0\0", ("HEIC",)),
        ("jxl", b"\xff\x0a" + bytes(40), ("JPEG XL",)),
        ("unknown", b"\x01\x02\x03\x04" * 10, ("no picture",)),
        ("empty", b"", ("empty",)),
        ("text-metadata", saved(image, pnginfo=info), ("text metadata", "at most")),
        ("apple", with_chunk(good, chunk(b"CgBI", b"\0\0\0\2")), ("CgBI",)),
        ("damaged", bytes(damaged), ("PNG", "damaged")),
    ]
