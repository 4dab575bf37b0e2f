from __future__ import annotations

import numpy as np
import pytest
from fixer_splats import shell
from pydantic import TypeAdapter
from sn17_fixer.diagnosis import diagnose
from sn17_fixer.model import Diagnosis, Reason
from sn17_fixer.reference import TRELLIS, Reference
from sn17_splats import Splats, decode_spz, encode_spz, read_splat


def reasons(splats: Splats) -> tuple[str, ...]:
    return diagnose(splats).reasons


def with_logits(splats: Splats, logits: np.ndarray) -> Splats:
    return splats.replace(opacity_logits=logits.astype(np.float32))


def test_a_healthy_splat_has_no_reasons() -> None:
    diagnosis = diagnose(shell())
    assert (diagnosis.verdict, diagnosis.reasons) == ("healthy", ())
    assert diagnosis.fingerprint.is_trellis
    assert diagnosis.gates.passed
    assert not diagnose(shell(trellis=False)).fingerprint.is_trellis


@pytest.mark.parametrize(
    ("file", "count", "mean", "std", "trellis"),
    [
        ("robocop_404.spz", 267_776, 2.68, 1.87, True),
        ("hamburger.ply", 52_709, 0.68, 2.78, False),
        ("tmp_model_0b21e73.ply", 49_744, -2.08, 1.47, False),
    ],
)
def test_real_splats_are_healthy(real_splats, file, count, mean, std, trellis) -> None:
    diagnosis = diagnose(read_splat((real_splats / file).read_bytes()))
    assert (diagnosis.verdict, diagnosis.gaussians) == ("healthy", count)
    assert diagnosis.opacity.logit.mean == pytest.approx(mean, abs=0.01)
    assert diagnosis.opacity.logit.std == pytest.approx(std, abs=0.01)
    assert diagnosis.fingerprint.is_trellis == trellis


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda x: np.full_like(x, -9.2103404), Reason.OPACITY_COLLAPSED),
        (lambda x: 1 / (1 + np.exp(-x)), Reason.ALPHA_AS_LOGIT),
        (lambda x: np.log(x.clip(1e-4, 0.9999) / (1 - x.clip(1e-4, 0.9999))), Reason.DOUBLE_ACTIVATION),
        (lambda x: np.log(x.clip(1e-3, 0.999) / (1 - x.clip(1e-3, 0.999))), Reason.DOUBLE_ACTIVATION),
        (lambda x: np.where(np.arange(len(x)) % 10 < 3, -9.2103404, x), Reason.OPACITY_CLAMPED),
        (lambda x: np.where(np.arange(len(x)) % 10 < 3, -6.9067548, x), Reason.OPACITY_CLAMPED),
        (lambda x: x - x.mean() - 2, Reason.OPACITY_SUSPECT),
        (lambda x: np.where(np.arange(len(x)) == 5, np.nan, x), Reason.MISSING_OPACITY),
    ],
)
def test_each_damage_of_the_opacity_has_its_reason(damage, expected) -> None:
    splats = shell()
    found = reasons(with_logits(splats, damage(splats.opacity_logits.astype(np.float64))))
    assert tuple(reason for reason in found if reason != Reason.TOO_TRANSPARENT) == (expected,)


@pytest.mark.parametrize(
    "harmless",
    [
        lambda x: np.full_like(x, 4.0),  # flat and opaque: a style
        lambda x: np.where(x > 3, np.inf, x),  # saturated
        lambda x: np.where(x > 3, 9.2, x),  # what the fixer makes of that
        lambda x: np.where(x < 1, -9.2, x),
        lambda x: x * 0.4 + 5,
    ],
)
def test_what_is_no_damage_is_not_called_so(harmless) -> None:
    splats = shell()
    assert reasons(with_logits(splats, harmless(splats.opacity_logits))) == ()


def test_a_quantised_column_is_not_called_clamped() -> None:
    """An 8-bit file has levels that repeat; a share of fully transparent ones is its own business."""
    splats = shell()
    alpha = np.round(255 / (1 + np.exp(-splats.opacity_logits))) / 255
    alpha[:1500] = 0
    clipped = alpha.clip(1e-4, 1 - 1e-4)
    assert Reason.OPACITY_CLAMPED not in reasons(with_logits(splats, np.log(clipped / (1 - clipped))))


def test_a_dim_splat_of_another_origin_is_not_suspect() -> None:
    assert reasons(shell(trellis=False, mean=-2.08, std=1.47)) == ()


def test_the_reference_decides_what_is_suspect() -> None:
    splats = shell(mean=0.0, std=1.0)
    assert diagnose(splats, reference=TRELLIS).reasons == (Reason.OPACITY_SUSPECT,)
    assert diagnose(splats, reference=Reference(0.5, 1.0, 3)).reasons == ()


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("positions", np.nan, Reason.NONFINITE_ROWS),
        ("positions", -np.inf, Reason.NONFINITE_ROWS),
        ("log_scales", np.inf, Reason.NONFINITE_ROWS),
        ("f_dc", np.nan, Reason.NONFINITE_ROWS),
        ("rotations", np.nan, Reason.NONFINITE_ROWS),
        ("rotations", 0.0, Reason.ZERO_ROTATIONS),
        ("log_scales", 3.0, Reason.OVERSIZED_SCALES),
        ("positions", 40.0, Reason.STRAY_POINTS),
    ],
)
def test_bad_rows_are_found_and_counted(field, value, expected) -> None:
    splats = shell()
    getattr(splats, field)[[7, 8000]] = value
    diagnosis = diagnose(splats)
    assert expected in diagnosis.reasons
    assert diagnosis.verdict == "damaged"
    if expected in (Reason.NONFINITE_ROWS, Reason.ZERO_ROTATIONS):
        assert diagnosis.bad_rows == 2


def test_strays_and_what_they_do_to_the_picture() -> None:
    splats = shell()
    splats.positions[3] = 8.0
    extents = diagnose(splats).extents
    assert extents.strays == 1
    assert extents.core_extent == pytest.approx(0.84, abs=0.02)
    assert extents.size_ratio == pytest.approx(8.4 / 0.84, rel=0.03)


def test_a_part_that_stands_apart_is_no_stray() -> None:
    splats = shell(n=320_000)
    splats.positions[:200] += np.float32(4)
    assert diagnose(splats).extents.strays == 0


def test_gates_of_the_validator() -> None:
    few = diagnose(shell(n=6976))
    assert (few.verdict, few.reasons) == ("unrepairable", (Reason.TOO_FEW_GAUSSIANS,))
    same = shell()
    same.rotations[:] = 1, 0, 0, 0
    assert diagnose(same).reasons == (Reason.IDENTITY_ROTATIONS,)
    same.rotations[4] = 0.9, 0.1, 0, 0
    assert diagnose(same).gates.passed
    hidden = shell()
    hidden.opacity_logits[: int(0.81 * len(hidden))] = -7
    assert Reason.TOO_TRANSPARENT in diagnose(hidden).reasons


@pytest.mark.parametrize("hidden", [7679, 7681])
def test_gates_agree_with_what_arrives_at_the_validator(hidden: int) -> None:
    """80 % of 9600 is 7680; alpha just above and below what rounds to 0 in 8 bits."""
    splats = shell()
    splats.opacity_logits[:] = -6.22
    splats.opacity_logits[:hidden] = -6.24
    arrived = decode_spz(encode_spz(splats))
    transparent = np.count_nonzero(1 / (1 + np.exp(-arrived.opacity_logits)) < 1e-3)
    assert transparent == hidden
    assert diagnose(splats).gates.opaque_enough == (transparent <= 0.8 * len(splats))


def test_nothing_is_unrepairable_and_described() -> None:
    nothing = shell().select(slice(0, 0))
    diagnosis = diagnose(nothing)
    assert (diagnosis.gaussians, diagnosis.verdict) == (0, "unrepairable")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_report_of_anything_is_json(value: float) -> None:
    full = np.full((40, 3), value, np.float32)
    splats = Splats(full, full, np.full((40, 4), value), np.full(40, value), full)
    text = TypeAdapter(Diagnosis).dump_json(diagnose(splats))
    assert b"NaN" not in text
    assert b"Infinity" not in text
