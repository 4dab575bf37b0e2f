"""Every file a user may have: read, written and compared, or named; what was there before is never lost."""

from __future__ import annotations

import gzip
import io
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sn17.splat import app
from sn17.splat.formats import decode, encode
from sn17.splat.sniffing import Format, sniff
from sn17.splat.verification import losses
from sn17_splats import Limits, SplatError, Splats, SplatTooLarge, encode_spz, read_ply, write_ply
from terminal import unmeasured
from typer.testing import CliRunner, Result

WRITTEN = [Format.PLY, Format.SUBNET, Format.NIANTIC, Format.SPLAT]


def cloud(n: int = 400, spread: float = 0.4, degree: int = 0) -> Splats:
    rng = np.random.default_rng(3)
    quaternions = rng.normal(size=(n, 4))
    return Splats(
        rng.normal(0, spread, (n, 3)).astype("f4"),
        rng.normal(-4, 0.3, (n, 3)).astype("f4"),
        (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).astype("f4"),
        rng.normal(2, 2, n).astype("f4"),
        rng.normal(0, 0.5, (n, 3)).astype("f4"),
        rng.normal(0, 0.1, (n, (0, 9, 24, 45)[degree])).astype("f4") if degree else None,
    )


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_a_format_can_hold_is_written_and_comes_back(kind: Format) -> None:
    splats = cloud()
    data, lost = encode(splats, kind)
    assert lost == []
    assert len(decode(data, kind)) == len(splats)


@pytest.mark.parametrize(
    ("kind", "reach"), [(Format.NIANTIC, 2100), (Format.NIANTIC, 500_000), (Format.SUBNET, 2100)]
)
def test_positions_beyond_a_format_are_refused(tmp_path: Path, kind: Format, reach: float) -> None:
    splats = cloud()
    positions = splats.positions.copy()
    positions[7, 1] = reach
    source, target = tmp_path / "far.ply", tmp_path / "far.out"
    source.write_bytes(write_ply(splats.replace(positions=positions)))
    done = run("convert", source, target, "--to", kind)
    assert done.exit_code == 2, done.output
    assert "position" in done.stderr
    assert not target.exists()


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (Format.NIANTIC, "positions"),
        (Format.NIANTIC, "opacity_logits"),
        (Format.SPLAT, "opacity_logits"),
        (Format.SUBNET, "positions"),
    ],
)
def test_numbers_that_are_none_are_not_written_as_numbers(kind: Format, field: str) -> None:
    splats = cloud()
    values = np.array(getattr(splats, field))
    values[5] = np.nan
    with pytest.raises(SplatError):
        encode(splats.replace(**{field: values}), kind)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_colours_that_a_format_has_no_room_for_are_told(tmp_path: Path, degree: int) -> None:
    source = tmp_path / "a.ply"
    source.write_bytes(write_ply(cloud(degree=degree)))
    done = run("convert", source, tmp_path / "a.splat")
    assert done.exit_code == 0, done.output
    assert f"no room for colours of degree {degree}" in done.stderr
    kept, lost = encode(cloud(degree=degree), Format.NIANTIC)
    assert lost == []
    assert decode(kept, Format.NIANTIC).sh_degree == degree


def test_bright_colours_that_are_cut_off_are_counted() -> None:
    splats = cloud()
    f_dc = np.array(splats.f_dc)
    f_dc[:9] = 5
    assert encode(splats.replace(f_dc=f_dc), Format.SUBNET)[1] == [
        "9 colours beyond what subnet holds are cut off"
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["positions", "opacity_logits", "f_dc", "log_scales"]),
    st.integers(0, 49),
    st.floats(0.5, 50, width=32),
    st.sampled_from([Format.PLY, Format.SUBNET, Format.NIANTIC]),
)
def test_any_one_value_that_came_back_as_another_is_seen(
    field: str, row: int, off: float, kind: Format
) -> None:
    splats = cloud(50)
    values = np.array(getattr(splats, field))
    values[row] = -np.sign(values[row]) * 3 if field == "opacity_logits" else values[row] + off
    with pytest.raises(SplatError, match=f"of gaussian {row} is"):
        losses(splats, splats.replace(**{field: values}), kind)


def test_a_lost_gaussian_and_another_order_are_seen() -> None:
    splats = cloud(50)
    with pytest.raises(SplatError, match="49 of 50 gaussians"):
        losses(splats, splats.select(slice(1, None)), Format.PLY)
    with pytest.raises(SplatError, match="position"):
        losses(splats, splats.select(np.arange(50)[::-1]), Format.PLY)
    assert losses(splats, splats.select(np.arange(50)[::-1]), Format.SPLAT) == []


def library(kind: str) -> bytes:
    from gaussforge import GaussForge  # type: ignore[import-untyped]

    answer = GaussForge().convert(write_ply(cloud(600)), "ply", kind)
    assert "error" not in answer, answer
    data: bytes = answer["data"]
    return data


@pytest.mark.parametrize(
    ("kind", "name"),
    [("compressed.ply", "a.ply"), ("ksplat", "a.ksplat"), ("sog", "a.sog"), ("splat", "a.splat")],
)
def test_formats_of_viewers_are_recognised_and_read(tmp_path: Path, kind: str, name: str) -> None:
    source, target = tmp_path / name, tmp_path / "back.ply"
    source.write_bytes(library(kind))
    done = run("convert", source, target)
    assert done.exit_code == 0, done.output
    assert len(read_ply(target.read_bytes())) == 600


@pytest.mark.parametrize("kind", [Format.COMPRESSED, Format.KSPLAT, Format.SOG])
def test_formats_that_are_only_read_say_so(tmp_path: Path, kind: Format) -> None:
    source = tmp_path / "a.ply"
    source.write_bytes(write_ply(cloud()))
    done = run("convert", source, tmp_path / "b", "--to", kind)
    assert done.exit_code == 2
    assert "read and not written" in done.stderr


@pytest.mark.parametrize("name", ["a.ply.gz", "a.ply", "a"])
def test_a_gzipped_file_is_looked_into(tmp_path: Path, name: str) -> None:
    source, target = tmp_path / name, tmp_path / "back.ply"
    source.write_bytes(gzip.compress(write_ply(cloud())))
    assert run("convert", source, target).exit_code == 0
    assert len(read_ply(target.read_bytes())) == 400
    source.write_bytes(gzip.compress(encode_spz(cloud())))
    assert run("convert", source, target).exit_code == 0


def test_what_unpacks_to_too_much_or_not_at_all_is_refused() -> None:
    bomb = gzip.compress(write_ply(cloud()))
    with pytest.raises(SplatTooLarge):
        decode(bomb, Format.PLY, Limits(max_bytes=10_000))
    with pytest.raises(SplatError, match="cut short"):
        decode(bomb[:-20], Format.PLY)
    with pytest.raises(SplatError, match="damaged"):
        sniff(b"\x1f\x8b" + b"\xff" * 50, "x.ply")


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(zipfile.ZipInfo("readme.txt"), "none")
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"\n  <?xml version='1.0'?><a/>", "an XML file"),
        (b'{"error":"busy"}', "a JSON file"),
        (b'{"asset":{"version":"2.0"}}', "a glTF file"),
        (zipped(), "a zip archive"),
        (b"glTF\x02\0\0\0", "binary glTF"),
        (b"\x89PNG\r\n", "a PNG picture"),
        (b"\xff\xd8\xff\xe0", "a JPEG picture"),
        (b"solid cube", "an STL file"),
        (gzip.compress(b"{}", mtime=0), "gzipped a JSON file"),
    ],
)
@pytest.mark.parametrize("name", ["x.ply", "x.splat", "x"])
def test_a_file_that_stands_where_a_splat_was_meant_is_named(
    tmp_path: Path, content: bytes, word: str, name: str
) -> None:
    (tmp_path / name).write_bytes(content)
    done = run("inspect", tmp_path / name)
    assert done.exit_code == 2
    assert word in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["fix", "convert"])
def test_a_full_disk_leaves_the_original_as_it_was(tmp_path: Path, command: str) -> None:
    """The limit on a file's size stands for the disk: writing ends half way."""
    source = tmp_path / "a.ply"
    before = write_ply(cloud(8000))
    source.write_bytes(before)

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from sn17.splat import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", code, command, str(source), str(source), "--to", "ply"],
        preexec_fn=small_disk,
        capture_output=True,
        text=True,
        check=False,
        env={**unmeasured(), "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_DISABLE_JIT": "1"},
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().count("\n") == 0, done.stderr
    assert source.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.ply"]
