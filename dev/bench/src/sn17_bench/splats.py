"""PLY and SPZ codecs against the libraries that do the same work, and against zstd on the same bytes.

python -m sn17_bench.splats [--gaussians 400000] [--json FILE]
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib
import importlib.util
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import zstandard
from sn17_splats import decode_spz, encode_spz, read_ply, statistics, write_ply
from sn17_splats.spz import spz_payload

from sn17_bench.fixer_scenes import REAL, robocop, shell
from sn17_bench.splat_timing import interleaved_ms, print_table, ratio

COLUMNS = ("work", "ms", "against", "ratio")
COPY, ZSTD, UNZSTD = "copy the bytes of the PLY", "zstd level 1 of the payload", "unzstd of the payload"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gaussians", type=int, default=400_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    source = "robocop" if REAL.is_dir() else "procedural shell"
    asset = robocop() if REAL.is_dir() else shell("iid")
    data = write_ply(asset.select(np.resize(np.arange(len(asset)), arguments.gaussians)))
    splats = read_ply(data)
    payload, spz = spz_payload(splats).tobytes(), encode_spz(splats)
    zstd, unzstd = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()
    works: dict[str, Callable[[], object]] = {
        COPY: lambda: bytearray(data),
        ZSTD: lambda: zstd.compress(payload),
        UNZSTD: lambda: unzstd.decompress(spz),
        "sn17 read_ply": lambda: read_ply(data),
        "sn17 write_ply": lambda: write_ply(splats),
        "sn17 encode_spz": lambda: encode_spz(splats),
        "sn17 decode_spz": lambda: decode_spz(spz),
        "sn17 statistics": lambda: statistics(splats),
    }
    against = {ZSTD: ZSTD, UNZSTD: UNZSTD, "sn17 encode_spz": ZSTD, "sn17 decode_spz": UNZSTD}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.ply"
        path.write_bytes(data)
        works |= _others(path)
        taken = interleaved_ms(works)
    rows = []
    for name, times in taken.items():
        base = against.get(name, COPY)
        rows.append((name, median(times), base, ratio(taken, name, base)))
    print(f"{arguments.gaussians:,} gaussians of {source}, PLY {len(data):,} bytes, SPZ {len(spz):,} bytes")
    print_table(COLUMNS, rows)
    if arguments.json:
        result = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": "2 cores",
            "gaussians": arguments.gaussians,
            "source": source,
            "rows": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
        }
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def _others(path: Path) -> dict[str, Callable[[], object]]:
    from plyfile import PlyData

    # plyfile reads a stream row by row: a hundredth is enough to see it.
    part = write_ply(read_ply(path.read_bytes()).select(slice(0, None, 100)))
    works: dict[str, Callable[[], object]] = {
        "plyfile, mapped file and columns": lambda: _plyfile(PlyData.read(path)),
        "plyfile, stream, 1/100 of the rows": lambda: PlyData.read(io.BytesIO(part)),
    }
    for name in ("gsply", "meshio"):
        if importlib.util.find_spec(name) is None:
            print(f"{name}: skipped, not installed")
            continue
        module = importlib.import_module(name)
        read = module.plyread if name == "gsply" else module.read
        works[f"{name}, read a file"] = functools.partial(read, str(path))
    return works


def _plyfile(ply: object) -> list[np.ndarray]:
    vertex = ply["vertex"]  # type: ignore[index]
    groups = ("xyz", ("opacity",), [f"scale_{i}" for i in range(3)], [f"rot_{i}" for i in range(4)])
    return [np.stack([vertex[name] for name in group], axis=1) for group in groups]


if __name__ == "__main__":
    main()
