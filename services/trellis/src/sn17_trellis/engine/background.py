"""Background removal for images without transparency: `rembg` with u2net, as the reference uses it."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sn17_trellis.engine.conditioning import BackgroundRemover, RgbaImage

MODEL = "u2net"
LONGEST_SIDE = 1024
"""Larger pictures are shrunk first: the model itself looks at 320 pixels."""


def rembg_remover() -> BackgroundRemover | str:
    """Removal by `rembg` (the `background` extra), or what is missing for it.

    The model file is not downloaded here: a worker asks the network for nothing when it starts.
    """
    try:
        import rembg  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from rembg.sessions.u2net import U2netSession  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        return f"the 'background' extra is not installed ({error.name})"
    if U2netSession.resolve_existing(f"{MODEL}.onnx") is None:
        home = U2netSession.model_dir()
        return f"no {MODEL}.onnx in {home}; rembg.new_session({MODEL!r}) fetches it"
    session = rembg.new_session(MODEL)

    def remove(image: RgbaImage) -> RgbaImage:
        picture = Image.fromarray(image, "RGBA").convert("RGB")
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        return np.asarray(rembg.remove(picture, session=session).convert("RGBA"))

    return remove
