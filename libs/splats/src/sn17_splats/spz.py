"""The subnet's SPZ: the version 2 payload of Niantic's SPZ in one zstd frame, instead of gzip.

Payload, little-endian: 16 bytes {u32 magic, u32 version, u32 n, u8 SH degree, u8 fractional bits, u8 flags,
u8 0}, then arrays over all gaussians: positions (3 x 24-bit fixed point), alphas (u8), colours (3 x u8),
log-scales (3 x u8), rotations (3 x u8: x, y, z with w >= 0 derived), SH (u8, coefficient-major).
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from sn17_splats.container import Float32, Limits, SplatError, Splats

ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
SPZ_MAGIC: Final = 0x5053474E
SPZ_VERSION: Final = 2
FRACTIONAL_BITS: Final = 12
#: Positions that the 24-bit fixed point holds; the reference encoder wraps silently beyond.
POSITION_LIMIT: Final = 2047.999

_HEADER: Final = struct.Struct("<IIIBBBB")
_REST_BY_DEGREE: Final = (0, 9, 24, 45)
_CHUNK: Final = 8192  # rows: the rows of a chunk stay in the second-level cache over all columns
_FIXED_LIMIT: Final = POSITION_LIMIT * (1 << FRACTIONAL_BITS)
_FIXED24: Final = np.dtype([("low", "<u2"), ("high", "u1")])
_WORD: Final = np.dtype([("low", "<u2"), ("high", "u1"), ("sign", "u1")])
_MAX_WINDOW: Final = 128 * 1024**2  # zstd's own default bound for decoders

Bytes8 = NDArray[np.uint8]


def payload_bytes(count: int, sh_degree: int) -> int:
    """Size of the uncompressed payload of ``count`` gaussians."""
    return _HEADER.size + count * (19 + _REST_BY_DEGREE[sh_degree])


def encode_spz(splats: Splats, *, level: int = 1) -> bytes:
    """Compress to the subnet's SPZ at a zstd ``level`` from 1 to 22.

    The quantisation is the reference encoder's: alpha in 8 bits after the sigmoid (an infinite logit is
    exact, NaN is transparent), colours in +-3.33, log-scales in -10..5.94; values beyond are clipped.
    Raises :class:`SplatError` for no gaussians and for positions that are not finite or not within
    +-2048 units, where the reference encoder would wrap them around.
    """
    return zstandard.ZstdCompressor(level=level).compress(spz_payload(splats).data)


def spz_payload(splats: Splats) -> Bytes8:
    """The uncompressed version 2 payload, as bytes in an array."""
    n, degree = len(splats), splats.sh_degree
    if n < 1:
        raise SplatError("a splat without gaussians can't be written")
    out = np.empty(payload_bytes(n, degree), np.uint8)
    out[: _HEADER.size] = np.frombuffer(
        _HEADER.pack(SPZ_MAGIC, SPZ_VERSION, n, degree, FRACTIONAL_BITS, 0, 0), np.uint8
    )
    positions, alphas, colors, scales, rotations, rest = _sections(out, n, degree)
    with np.errstate(all="ignore"):
        for start in range(0, n, _CHUNK):
            rows = slice(start, min(start + _CHUNK, n))
            _pack_positions(splats.positions[rows], start, positions[rows])
            _store(_sigmoid(splats.opacity_logits[rows]) * np.float32(255), alphas[rows])
            # Columns first, so that every inner loop runs over gaussians instead of over three columns.
            _store(_by_column(splats.f_dc[rows]) * np.float32(38.25) + np.float32(127.5), colors[rows])
            _store((_by_column(splats.log_scales[rows]) + np.float32(10)) * np.float32(16), scales[rows])
            _store(_pack_rotations(_by_column(splats.rotations[rows])), rotations[rows])
            if rest is not None and splats.f_rest is not None:
                rest[rows] = _pack_rest(splats.f_rest[rows])
    return out


def _sections(
    out: Bytes8, n: int, degree: int
) -> tuple[NDArray[np.void], Bytes8, Bytes8, Bytes8, Bytes8, Bytes8 | None]:
    at = _HEADER.size
    parts: list[Bytes8] = []
    for width in (9, 1, 3, 3, 3, _REST_BY_DEGREE[degree]):
        parts.append(out[at : at + n * width].reshape(n, width))
        at += n * width
    return (
        parts[0].reshape(-1).view(_FIXED24).reshape(n, 3),
        parts[1].reshape(n),
        parts[2],
        parts[3],
        parts[4],
        parts[5] if degree else None,
    )


def _pack_positions(positions: Float32, start: int, out: NDArray[np.void]) -> None:
    fixed = positions * np.float32(1 << FRACTIONAL_BITS)
    np.rint(fixed, out=fixed)
    if not (fixed.max() <= _FIXED_LIMIT and fixed.min() >= -_FIXED_LIMIT):
        raise SplatError(_bad_position(positions, start))
    words = fixed.astype("<i4").view(_WORD)
    out["low"] = words["low"]
    out["high"] = words["high"]


def _bad_position(positions: Float32, start: int) -> str:
    row = int(np.argmin((np.abs(positions) <= POSITION_LIMIT).all(axis=1)))
    values = ", ".join(f"{value:g}" for value in positions[row])
    return (
        f"SPZ can't hold the position ({values}) of gaussian {start + row}: not finite or beyond +-2048 units"
    )


def _by_column(rows: Float32) -> Float32:
    return np.ascontiguousarray(rows.T)


def _store(values: Float32, out: Bytes8) -> None:
    """Round ``values``, (n,) or (k, n), into the bytes ``out``, (n,) or (n, k); clipped, NaN to 0."""
    # All inputs are positive where it matters, so adding a half and cutting rounds halves up, as C's
    # round() does; fmax sends NaN to 0, as the reference encoder's clamp does.
    values += np.float32(0.5)
    np.fmax(values, np.float32(0), out=values)
    np.minimum(values, np.float32(255), out=values)
    rounded = values.astype(np.uint8)
    if rounded.ndim == 1:
        out[:] = rounded
    else:
        for i, column in enumerate(rounded):
            out[:, i] = column


def _sigmoid(logits: Float32) -> Float32:
    out: Float32 = np.negative(logits)
    np.exp(out, out=out)
    out += np.float32(1)
    np.reciprocal(out, out=out)
    return out


def _pack_rotations(wxyz: Float32) -> Float32:
    w, xyz = wxyz[0], wxyz[1:]
    norm = np.sqrt((wxyz * wxyz).sum(axis=0))
    packed: Float32 = xyz * (np.copysign(np.float32(127.5), w) / norm) + np.float32(127.5)
    return packed


def _pack_rest(rest: Float32) -> Bytes8:
    n, width = rest.shape
    values = rest.reshape(n, 3, width // 3).transpose(0, 2, 1).reshape(n, width)
    out = np.empty((n, width), np.uint8)
    for columns, bits in ((slice(0, 9), 5), (slice(9, None), 4)):
        bucket = 1 << (8 - bits)
        scaled = np.nan_to_num(values[:, columns], nan=0.0) * np.float32(128)
        steps = np.trunc(np.clip(scaled, -1e6, 1e6) + np.copysign(np.float32(0.5), scaled)) + 128
        # Integer division of C cuts towards zero; negative values are clipped to 0 either way.
        quantised = (np.trunc((steps + bucket // 2) / bucket) * bucket).clip(0, 255)
        out[:, columns] = quantised.astype(np.uint8)
    return out


def decode_spz(data: bytes | bytearray | memoryview, limits: Limits = Limits()) -> Splats:
    """Read the subnet's SPZ.

    Alpha bytes 0 and 255 decode to infinite logits, as in the reference decoder. Raises
    :class:`SplatError` for anything but one whole frame of one version 2 payload, and
    :class:`SplatTooLarge` over ``limits``, before more is unpacked than the header needs.
    """
    view = memoryview(data)
    limits.check_bytes(view.nbytes, "an SPZ")
    if bytes(view[:4]) != ZSTD_MAGIC:
        if bytes(view[:2]) == b"\x1f\x8b" or bytes(view[:4]) == b"NGSP":
            raise SplatError("this is Niantic's SPZ, not the subnet's: convert it with `sn17 splat convert`")
        raise SplatError("not the subnet's SPZ: it does not begin with a zstd frame")
    payload = _unpack(view, limits)
    _, _, n, degree, bits, _, _ = _HEADER.unpack_from(payload)
    positions, alphas, colors, scales, rotations, rest = _sections(
        np.frombuffer(payload, np.uint8), n, degree
    )
    # The high byte keeps its sign; the low word has none.
    fixed = positions["high"].view(np.int8).astype(np.int32) << 16
    fixed |= positions["low"]
    return Splats(
        positions=fixed.astype(np.float32) * np.float32(1.0 / (1 << bits)),
        log_scales=_LOG_SCALES[scales],
        rotations=_unpack_rotations(rotations),
        opacity_logits=_LOGITS[alphas],
        f_dc=_COLORS[colors],
        f_rest=None if rest is None else _unpack_rest(rest),
    )


with np.errstate(divide="ignore"):
    _BYTES: Final = np.arange(256, dtype=np.float64)
    _LOGITS: Final = (np.log(_BYTES / 255) - np.log(1 - _BYTES / 255)).astype(np.float32)
_LOG_SCALES: Final = (_BYTES / 16 - 10).astype(np.float32)
_COLORS: Final = ((_BYTES / 255 - 0.5) / 0.15).astype(np.float32)
_AXES: Final = (_BYTES / 127.5 - 1).astype(np.float32)


def _unpack_rotations(packed: Bytes8) -> Float32:
    out = np.empty((len(packed), 4), np.float32)
    xyz = out[:, 1:]
    xyz[:] = _AXES[packed]
    out[:, 0] = np.sqrt(np.maximum(1 - np.einsum("ij,ij->i", xyz, xyz), 0))
    return out


def _unpack_rest(packed: Bytes8) -> Float32:
    n, width = packed.shape
    values = (packed.astype(np.float32) - np.float32(128)) * np.float32(1 / 128)
    return np.ascontiguousarray(values.reshape(n, width // 3, 3).transpose(0, 2, 1)).reshape(n, width)


def _unpack(view: memoryview, limits: Limits) -> bytes:
    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    try:
        declared = zstandard.frame_content_size(view)
        with decoder.stream_reader(view) as reader:
            head = reader.read(_HEADER.size)
            size = _check_header(head, limits)
            if declared not in (-1, size):
                raise SplatError(f"the SPZ frame announces {declared} bytes, its header needs {size}")
            if declared == size:
                return decoder.decompress(view, max_output_size=size, allow_extra_data=False)
            # A frame that keeps its size to itself is unpacked no further than one byte past the need.
            body = head + reader.read(size + 1 - len(head))
    except zstandard.ZstdError as error:
        raise SplatError(f"the SPZ frame is damaged: {error}") from error
    if len(body) != size:
        raise SplatError(f"the SPZ payload is not the {size} bytes that its header needs")
    return body


def _check_header(head: bytes, limits: Limits) -> int:
    if len(head) < _HEADER.size:
        raise SplatError("the SPZ payload is cut short in its header")
    magic, version, n, degree, bits, _, _ = _HEADER.unpack(head)
    if magic != SPZ_MAGIC:
        raise SplatError(f"the SPZ payload begins with {magic:#010x}, not {SPZ_MAGIC:#010x}")
    if version != SPZ_VERSION:
        raise SplatError(f"SPZ version {version} is not supported; the subnet's is {SPZ_VERSION}")
    if degree >= len(_REST_BY_DEGREE):
        raise SplatError(f"SPZ spherical-harmonics degree {degree} is not supported; expected 0 to 3")
    if bits > 23:
        raise SplatError(f"SPZ positions with {bits} fractional bits are not supported; expected 0 to 23")
    limits.check_gaussians(n)
    size = payload_bytes(n, degree)
    limits.check_bytes(size, "an SPZ payload")
    return size


def announced_gaussians(data: bytes | bytearray | memoryview, limits: Limits = Limits()) -> int:
    """How many gaussians an SPZ says it holds, unpacking its header alone. Raises as :func:`decode_spz`."""
    try:
        with zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(data) as reader:
            head = reader.read(_HEADER.size)
    except zstandard.ZstdError as error:
        raise SplatError(f"the SPZ frame is damaged: {error}") from error
    _check_header(head, limits)
    count: int = _HEADER.unpack(head)[2]
    return count
