"""Background removal for images without transparency: `rembg` with u2net, as the reference uses it."""

from __future__ import annotations

import logging

import numpy as np
from PIL import Image

from sn17_trellis.engine.conditioning import BackgroundRemover, RgbaImage

MODEL = "u2net"
LONGEST_SIDE = 1024
"""Larger pictures are shrunk first: the model itself looks at 320 pixels."""

log = logging.getLogger("sn17.trellis.engine")


def rembg_remover() -> BackgroundRemover | None:
    """Removal by `rembg` (the `background` extra), or None, saying why, where it cannot be had.

    The model file is not downloaded here: a worker asks the network for nothing when it starts.
    """
    try:
        import rembg  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from rembg.sessions.u2net import U2netSession  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        log.warning(
            "image tasks: pictures without an alpha channel, all photographs that is, will be refused:"
            " the 'background' extra is not installed (%s)",
            error.name,
        )
        return None
    if U2netSession.resolve_existing(f"{MODEL}.onnx") is None:
        home = U2netSession.model_dir()
        log.warning(
            "image tasks: pictures without an alpha channel, all photographs that is, will be refused:"
            " no %s.onnx in %s; rembg.new_session(%r) fetches it",
            *(MODEL, home, MODEL),
        )
        return None
    session = rembg.new_session(MODEL)

    def remove(image: RgbaImage) -> RgbaImage:
        picture = Image.fromarray(image, "RGBA").convert("RGB")
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        return np.asarray(rembg.remove(picture, session=session).convert("RGBA"))

    return remove
