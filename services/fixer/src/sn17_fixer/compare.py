"""How two splats differ, in numbers and as pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sn17_splats import Splats

from sn17_fixer.diagnosis import diagnose
from sn17_fixer.model import Diagnosis
from sn17_fixer.render.camera import IMAGE_SIZE, validator_camera
from sn17_fixer.render.metrics import psnr, ssim
from sn17_fixer.render.preview import VIEWS, png, preview
from sn17_fixer.render.scene import render, to_bytes, validator_model


@dataclass(frozen=True, slots=True)
class View:
    """One view of both: ``psnr`` in dB, infinite where the pictures are the same, and ``ssim``."""

    view: int
    psnr: float
    ssim: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both diagnoses, the likeness of four views, and how many rows differ where the counts agree."""

    first: Diagnosis
    second: Diagnosis
    views: tuple[View, ...]
    psnr: float
    ssim: float
    rows_changed: int | None


def compare(first: Splats, second: Splats, *, size: int = IMAGE_SIZE) -> Comparison:
    """Render four views of both as the validator does, and compare them.

    Raises :class:`sn17_splats.SplatError` where one of them can't be drawn.
    """
    models = validator_model(first), validator_model(second)
    views, pictures = [], []
    for view in VIEWS:
        camera = validator_camera(view, size)
        left, right = (to_bytes(render(model, camera)[0]) for model in models)
        views.append(View(view, psnr(left, right), ssim(left, right)))
        pictures.append((left, right))
    whole = [np.concatenate(side) for side in zip(*pictures, strict=True)]
    return Comparison(
        diagnose(first),
        diagnose(second),
        tuple(views),
        psnr(whole[0], whole[1]),
        sum(view.ssim for view in views) / len(views),
        _rows_changed(first, second),
    )


def side_by_side(
    first: Splats, second: Splats, *, size: int = IMAGE_SIZE
) -> tuple[dict[str, float | None], bytes]:
    """Likeness of four views, ``psnr`` None where they are the same, and a PNG of both assets' views.

    The entry point ``sn17.side_by_side``: for commands that may not depend on this package.

    Raises :class:`sn17_splats.SplatError` where one of them can't be drawn.
    """
    found = compare(first, second, size=size)
    picture = np.concatenate([preview(each, size=size) for each in (first, second)], axis=1)
    psnr = None if np.isinf(found.psnr) else found.psnr
    return {"psnr": psnr, "ssim": found.ssim}, png(picture)


def _rows_changed(first: Splats, second: Splats) -> int | None:
    if len(first) != len(second) or first.sh_degree != second.sh_degree:
        return None
    changed = np.zeros(len(first), bool)
    for name in ("positions", "log_scales", "rotations", "f_dc", "f_rest"):
        a, b = getattr(first, name), getattr(second, name)
        if a is not None:
            changed |= (_bits(a) != _bits(b)).any(axis=1)
    a, b = first.opacity_logits, second.opacity_logits
    changed |= _bits(a) != _bits(b)
    return int(np.count_nonzero(changed))


def _bits(values: NDArray[np.float32]) -> NDArray[np.int32]:
    return np.ascontiguousarray(values).view(np.int32)
