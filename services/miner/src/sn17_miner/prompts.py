"""Optional, conservative enhancement of what workers get; signatures and journal keep the original."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
from dataclasses import dataclass
from typing import Final

from sn17_miner.core.records import Task

MAX_PROMPT: Final = 1024
MAX_PIXELS: Final = 40_000_000
MIN_SIDE: Final = 512


@dataclass(frozen=True, slots=True)
class Change:
    """``prompt`` goes to the worker; for images it is base64 again."""

    kind: str
    prompt: str
    detail: str


@dataclass(frozen=True, slots=True)
class Enhancer:
    """Which validators' prompts are enhanced, and how; ``*`` names all."""

    text_validators: frozenset[str]
    image_validators: frozenset[str]
    template: str

    async def enhance(self, task: Task) -> Change | None:
        """The change to make, or None."""
        wanted = self.text_validators if task.kind == "text" else self.image_validators
        if task.validator not in wanted and "*" not in wanted:
            return None
        if task.kind == "text":
            return enhance_text(task.prompt, self.template)
        return await asyncio.to_thread(enhance_image, task.prompt)


def enhance_text(prompt: str, template: str) -> Change | None:
    """Tidy white space and the final full stop, then fill the template; None when it would not fit."""
    tidy = " ".join(prompt.split()).rstrip(".")
    result = template.replace("{prompt}", tidy)
    if not tidy or result == prompt or len(result) > MAX_PROMPT:
        return None
    return Change("text", result, f"{prompt[:200]!r} -> {result[:400]!r}")


def enhance_image(prompt: str) -> Change | None:
    """Turn as the camera held it, put transparency on white, enlarge what is small; None when nothing helps.

    An image that can not be read is left to the worker, whose refusal is the answer that counts.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(base64.b64decode(prompt, validate=True))) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                return None
            image: Image.Image = ImageOps.exif_transpose(opened)
            steps = ["turned"] if image.size != opened.size else []
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                layer = image.convert("RGBA")
                white = Image.new("RGBA", layer.size, "white")
                image = Image.alpha_composite(white, layer)
                steps.append("on white")
            image = image.convert("RGB")
    except (OSError, ValueError, binascii.Error, SyntaxError, Image.DecompressionBombError):
        return None
    side = max(image.size)
    if side < MIN_SIDE:
        factor = MIN_SIDE / side
        size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
        image = image.resize(size, Image.Resampling.LANCZOS)
        steps.append(f"enlarged {factor:.1f} times")
    if not steps:
        return None
    out = io.BytesIO()
    image.save(out, "PNG")
    return Change("image", base64.b64encode(out.getvalue()).decode(), ", ".join(steps))
