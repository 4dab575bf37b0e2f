"""Draw docs/assets.png: what the bundled checkpoint makes of prompts that its training never saw.

    python dev/tools/gallery.py [OUTPUT]

The fixer's renderer draws them with the validator's camera, at the checkpoint's own sampling.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sn17_contract.metrics import GenerationKind
from sn17_fixer.render.camera import validator_camera
from sn17_fixer.render.scene import render, to_bytes, validator_model
from sn17_splats import Splats
from sn17_trellis.backend import Job
from sn17_trellis.torch_backend import TorchBackend, TorchConfig

PROMPTS = (
    "a small orange wedge on a blue block",
    "three large blue pyramids on a brown table",
    "a large green capsule on an orange block",
    "a brown diamond on a cyan plate",
    "a small cyan star on a green table",
    "three large green spheres on an orange plate",
)
VIEW, SIZE, CAPTION, COLUMNS = 13, 300, 28, 3


def picture(splats: Splats, prompt: str) -> Image.Image:
    """One view with its prompt below."""
    pixels, _ = render(validator_model(splats), validator_camera(VIEW, SIZE))
    card = Image.new("RGB", (SIZE, SIZE + CAPTION), "white")
    card.paste(Image.fromarray(np.asarray(to_bytes(pixels))))
    ImageDraw.Draw(card).text(
        (SIZE // 2, SIZE + CAPTION // 2), prompt, "black", ImageFont.load_default(13), anchor="mm"
    )
    return card


def main() -> None:
    output = (
        Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2] / "docs/assets.png"
    )
    backend = TorchBackend(TorchConfig(device="cpu"))
    backend.load()
    rows = -(-len(PROMPTS) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIZE, rows * (SIZE + CAPTION)), "white")
    for index, prompt in enumerate(PROMPTS):
        started = time.monotonic()
        job = Job(GenerationKind.TASK, index, prompt=prompt)
        splats = backend.generate(job, lambda *_: None, lambda: False).asset
        assert isinstance(splats, Splats)
        print(f"{prompt}: {len(splats):,} gaussians, {time.monotonic() - started:.1f} s", flush=True)
        row, column = divmod(index, COLUMNS)
        sheet.paste(picture(splats, prompt), (column * SIZE, row * (SIZE + CAPTION)))
    sheet.save(output, optimize=True)


if __name__ == "__main__":
    main()
