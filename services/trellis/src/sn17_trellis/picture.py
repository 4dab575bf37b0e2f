"""Pictures of image jobs: decoded where the model runs, never in the service."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sn17_trellis.backend import BadImage, Job

MAX_IMAGE_SIDE: Final = 2048
"""Larger pictures are reduced; no image model looks at more than 518 pixels."""


def decoded(job: Job, max_pixels: int) -> Job:
    """The job with its picture as pixels. Raises BadImage."""
    if job.picture is None:
        return job
    return dataclasses.replace(job, picture=None, image=decode_image(job.picture, max_pixels))


def decode_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """RGBA pixels (h, w, 4), upright and in sRGB, reduced to ``MAX_IMAGE_SIDE``.

    Raises:
        BadImage: says what the file is and what is wrong with it.
    """
    # Only where pictures are decoded: the service, which never does, stays small.
    from sn17_pictures import PictureError, decode_picture

    try:
        image = decode_picture(data, max_pixels, MAX_IMAGE_SIDE).image
    except PictureError as error:
        raise BadImage(str(error)) from error
    return np.asarray(image.convert("RGBA"))
