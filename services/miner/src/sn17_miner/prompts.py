"""Optional, conservative enhancement of what workers get; signatures and journal keep the original."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
from dataclasses import dataclass
from typing import Final

from sn17_contract.tasks import Enhancement, TaskKind

from sn17_miner.core.images import image_bytes
from sn17_miner.core.records import Task

log = logging.getLogger("sn17.miner.prompts")

MAX_PROMPT: Final = 1024
MAX_PIXELS: Final = 40_000_000
MIN_SIDE: Final = 512


@dataclass(frozen=True, slots=True)
class Change:
    """``prompt`` goes to the worker; for images it is base64 again."""

    kind: Enhancement
    prompt: str
    detail: str


@dataclass(frozen=True, slots=True)
class Enhancer:
    """Which validators' prompts are enhanced, and how; ``*`` names all."""

    text_validators: frozenset[str]
    image_validators: frozenset[str]
    template: str

    async def enhance(self, task: Task) -> Change | None:
        """The change to make, or None. A gateway's client gets what it asked for."""
        if task.assignment is not None:
            return None
        wanted = self.text_validators if task.kind is TaskKind.TEXT else self.image_validators
        if task.validator not in wanted and "*" not in wanted:
            return None
        if task.kind is TaskKind.TEXT:
            return enhance_text(task.prompt, self.template)
        return await asyncio.to_thread(enhance_image, task.prompt)


def enhance_text(prompt: str, template: str) -> Change | None:
    """Tidy white space and the final full stop, then fill the template; None when it would not fit."""
    tidy = " ".join(prompt.split()).rstrip(".")
    result = template.replace("{prompt}", tidy)
    if not tidy or result == prompt or len(result) > MAX_PROMPT:
        return None
    return Change(Enhancement.TEXT, result, f"{prompt[:200]!r} -> {result[:400]!r}")


def enhance_image(prompt: str) -> Change | None:
    """Show it as viewers do (turned, in sRGB) and enlarge what is small; None when nothing helps.

    Transparency stays: it says what is object and what is background. An image that cannot be read is left to
    the worker, whose refusal is the answer that counts.
    """
    from PIL import Image
    from sn17_pictures import PictureError, decode_picture

    try:
        decoded = decode_picture(image_bytes(prompt), MAX_PIXELS)
    except PictureError as error:
        log.info("an image prompt goes to the worker as it is: %s", error)
        return None
    except ValueError:
        return None
    image = decoded.image
    steps = [change for change in decoded.changes if not change.startswith("colour profile ignored")]
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
    return Change(Enhancement.IMAGE, base64.b64encode(out.getvalue()).decode(), ", ".join(steps))
