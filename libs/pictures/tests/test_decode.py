"""The corpus through the decoder: pixels as viewers show them, or one sentence that says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from picture_corpus import Sample, quarters, refusals, samples, saved
from PIL import Image
from sn17_pictures import PictureError, decode_picture

MAX_PIXELS = 1_000_000
SAMPLES = samples()


def test_the_corpus_is_large_enough() -> None:
    assert len({sample.name for sample in SAMPLES}) == len(SAMPLES) >= 60


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_picture_is_decoded_as_viewers_show_it(sample: Sample) -> None:
    made = np.asarray(decode_picture(sample.data, MAX_PIXELS).image)
    assert made.shape == sample.expected.shape
    assert np.abs(made.astype(int) - sample.expected.astype(int)).max() <= sample.tolerance


@pytest.mark.parametrize(("data", "words"), [pytest.param(d, w, id=n) for n, d, w in refusals()])
def test_a_refusal_says_what_the_file_is_and_what_is_wrong(data: bytes, words: tuple[str, ...]) -> None:
    with pytest.raises(PictureError) as caught:
        decode_picture(data, MAX_PIXELS)
    for word in words:
        assert word in str(caught.value)


def test_a_large_picture_is_refused_by_its_head_and_a_wide_one_is_reduced() -> None:
    large = saved(Image.new("1", (2000, 1000)))
    with pytest.raises(PictureError, match="2000 x 1000 pixels; at most 1000000"):
        decode_picture(large, MAX_PIXELS)
    assert decode_picture(large, 2_000_000, max_side=100).image.size == (100, 50)


def test_what_was_changed_is_told() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    made = decode_picture(saved(Image.fromarray(quarters()), exif=exif), MAX_PIXELS)
    assert (made.format, made.changes) == ("PNG", ("turned",))
    odd = decode_picture(saved(Image.fromarray(quarters()), icc_profile=b"x" * 200), MAX_PIXELS)
    assert odd.changes == ("colour profile ignored: it cannot be read",)


@given(st.data())
def test_no_damage_breaks_the_decoder(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SAMPLES)).data)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        made = decode_picture(bytes(content), MAX_PIXELS)
    except PictureError:
        return
    assert made.image.mode in ("RGB", "RGBA")
