"""Any of Pillow's modes to RGB or RGBA in sRGB.

Precedence of colour descriptions as in PNG's specification, section 4.3: profile, sRGB chunk, gamma.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image, ImageCms

_DISPLAY_EXPONENT: Final = 2.2
_SAME_GAMMA: Final = 0.02
_SPACES: Final = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def to_srgb(opened: Image.Image, bits: int) -> tuple[Image.Image, tuple[str, ...]]:
    """RGB or RGBA (straight alpha) and what was applied; ``bits`` of one stored sample."""
    colour, alpha = _split(opened, bits)
    profile = opened.info.get("icc_profile")
    gamma = opened.info.get("gamma")
    changes: tuple[str, ...] = ()
    if profile:
        colour, change = _with_profile(colour, profile)
        changes = (change,)
    elif gamma and "srgb" not in opened.info and abs(gamma * _DISPLAY_EXPONENT - 1) > _SAME_GAMMA:
        colour = _with_gamma(colour.convert("RGB"), float(gamma))
        changes = ("gamma applied",)
    image = colour.convert("RGB")
    if alpha is not None:
        image.putalpha(alpha)
    return image, changes


def _split(opened: Image.Image, bits: int) -> tuple[Image.Image, Image.Image | None]:
    """Colour as L, RGB or CMYK, and alpha where the file has any."""
    transparent = opened.info.get("transparency")
    if opened.mode.startswith("I"):
        return _of_16_bits(opened, transparent)
    if opened.mode == "1":
        # Pillow gives the key of one-bit files as 0 or 255 already.
        colour = opened.convert("L")
        return colour, None if transparent is None else _keyed(colour, transparent, 8)
    if opened.mode in ("L", "RGB"):
        colour = opened.copy()
        return colour, None if transparent is None else _keyed(colour, transparent, bits)
    if opened.mode in ("LA", "RGBA") or (opened.mode in ("P", "PA") and _palette_alpha(opened)):
        rgba = opened.convert("RGBA")
        colour = opened.getchannel("L") if opened.mode == "LA" else rgba.convert("RGB")
        return colour, rgba.getchannel("A")
    if opened.mode == "CMYK":
        return opened.copy(), None
    return opened.convert("RGB"), None


def _palette_alpha(opened: Image.Image) -> bool:
    return (
        opened.mode == "PA"
        or "transparency" in opened.info
        or (opened.palette is not None and (opened.palette.mode == "RGBA"))
    )


def _of_16_bits(opened: Image.Image, transparent: object) -> tuple[Image.Image, Image.Image | None]:
    samples = np.asarray(opened).astype(np.uint32)
    colour = Image.fromarray(((samples * 255 + 32767) // 65535).astype(np.uint8))
    if not isinstance(transparent, int):
        return colour, None
    return colour, Image.fromarray(np.where(samples == transparent, 0, 255).astype(np.uint8))


def _keyed(colour: Image.Image, transparent: object, bits: int) -> Image.Image:
    """Alpha of a file that names one colour as transparent, in samples of the file's own depth."""
    pixels = np.asarray(colour)
    key = np.atleast_1d(np.asarray(transparent, dtype=np.int64))
    scaled = key >> 8 if bits == 16 else key * 255 // ((1 << bits) - 1)
    hidden = (pixels.reshape(*pixels.shape[:2], -1) == scaled).all(axis=-1)
    return Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8))


def _with_profile(colour: Image.Image, profile: bytes) -> tuple[Image.Image, str]:
    """Viewers show a picture without its profile when that does not fit; so do we, and say so."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space == "RGB" and colour.mode == "L":
            colour = colour.convert("RGB")
        if _SPACES.get(space) != colour.mode:
            return colour, f"colour profile ignored: it is for {space}, the picture is {colour.mode}"
        made = ImageCms.profileToProfile(
            colour,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return colour, "colour profile ignored: it cannot be read"
    assert made is not None
    return made, "colour profile applied"


def _with_gamma(colour: Image.Image, gamma: float) -> Image.Image:
    """``sample ** (1 / (gamma * 2.2))``: PNG's specification, section 13.13."""
    exponent = 1 / (gamma * _DISPLAY_EXPONENT)
    table = [round(255 * (value / 255) ** exponent) for value in range(256)]
    return colour.point(table * 3)
