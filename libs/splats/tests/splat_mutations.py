"""Valid files and what an enemy makes of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import zstandard
from sn17_splats import Splats, encode_spz, write_ply

_NUMBERS = (0, 1, 7, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7F800000, 0x7FC00000)
_WORDS = (
    b"0",
    b"-1",
    b"99999999999999",
    b"vertex",
    b"list uchar int",
    b"double",
    b"ascii",
    b"end_header",
    b"\n",
)


def seeds(splats: Splats) -> list[bytes]:
    """PLY with and without normals and higher colours, text PLY, SPZ with and without its size."""
    rest = splats.replace(f_rest=np.zeros((len(splats), 9), np.float32))
    payload = zstandard.ZstdDecompressor().decompress(encode_spz(splats))
    canonical = write_ply(splats)
    head, _, body = canonical.partition(b"end_header\n")
    rows = np.frombuffer(body, "<f4").reshape(-1, 17)[:40]
    text = "\n".join(" ".join(f"{value:g}" for value in row) for row in rows).encode()
    ascii_head = head.replace(b"binary_little_endian", b"ascii").replace(
        b"vertex %d" % len(splats), b"vertex 40"
    )
    return [
        canonical,
        write_ply(rest, normals=False),
        ascii_head + b"end_header\n" + text + b"\n",
        encode_spz(splats),
        encode_spz(rest),
        zstandard.ZstdCompressor(write_content_size=False).compress(payload),
    ]


def mutations(files: list[bytes], rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """``count`` files, each one of ``files`` after one to four changes; SPZ also inside its frame."""
    for number in range(count):
        data = files[number % len(files)]
        framed = data[:4] == b"\x28\xb5\x2f\xfd"
        inside = framed and rng.random() < 0.6
        content = bytearray(zstandard.ZstdDecompressor().decompressobj().decompress(data) if inside else data)
        for _ in range(rng.integers(1, 5)):
            _change(content, rng)
        yield zstandard.ZstdCompressor(level=1).compress(bytes(content)) if inside else bytes(content)


def _change(content: bytearray, rng: np.random.Generator) -> None:
    size = len(content)
    if not size:
        return
    # Half of the changes hit the head, where the structure is.
    at = int(rng.integers(0, min(size, 400) if rng.random() < 0.5 else size))
    match int(rng.integers(0, 8)):
        case 0:
            content[at] ^= 1 << int(rng.integers(0, 8))
        case 1:
            content[at] = int(rng.integers(0, 256))
        case 2:
            content[at : at + 4] = struct.pack("<I", _NUMBERS[int(rng.integers(0, len(_NUMBERS)))])
        case 3:
            del content[at:]
        case 4:
            del content[at : at + int(rng.integers(1, 64))]
        case 5:
            content[at:at] = bytes(content[at : at + int(rng.integers(1, 64))])
        case 6:
            content[at:at] = _WORDS[int(rng.integers(0, len(_WORDS)))]
        case 7:
            word = content.find(b" ", at)
            if 0 <= word < 600:
                end = content.find(b"\n", word)
                content[word + 1 : max(end, word + 1)] = _WORDS[int(rng.integers(0, len(_WORDS)))]
            else:
                content[at : at + 64] = rng.integers(0, 256, 64, dtype=np.uint8).tobytes()
