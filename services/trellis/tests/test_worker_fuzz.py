"""Bytes that no honest client sends: an answer that says why, never a 500, a crash or a job."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sn17_contract.http import Code
from sn17_http import own_request
from sn17_service import Problem
from sn17_trellis.backend import BadImage
from sn17_trellis.generate_form import check_picture
from sn17_trellis.picture import MAX_IMAGE_SIDE, decode_image

EXAMPLES = 2_000 if os.environ.get("SN17_LONG") else 60
BOUNDARY = b"boundary"


def part(name: bytes, value: bytes, extra: bytes = b"") -> bytes:
    return (
        b"--" + BOUNDARY + b'\r\nContent-Disposition: form-data; name="' + name + b'"' + extra + b"\r\n\r\n"
        + value + b"\r\n"
    )  # fmt: skip


FORM = part(b"prompt", b"a red cube") + part(b"seed", b"5") + b"--" + BOUNDARY + b"--\r\n"


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """Cut, flip, insert, repeat."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["cut", "flip", "insert", "repeat"]))
        if kind == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == "flip" and data:
            data[at] ^= draw(st.integers(1, 255))
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=32))
        else:
            data[at:at] = data[at : at + 40]
    return bytes(data)


@given(body=mutated(FORM) | st.binary(max_size=300))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_form_breaks_the_service(running: Any, backend: Any, body: bytes) -> None:
    jobs = len(backend.jobs)
    answer = own_request(
        "POST",
        f"{running.url}/generate",
        content=body,
        headers={"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"},
        timeout=30,
    )
    assert answer.status_code in (200, 400, 413, 422), answer.text
    assert (answer.status_code == 200) == (len(backend.jobs) > jobs)
    if answer.status_code != 200:
        assert answer.json()["code"] in set(Code)
        assert len(answer.json()["detail"]) < 2_000


def picture(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_picture_breaks_the_decoder(kind: str, data: st.DataObject) -> None:
    content = data.draw(mutated(picture(kind)))
    try:
        image = decode_image(content, max_pixels=100_000)
    except BadImage:
        return
    else:
        assert image.dtype == np.uint8
        assert image.shape[2] == 4
        assert max(image.shape[:2]) <= MAX_IMAGE_SIDE


def test_a_picture_that_announces_a_terabyte_is_refused_by_its_head() -> None:
    content = bytearray(picture("PNG"))
    content[16:24] = (10**6).to_bytes(4, "big") * 2
    with pytest.raises(BadImage):
        decode_image(bytes(content), max_pixels=16_000_000)
    with pytest.raises(Problem, match="1000000 x 1000000"):
        check_picture(bytes(content), max_pixels=16_000_000)
