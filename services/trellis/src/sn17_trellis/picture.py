"""Pictures of image jobs: decoded where the model runs, never in the service."""

from __future__ import annotations

import dataclasses
import io
import warnings
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sn17_trellis.backend import BadImage, Job

IMAGE_FORMATS: Final = ("PNG", "JPEG", "WEBP")
MAX_IMAGE_SIDE: Final = 2048
"""Larger pictures are reduced; no image model looks at more than 518 pixels."""


def decoded(job: Job, max_pixels: int) -> Job:
    """The job with its picture as pixels. Raises BadImage."""
    if job.picture is None:
        return job
    return dataclasses.replace(job, picture=None, image=decode_image(job.picture, max_pixels))


def decode_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """RGBA pixels (h, w, 4), reduced to ``MAX_IMAGE_SIDE``.

    Raises:
        BadImage: not a PNG, JPEG or WebP file, damaged, or too many pixels (told by its head).
    """
    # Only where pictures are decoded: the service, which never does, stays small.
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise BadImage(f"the image has {width} x {height} pixels; at most {max_pixels} are taken")
                image.draft("RGB", (MAX_IMAGE_SIDE, MAX_IMAGE_SIDE))
                rgba = image.convert("RGBA")
    except BadImage:
        raise
    except Exception as error:
        kinds = ", ".join(IMAGE_FORMATS)
        raise BadImage(f"the image can not be decoded; send {kinds}") from error
    rgba.thumbnail((MAX_IMAGE_SIDE, MAX_IMAGE_SIDE))
    return np.asarray(rgba)
