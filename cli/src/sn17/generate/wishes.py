"""What is to be made and where it goes."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sn17_splats import SplatError

from sn17.splat.formats import STDIO
from sn17.splat.saving import format_of
from sn17.splat.sniffing import Format

_SLUG_LENGTH: Final = 40


class WishError(ValueError):
    """What was asked for makes no sense; the message says what to give."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A prompt or a picture (the bytes of its file), the seed if it matters, and the output's name."""

    prompt: str | None
    image: bytes | None
    seed: int | None
    output: str
    kind: Format

    @property
    def digest(self) -> str:
        """The same for wishes that ask for the same thing."""
        image = None if self.image is None else hashlib.sha256(self.image).hexdigest()
        return hashlib.sha256(json.dumps([self.prompt, image, self.seed]).encode()).hexdigest()

    @property
    def title(self) -> str:
        """For people."""
        return self.prompt if self.prompt is not None else "the picture"


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command."""

    prompt: str | None
    image: Path | None
    prompts: str | None
    seed: int | None
    output: str | None
    spz: bool


def wishes_of(asked: Asked) -> list[Wish]:
    """One wish, or one for each line of a file.

    Raises:
        WishError: not exactly one source of prompts, or an output that does not fit.
        OSError: a file or folder cannot be used.
    """
    given = [value for value in (asked.prompt, asked.image, asked.prompts) if value is not None]
    if len(given) != 1:
        raise WishError("give one of: a prompt, --image FILE, --prompts FILE")
    if asked.prompts is not None:
        return _several(asked, lines_of(asked.prompts))
    image = None if asked.image is None else asked.image.read_bytes()
    ending = "spz" if asked.spz else "ply"
    name = asked.output or f"{slug(asked.prompt or Path(str(asked.image)).stem)}.{ending}"
    if name != STDIO and Path(name).is_dir():
        name = str(Path(name) / f"{slug(asked.prompt or Path(str(asked.image)).stem)}.{ending}")
    kind = _kind(name, asked.spz)
    if name != STDIO and not Path(name).parent.is_dir():
        raise WishError(f"the folder {Path(name).parent} does not exist: make it, or choose another")
    return [Wish(asked.prompt, image, asked.seed, name, kind)]


def lines_of(source: str) -> list[str]:
    """Prompts of a file, one a line; blank lines and those that begin with # are none.

    Raises:
        WishError: it holds no prompt, or is no text.
        OSError: it cannot be read.
    """
    try:
        text = sys.stdin.read() if source == STDIO else Path(source).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise WishError(f"{source} is no text in UTF-8") from error
    found = [line.strip() for line in text.splitlines()]
    prompts = [line for line in found if line and not line.startswith("#")]
    if not prompts:
        raise WishError(f"{source} holds no prompt: write one a line")
    return prompts


def slug(text: str) -> str:
    """A short file name that reads like the text."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_SLUG_LENGTH].strip("-")
    return plain or "asset"


def _several(asked: Asked, prompts: list[str]) -> list[Wish]:
    folder = Path(asked.output or ".")
    if asked.output == STDIO or (folder.exists() and not folder.is_dir()):
        raise WishError(f"{asked.output}: several prompts need a folder: give one with -o")
    folder.mkdir(parents=True, exist_ok=True)
    ending, digits = "spz" if asked.spz else "ply", max(3, len(str(len(prompts))))
    return [
        Wish(
            prompt, None, asked.seed, str(folder / f"{n:0{digits}}-{slug(prompt)}.{ending}"), _format(ending)
        )
        for n, prompt in enumerate(prompts, 1)
    ]


def _format(ending: str) -> Format:
    return Format.SUBNET if ending == "spz" else Format.PLY


def _kind(name: str, spz: bool) -> Format:
    if name == STDIO:
        return _format("spz" if spz else "ply")
    try:
        kind = format_of(name)
    except SplatError as error:
        raise WishError(str(error)) from error
    if spz and kind is not Format.SUBNET:
        raise WishError(f"{name} and --spz contradict each other: end the name in .spz")
    return kind
