from __future__ import annotations

import struct

import numpy as np
import pytest
import zstandard
from conftest_splats import make_splats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sn17_splats import (
    Limits,
    SplatError,
    Splats,
    SplatTooLarge,
    decode_spz,
    encode_spz,
    read_splat,
    write_ply,
)
from sn17_splats.spz import spz_payload


def frame(payload: bytes, **settings: object) -> bytes:
    return zstandard.ZstdCompressor(level=1, **settings).compress(payload)


def header(n: int, *, magic: int = 0x5053474E, version: int = 2, degree: int = 0, bits: int = 12) -> bytes:
    return struct.pack("<IIIBBBB", magic, version, n, degree, bits, 0, 0)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip_is_within_the_quantisation(degree: int) -> None:
    splats = make_splats(20_000, degree)
    back = decode_spz(encode_spz(splats))
    assert np.abs(back.positions - splats.positions).max() <= 0.5 / 4096 + 1e-7
    np.testing.assert_allclose(back.log_scales, splats.log_scales.clip(-10, 5.9375), atol=1 / 32 + 1e-6)
    np.testing.assert_allclose(back.f_dc, splats.f_dc.clip(-10 / 3, 10 / 3), atol=0.5 / 38.25 + 1e-6)
    alpha = 1 / (1 + np.exp(-splats.opacity_logits.astype(float)))
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(
            1 / (1 + np.exp(-back.opacity_logits.astype(float))), alpha, atol=0.5 / 255 + 1e-6
        )
    unit = splats.rotations / np.linalg.norm(splats.rotations, axis=1, keepdims=True)
    cosines = np.abs((unit * back.rotations).sum(axis=1)) / np.linalg.norm(back.rotations, axis=1)
    assert np.degrees(2 * np.arccos(cosines.clip(0, 1))).max() < 13
    if splats.f_rest is not None and back.f_rest is not None:
        # Buckets of 8 (degree 1) and 16 units of 1/128; half a bucket and half a unit of rounding.
        limit = np.full(splats.f_rest.shape[1] // 3, 8.5 / 128)
        limit[:3] = 4.5 / 128
        error = np.abs(back.f_rest - splats.f_rest.clip(-1, 127 / 128))
        assert (error <= np.tile(limit, 3)).all()


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_encoding_what_was_decoded_changes_nothing(degree: int) -> None:
    payload = spz_payload(make_splats(3000, degree))
    again = spz_payload(decode_spz(frame(payload.tobytes())))
    rotations = slice(16 + 16 * 3000, 16 + 19 * 3000)
    # x, y, z of a half turn may quantise to slightly more than unit length: one step of difference.
    assert np.abs(again[rotations].astype(int) - payload[rotations]).max() <= 1
    again[rotations] = payload[rotations]
    assert np.array_equal(again, payload)


def test_known_values_give_the_known_bytes() -> None:
    """One gaussian worked out by hand from the formulas of the format."""
    splats = Splats(
        positions=np.array([[0.5, -0.25, 2047.5]]),
        log_scales=np.array([[-10, 0, 5.9375]]),
        rotations=np.array([[-2.0, 0, 0, 2]]),
        opacity_logits=np.array([0.0]),
        f_dc=np.array([[0.0, 9, -9]]),
    )
    expected = header(1)
    expected += b"".join(int(v * 4096).to_bytes(3, "little", signed=True) for v in (0.5, -0.25, 2047.5))
    # sigmoid(0) * 255 = 127.5 rounds away from zero; -q has w >= 0: z = -0.7071 -> 37.35
    expected += bytes([128, 128, 255, 0, 0, 160, 255, 128, 128, 37])
    assert spz_payload(splats).tobytes() == expected


def test_the_subnets_own_sample_is_read_and_written_alike(real_splats) -> None:
    data = (real_splats / "robocop_404.spz").read_bytes()
    splats = decode_spz(data)
    assert len(splats) == 267_776
    assert np.isposinf(splats.opacity_logits).sum() == 62_319
    assert spz_payload(splats).tobytes() == zstandard.ZstdDecompressor().decompress(data)


def test_infinite_and_missing_opacity() -> None:
    splats = make_splats(4)
    splats.opacity_logits[:] = np.inf, -np.inf, np.nan, 1e30
    assert decode_spz(encode_spz(splats)).opacity_logits.tolist() == [np.inf, -np.inf, -np.inf, np.inf]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2048.0, -1e9])
def test_a_position_that_does_not_fit_is_refused_not_wrapped(value: float) -> None:
    splats = make_splats(10_000)
    splats.positions[9_000, 1] = value
    with pytest.raises(SplatError, match="gaussian 9000"):
        encode_spz(splats)


@given(arrays(np.float32, (5, 14)))
def test_any_floats_encode_or_are_refused(values: np.ndarray) -> None:
    splats = Splats(values[:, :3], values[:, 3:6], values[:, 6:10], values[:, 10], values[:, 11:])
    try:
        data = encode_spz(splats)
    except SplatError:
        assert not (np.abs(values[:, :3]) <= 2047.999).all()
        return
    back = decode_spz(data)
    assert np.isfinite(back.positions).all()
    assert np.isfinite(back.log_scales).all()
    assert np.isfinite(back.f_dc).all()
    assert np.isfinite(back.rotations).all()


@given(st.integers(1, 300), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_strided_views_and_copies_encode_alike(n: int, degree: int, seed: int) -> None:
    splats = make_splats(n, degree, seed)
    assert encode_spz(read_splat(write_ply(splats))) == encode_spz(splats)


@pytest.mark.parametrize("content_size", [True, False])
def test_frames_with_and_without_their_size_are_read(content_size: bool) -> None:
    splats = make_splats(100)
    data = frame(spz_payload(splats).tobytes(), write_content_size=content_size)
    assert len(decode_spz(data)) == 100


GOOD = spz_payload(make_splats(3)).tobytes()


@pytest.mark.parametrize("content_size", [True, False])
@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "in its header|damaged"),
        (GOOD[:10], "in its header"),
        (GOOD[:-1], "bytes"),
        (GOOD + b"x", "bytes"),
        (header(3, magic=1) + GOOD[16:], "begins with 0x00000001"),
        (header(3, version=3) + GOOD[16:], "version 3"),
        (header(3, degree=4) + GOOD[16:], "degree 4"),
        (header(3, bits=24) + GOOD[16:], "24 fractional bits"),
        (header(0), "no gaussians"),
        (header(5_000_001), "5000001 gaussians"),
        (header(2**32 - 1), "4294967295 gaussians"),
    ],
)
def test_what_is_no_spz_is_refused_with_the_reason(payload: bytes, message: str, content_size: bool) -> None:
    with pytest.raises(SplatError, match=message):
        decode_spz(frame(payload, write_content_size=content_size))


def test_other_containers_are_named() -> None:
    with pytest.raises(SplatError, match="Niantic"):
        read_splat(b"\x1f\x8b" + bytes(50))
    with pytest.raises(SplatError, match="neither a PLY nor"):
        read_splat(b"GIF89a")


def test_truncation_at_every_byte_is_refused() -> None:
    data = encode_spz(make_splats(20))
    for end in range(len(data)):
        with pytest.raises(SplatError):
            decode_spz(data[:end])


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(SplatError):
        decode_spz(encode_spz(make_splats(20)) + b"more")


@pytest.mark.parametrize("content_size", [True, False])
def test_a_bomb_is_refused_after_its_header(content_size: bool) -> None:
    import tracemalloc

    bomb = frame(header(1000) + bytes(200_000_000), write_content_size=content_size)
    assert len(bomb) < 50_000
    tracemalloc.start()
    with pytest.raises(SplatError, match="bytes"):
        decode_spz(bomb)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_payload_over_the_limit_is_refused() -> None:
    with pytest.raises(SplatTooLarge, match="payload"):
        decode_spz(encode_spz(make_splats(1000)), Limits(max_bytes=18_000))
