"""Splats for the benchmarks: real ones where they are at hand, and procedural ones made here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sn17_splats import Splats, decode_spz, read_splat
from sn17_splats.convention import SH_C0

REPOSITORY = Path(__file__).resolve().parents[4]
REAL = Path(os.environ.get("SN17_SPLATS", REPOSITORY / "../shared/data/splats"))
#: Normal distribution that fits the logits of the one real asset of the generator, censoring included.
ASSET_MEAN, ASSET_STD = 3.86, 2.78


def robocop() -> Splats:
    """The real asset of the generator; opacities that 8 bits cut off are drawn from the fitted tail."""
    splats = decode_spz((REAL / "robocop_404.spz").read_bytes())
    rng = np.random.default_rng(1)
    logits = splats.opacity_logits.copy()
    for cut in (np.isposinf(logits), np.isneginf(logits)):
        if cut.any():
            logits[cut] = _tail(rng, int(cut.sum()), upper=bool(logits[cut][0] > 0))
    return splats.replace(opacity_logits=logits)


def _tail(rng: np.random.Generator, count: int, *, upper: bool) -> np.ndarray:
    edge = 6.232  # where alpha rounds to 255 or to 0
    out = np.empty(0)
    while len(out) < count:
        drawn = rng.normal(ASSET_MEAN, ASSET_STD, 200_000)
        if upper:
            out = np.concatenate([out, drawn[drawn > edge]])
        else:
            out = np.concatenate([out, -edge - rng.exponential(0.5, count)])
    return out[:count].astype(np.float32)


def shell(kind: str, *, voxels: int = 64, block: int = 32, seed: int = 3) -> Splats:
    """A voxel shell as the generator makes them: 32 gaussians a voxel, log-scale floor, coloured smoothly.

    ``kind``: ``iid`` draws every logit by itself, ``smooth`` lets them vary over the surface.
    """
    rng = np.random.default_rng(seed)
    axis = (np.arange(voxels) + 0.5) / voxels - 0.5
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    ring = np.sqrt((np.sqrt(x**2 + z**2) - 0.34) ** 2 + y**2)
    field = np.minimum(ring - 0.13, np.maximum(np.abs(x), np.maximum(np.abs(y - 0.1), np.abs(z))) - 0.14)
    inside = np.pad(field < 0, 1)
    core = inside[1:-1, 1:-1, 1:-1]
    buried = np.ones_like(core)
    for shift in ((0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2)):
        buried &= inside[tuple(slice(s, s + voxels) for s in shift)]
    surface = np.argwhere(core & ~buried)
    n = len(surface) * block
    centres = np.repeat((surface + 0.5) / voxels - 0.5, block, axis=0)
    positions = centres + rng.uniform(-0.75, 0.75, (n, 3)) / voxels
    scales = np.log(np.sqrt(rng.gamma(2.0, 0.0018, (n, 3)) ** 2 + 9e-4**2))
    wave = np.stack([np.sin(9 * positions[:, i] + i) for i in range(3)], axis=1)
    if kind == "smooth":
        slow = (np.sin(7 * centres[:, 0]) + np.cos(8 * centres[:, 1]) + np.sin(6 * centres[:, 2] + 1)) / 1.22
        slow = (slow - slow.mean()) / slow.std()
        logits = ASSET_MEAN + ASSET_STD * (0.84 * slow + 0.54 * rng.normal(size=n))
    else:
        logits = rng.normal(ASSET_MEAN, ASSET_STD, n)
    return Splats(
        positions.astype(np.float32),
        scales.astype(np.float32),
        rng.normal(size=(n, 4)).astype(np.float32),
        logits.astype(np.float32),
        (1.2 * wave + rng.normal(0, 0.25, (n, 3))).astype(np.float32),
    )


def plant() -> Splats:
    """A capture in the ``.splat`` format: 32 bytes a gaussian, linear scales and 8-bit alpha."""
    rows = np.frombuffer((REAL / "plant.splat").read_bytes(), np.dtype(
        [("position", "<f4", 3), ("scale", "<f4", 3), ("colour", "u1", 4), ("rotation", "u1", 4)]
    ))  # fmt: skip
    alpha = (rows["colour"][:, 3] / 255.0).clip(1e-4, 1 - 1e-4)
    return Splats(
        rows["position"] * np.float32([1, -1, -1]),
        np.log(np.maximum(rows["scale"], 1e-9)).astype(np.float32),
        (rows["rotation"].astype(np.float32) - 128) / 128,
        np.log(alpha / (1 - alpha)).astype(np.float32),
        ((rows["colour"][:, :3] / 255.0 - 0.5) / SH_C0).astype(np.float32),
    )


def real(name: str) -> Callable[[], Splats]:
    """A loader of a real PLY."""
    return lambda: read_splat((REAL / name).read_bytes())


#: Name, loader, whether it carries the generator's fingerprint.
SCENES: dict[str, tuple[Callable[[], Splats], bool]] = {
    "robocop": (robocop, True),
    "shell-iid": (lambda: shell("iid"), True),
    "shell-smooth": (lambda: shell("smooth"), True),
    "hamburger": (real("hamburger.ply"), False),
    "tmp_model": (real("tmp_model_0b21e73.ply"), False),
    "plant": (plant, False),
}
NEEDS_REAL = {"robocop", "hamburger", "tmp_model", "plant"}
