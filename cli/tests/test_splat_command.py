from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sn17.splat import app
from sn17.splat.tables import sparkline
from sn17_splats import Splats, decode_spz, encode_spz, read_ply, write_ply
from typer.testing import CliRunner, Result


def ball(n: int = 7200, *, mean: float = 4.0) -> Splats:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(n, 3))
    points *= 0.4 / np.linalg.norm(points, axis=1, keepdims=True)
    return Splats(
        points.astype(np.float32),
        np.full((n, 3), -4, np.float32),
        rng.normal(size=(n, 4)).astype(np.float32),
        rng.normal(mean, 1, n).astype(np.float32),
        rng.normal(size=(n, 3)).astype(np.float32),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ball.ply"
    path.write_bytes(write_ply(ball()))
    return path


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def test_inspect_shows_both_spaces_and_the_verdict(file: Path) -> None:
    result = run("inspect", file)
    assert result.exit_code == 0, result.output
    lines = {line.split("  ")[0].strip(): line for line in result.output.splitlines()}
    assert "opacity (logit)" in lines
    assert "alpha" in lines
    assert "healthy" in result.output
    assert "7,200" in result.output
    assert "█" in lines["opacity (logit)"]
    assert " 4.0" in lines["opacity (logit)"] or " 3.9" in lines["opacity (logit)"]


def test_inspect_as_json_is_exact(file: Path) -> None:
    result = run("inspect", file, "--json", "--render")
    report = json.loads(result.stdout)
    logits = ball().opacity_logits.astype(np.float64)
    opacity = next(column for column in report["statistics"]["raw"] if column["name"] == "opacity")
    assert opacity["mean"] == pytest.approx(logits.mean())
    assert opacity["std"] == pytest.approx(logits.std())
    assert report["statistics"]["alpha_mean"] == pytest.approx((1 / (1 + np.exp(-logits))).mean())
    assert (report["format"], report["diagnosis"]["verdict"]) == ("ply", "healthy")
    assert 0 < report["render"]["alpha_p10"] <= 1


@pytest.mark.parametrize(("count", "nan", "code"), [(7200, 0, 0), (7200, 9, 3), (6000, 0, 4)])
def test_inspect_tells_scripts_by_its_exit_code(tmp_path: Path, count: int, nan: int, code: int) -> None:
    splats = ball(count)
    splats.positions[:nan] = np.nan
    path = tmp_path / "x.ply"
    path.write_bytes(write_ply(splats))
    assert run("inspect", path).exit_code == code
    assert run("inspect", path, "--json").exit_code == code


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"nonsense", "nothing known, not a splat"), (b"ply\nformat", "end_header"), (None, "No such file")],
)
def test_errors_are_one_sentence(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "x"
    if content is not None:
        path.write_bytes(content)
    result = run("inspect", path)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


def test_fix_writes_what_the_subnet_reads_and_says_what_it_did(tmp_path: Path) -> None:
    splats = ball()
    splats.positions[3] = np.nan
    source, target = tmp_path / "bad.ply", tmp_path / "good.spz"
    source.write_bytes(write_ply(splats))
    result = run("fix", source, target)
    assert result.exit_code == 0, result.output
    assert "drop_bad_rows" in result.stdout
    assert "repaired" in result.stdout
    assert len(decode_spz(target.read_bytes())) == 7199
    assert run("inspect", target).exit_code == 0


def test_fix_policies_seed_and_report(tmp_path: Path) -> None:
    source, target = tmp_path / "dim.ply", tmp_path / "out.ply"
    source.write_bytes(write_ply(ball(mean=-2)))
    report = json.loads(run("fix", source, target, "--policy", "phase1", "--seed", 3, "--json").stdout)
    assert (report["verdict"], report["policy"]) == ("repaired", "phase1")
    first = read_ply(target.read_bytes()).opacity_logits
    assert first.mean() == pytest.approx(4, abs=0.1)
    run("fix", source, target, "--policy", "phase1", "--seed", 4)
    assert not np.array_equal(first, read_ply(target.read_bytes()).opacity_logits)
    assert run("fix", source, target, "--policy", "flat").exit_code == 2
    run("fix", source, target, "--place")
    assert np.ptp(read_ply(target.read_bytes()).positions, axis=0).max() == pytest.approx(1.5, rel=1e-4)


def test_fix_of_the_unrepairable_says_so(tmp_path: Path) -> None:
    source = tmp_path / "few.ply"
    source.write_bytes(write_ply(ball(100)))
    result = run("fix", source, tmp_path / "out.spz")
    assert result.exit_code == 4
    assert "too_few_gaussians" in result.stdout


def test_preview_is_a_picture(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.png"
    assert run("preview", file, target, "--size", 40).exit_code == 0
    assert Image.open(target).size == (85, 85)


@pytest.mark.parametrize(
    ("name", "to", "magic"),
    [
        ("a.ply", None, b"ply"),
        ("a.spz", "subnet", b"\x28\xb5\x2f\xfd"),
        ("a.spz", "niantic", b"\x1f\x8b"),
        ("a.splat", None, None),
        ("a.bin", "splat", None),
    ],
)
def test_convert_there_and_back(
    file: Path, tmp_path: Path, name: str, to: str | None, magic: bytes | None
) -> None:
    if to in ("niantic", "splat") or name.endswith(".splat"):
        pytest.importorskip("gaussforge", reason="the extra 'exchange' is not installed")
    target, back = tmp_path / name, tmp_path / "back.ply"
    result = run("convert", file, target, *(["--to", to] if to else []))
    assert result.exit_code == 0, result.output
    data = target.read_bytes()
    assert magic is None or data.startswith(magic)
    given = ["--from", "splat"] if name == "a.bin" else []
    assert run("convert", target, back, *given).exit_code == 0
    splats, original = read_ply(back.read_bytes()), ball()
    # A library may sort the gaussians: compare what does not depend on their order.
    np.testing.assert_allclose(
        np.sort(splats.positions, axis=0), np.sort(original.positions, axis=0), atol=2e-4
    )
    low, high = -4, 4  # beyond, one step of 8-bit alpha is a large step of the logit
    np.testing.assert_allclose(
        np.sort(splats.opacity_logits.clip(low, high)),
        np.sort(original.opacity_logits.clip(low, high)),
        atol=0.6,
    )
    if not name.endswith(".splat") and to != "splat":
        np.testing.assert_allclose(splats.log_scales, original.log_scales, atol=0.04)


@pytest.mark.parametrize(("name", "words"), [("a.spz", "--to subnet"), ("a", "--to"), ("a.obj", "--to")])
def test_a_name_that_does_not_say_the_format_is_asked_about(
    file: Path, tmp_path: Path, name: str, words: str
) -> None:
    result = run("convert", file, tmp_path / name)
    assert result.exit_code == 2
    assert words in result.stderr.replace("\n", " ")
    assert not (tmp_path / name).exists()


def test_compare_measures_and_judges(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.spz"
    other.write_bytes(encode_spz(ball()))
    report = json.loads(run("compare", file, other, "--size", 48, "--json").stdout)
    assert 40 < report["psnr"] < 80
    assert len(report["views"]) == 4
    same = run("compare", file, file, "--size", 48)
    assert (same.exit_code, "same" in same.stdout) == (0, True)
    assert run("compare", file, other, "--size", 48, "--min-psnr", 100).exit_code == 3
    assert run("compare", file, other, "--size", 48, "--min-psnr", 30).exit_code == 0


def test_calibrate_prints_settings_and_refuses_other_assets(file: Path) -> None:
    result = run("calibrate", file)
    assert result.exit_code == 2
    assert "fingerprint" in result.stderr


def test_pipes_carry_assets_and_nothing_else() -> None:
    """Three processes in a row, as a shell would run them."""
    code = "from sn17.splat import app; app()"

    def step(data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], input=data, capture_output=True, check=True
        )

    pytest.importorskip("gaussforge", reason="the extra 'exchange' is not installed")
    niantic = step(write_ply(ball()), "convert", "-", "-", "--to", "niantic").stdout
    fixed = step(niantic, "fix", "-", "-")
    assert len(decode_spz(fixed.stdout)) == 7200
    assert b"healthy" in fixed.stderr
    picture = step(fixed.stdout, "preview", "-", "-", "--size", "32").stdout
    assert Image.open(io.BytesIO(picture)).size == (69, 69)


def test_sparklines_show_every_bin_that_holds_anything() -> None:
    assert sparkline([0, 1, 1000, 500]) == " ▁█▄"
    assert sparkline([0, 0]) == "  "
    assert sparkline([3] * 24) == "█" * 24
