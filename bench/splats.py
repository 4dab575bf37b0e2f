"""PLY and SPZ codecs against the libraries that do the same work, and against zstd on the same bytes.

python bench/splats.py [--gaussians 400000] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard
from fixer_scenes import REAL, robocop, shell
from sn17_splats import decode_spz, encode_spz, read_ply, statistics, write_ply
from sn17_splats.spz import spz_payload
from splat_timing import median_ms, print_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gaussians", type=int, default=400_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    source = "robocop" if REAL.is_dir() else "procedural shell"
    asset = robocop() if REAL.is_dir() else shell("iid")
    splats = asset.select(np.resize(np.arange(len(asset)), arguments.gaussians))
    data = write_ply(splats)
    splats = read_ply(data)
    payload = spz_payload(splats).tobytes()
    spz = encode_spz(splats)
    zstd = zstandard.ZstdCompressor(level=1)
    unzstd = zstandard.ZstdDecompressor()
    compress, decompress = (
        median_ms(lambda: zstd.compress(payload)),
        median_ms(lambda: unzstd.decompress(spz)),
    )
    copy = median_ms(lambda: bytearray(data))
    rows: list[tuple[str, float, str, float]] = [
        ("copy the bytes of the PLY", copy, "copy", copy),
        ("zstd level 1 of the payload", compress, "zstd", compress),
        ("unzstd of the payload", decompress, "unzstd", decompress),
    ]

    def measure(name: str, work: Callable[[], object], against: str, base: float) -> None:
        rows.append((name, median_ms(work), against, base))

    measure("sn17 read_ply", lambda: read_ply(data), "copy", copy)
    measure("sn17 write_ply", lambda: write_ply(splats), "copy", copy)
    measure("sn17 encode_spz", lambda: encode_spz(splats), "zstd", compress)
    measure("sn17 decode_spz", lambda: decode_spz(spz), "unzstd", decompress)
    measure("sn17 statistics", lambda: statistics(splats), "copy", copy)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.ply"
        path.write_bytes(data)
        _others(measure, path, copy, data)
    print(f"{arguments.gaussians:,} gaussians of {source}, PLY {len(data):,} bytes, SPZ {len(spz):,} bytes")
    print_table(("work", "ms", "against", "ratio"), [(n, ms, a, ms / b) for n, ms, a, b in rows])
    if arguments.json:
        figures = [{"work": n, "ms": ms, "against": a, "ratio": ms / b} for n, ms, a, b in rows]
        result = {"gaussians": arguments.gaussians, "source": source, "rows": figures}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def _others(measure: Callable[..., None], path: Path, copy: float, data: bytes) -> None:
    from plyfile import PlyData

    measure("plyfile, mapped file and columns", lambda: _plyfile(PlyData.read(path)), "copy", copy)
    # plyfile reads a stream row by row: a twentieth is enough to see it.
    part = write_ply(read_ply(data).select(slice(0, None, 20)))
    measure("plyfile, stream (1/20 of the rows)", lambda: PlyData.read(io.BytesIO(part)), "copy", copy / 20)
    for name in ("gsply", "meshio"):
        if importlib.util.find_spec(name) is None:
            print(f"{name}: skipped, not installed")
            continue
        module = __import__(name)
        read = module.plyread if name == "gsply" else module.read
        measure(f"{name} read from a file", lambda read=read: read(str(path)), "copy", copy)


def _plyfile(ply: object) -> list[np.ndarray]:
    vertex = ply["vertex"]  # type: ignore[index]
    groups = ("xyz", ("opacity",), [f"scale_{i}" for i in range(3)], [f"rot_{i}" for i in range(4)])
    return [np.stack([vertex[name] for name in group], axis=1) for group in groups]


if __name__ == "__main__":
    main()
