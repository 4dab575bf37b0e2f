"""Which generator a local stack runs, and what fits it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import typer

MIB: Final = 1024 * 1024
NEEDED_BY_TORCH: Final = ("torch", "transformers", "safetensors")


@dataclass(frozen=True, slots=True)
class Fit:
    """What a local stack with this generator takes where nothing else is said.

    ``time_scale`` leaves the generator time enough within the subnet's scaled time limits. ``gaussians`` is
    what a healthy worker's assets have about, ``leak_mib`` how fast the demo's faulty worker fills
    ``memory_limit_bytes``.
    """

    time_scale: float
    gaussians: int
    image_ratio: float
    memory_limit_bytes: int
    leak_mib: int


FITS: Final = {
    "procedural": Fit(0.01, 100_000, 0.2, 1024 * MIB, 80),
    # The bundled checkpoint takes prompts only, and about ten seconds of two cores for each.
    "torch": Fit(0.1, 50_000, 0.0, 3072 * MIB, 500),
}


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def choose(asked: str | None, installed: Callable[[str], bool] = _installed) -> str:
    """The generator asked for; else torch where all it needs is installed.

    Raises:
        typer.BadParameter: there is no such generator, or what it needs is not installed.
    """
    missing = [module for module in NEEDED_BY_TORCH if not installed(module)]
    if asked is None:
        return "procedural" if missing else "torch"
    if asked not in FITS:
        raise typer.BadParameter(f"{asked!r} is none of {', '.join(FITS)}", param_hint="--backend")
    if asked == "torch" and missing:
        raise typer.BadParameter(
            f"torch needs {', '.join(missing)}: uv sync --inexact --package sn17 --extra torch",
            param_hint="--backend",
        )
    return asked
