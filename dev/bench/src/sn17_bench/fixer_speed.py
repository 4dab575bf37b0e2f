"""How long the fixer's stages take, against reading and compressing the same bytes."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from sn17_fixer.diagnosis import diagnose
from sn17_fixer.policy import FixOptions, fix
from sn17_fixer.render.check import check_render
from sn17_fixer.scan.numpy_pass import scan_numpy
from sn17_splats import Splats, encode_spz, read_ply, write_ply
from sn17_splats.spz import spz_payload

from sn17_bench.fixer_scenes import REAL, robocop, shell
from sn17_bench.splat_timing import interleaved_ms, median_ms, peak_mib, print_table, ratio

COUNTS = (50_000, 100_000, 400_000, 1_000_000, 2_000_000)


def tiled(asset: Splats, count: int) -> bytes:
    """The asset repeated to ``count`` gaussians, as a PLY."""
    return write_ply(asset.select(np.resize(np.arange(len(asset)), count)))


def healthy(data: bytes) -> bytes:
    """The whole work on a healthy asset."""
    return encode_spz(fix(read_ply(data)).splats)


def measure(asset: Splats, count: int) -> dict[str, Any]:
    """All stages at one size; milliseconds, and ratios to the work that can't be avoided."""
    data = tiled(asset, count)
    splats = read_ply(data)
    table = np.frombuffer(data, "<f4", offset=len(data) - count * 68).reshape(count, 17)
    payload = spz_payload(splats).tobytes()
    zstd = zstandard.ZstdCompressor(level=1)
    shifted = write_ply(splats.replace(opacity_logits=splats.opacity_logits - np.float32(5.86)))
    no_render = FixOptions(checker=lambda _: check)
    check = check_render(splats)
    works: dict[str, Callable[[], object]] = {
        "sum": lambda: table.sum(axis=0),
        "zstd": lambda: zstd.compress(payload),
        "read": lambda: read_ply(data),
        "diagnose": lambda: diagnose(splats),
        "diagnose_numpy": lambda: diagnose(splats, scanner=scan_numpy),
        "encode": lambda: encode_spz(splats),
        "healthy": lambda: healthy(data),
        "repair": lambda: fix(read_ply(shifted), no_render),
    }
    taken = interleaved_ms(works, rounds=9 if count <= 400_000 else 5)
    row: dict[str, Any] = {"gaussians": count}
    row |= {f"{name}_ms": statistics.median(times) for name, times in taken.items()}
    row["render_check_ms"] = median_ms(lambda: check_render(splats), rounds=3)
    row["diagnose_per_sum"] = ratio(taken, "diagnose", "sum")
    row["encode_per_zstd"] = ratio(taken, "encode", "zstd")
    row["healthy_per_zstd"] = ratio(taken, "healthy", "zstd")
    row["peak_ratio"] = peak_mib(lambda: healthy(data)) * 2**20 / len(data) + 1
    repair_peak = peak_mib(lambda: encode_spz(fix(read_ply(shifted)).splats))
    row["repair_peak_ratio"] = repair_peak * 2**20 / len(data) + 1
    return row


def others(asset: Splats, count: int) -> list[tuple[str, str, float]]:
    """What kept tools take for the same work at one size: name, work, milliseconds."""
    data = tiled(asset, count)
    found: list[tuple[str, str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "x.ply", Path(folder) / "out.spz"
        path.write_bytes(data)
        found.append(("sn17", "read a file, diagnose, encode", median_ms(lambda: healthy(path.read_bytes()))))
        found.append(
            ("sn17", "read a file, diagnose", median_ms(lambda: diagnose(read_ply(path.read_bytes()))))
        )
        from plyfile import PlyData

        found.append(
            ("plyfile", "read a file, sum every column", median_ms(
                lambda: [column.data["opacity"].sum() for column in [PlyData.read(path)["vertex"]]]
            ))
        )  # fmt: skip
        if importlib.util.find_spec("gsply"):
            import gsply

            found.append(("gsply", "read a file", median_ms(lambda: gsply.plyread(str(path)))))
        else:
            print("gsply: skipped, not installed")
        command = os.environ.get("SN17_SPLAT_TRANSFORM") or shutil.which("splat-transform")
        if command is None:
            print("splat-transform: skipped, not found (set SN17_SPLAT_TRANSFORM to its command)")
            return found
        base = command.split()

        def run(*arguments: str) -> None:
            subprocess.run([*base, "-w", *arguments], check=True, capture_output=True)

        found.append(("splat-transform", "statistics, whole command", median_ms(
            lambda: run(str(path), "--stats", "json", "null"), rounds=3)))  # fmt: skip
        found.append(("splat-transform", "to SPZ, whole command", median_ms(
            lambda: run(str(path), str(out)), rounds=3)))  # fmt: skip
    return found


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure and print both tables."""
    source = "robocop" if REAL.is_dir() else "procedural shell"
    asset = robocop() if REAL.is_dir() else shell("iid")
    counts = [int(count) for count in arguments.counts.split(",")] if arguments.counts else COUNTS
    rows = [measure(asset, count) for count in counts]
    compiled = "compiled" if importlib.util.find_spec("numba") else "numpy only"
    print(f"{source} tiled, PLY of 68 bytes a gaussian, one thread, warm, median; {compiled}; milliseconds")
    print_table(
        ("gaussians", "sum of columns", "zstd -1", "read", "diagnose", "numpy only", "encode", "healthy path",
         "repair", "render check", "diagnose / sum", "encode / zstd", "healthy / zstd",
         "peak / asset", "repair peak / asset"),
        [(row["gaussians"], row["sum_ms"], row["zstd_ms"], row["read_ms"], row["diagnose_ms"],
          row["diagnose_numpy_ms"], row["encode_ms"], row["healthy_ms"], row["repair_ms"],
          row["render_check_ms"], row["diagnose_per_sum"],
          row["encode_per_zstd"], row["healthy_per_zstd"], row["peak_ratio"],
          row["repair_peak_ratio"]) for row in rows],
    )  # fmt: skip
    compared = others(asset, 400_000)
    print("\nThe same work by others, 400,000 gaussians")
    print_table(("tool", "work", "ms"), compared)
    named = [dict(zip(("tool", "work", "ms"), row, strict=True)) for row in compared]
    return {"source": source, "rows": rows, "others": named}
