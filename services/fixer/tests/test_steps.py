from __future__ import annotations

import math

import numpy as np
import pytest
from fixer_splats import assert_same_bits, shell
from hypothesis import given, settings
from hypothesis import strategies as st
from sn17_fixer.model import CLAMP_LOGIT
from sn17_fixer.reference import TRELLIS
from sn17_fixer.steps.opacity import (
    fill_collapsed,
    impute_clamped,
    invert_alpha,
    match_reference,
    truncated_means,
    undo_double_activation,
)
from sn17_fixer.steps.phase1 import shift_with_noise
from sn17_fixer.steps.placement import place
from sn17_fixer.steps.sanitise import clamp_infinities, clamp_scales, drop_bad_rows, fill_opacity
from sn17_fixer.steps.trim import drop_strays
from sn17_splats import SplatError, Splats

OTHERS = ("positions", "log_scales", "rotations", "f_dc")


def with_logits(splats: Splats, logits: np.ndarray) -> Splats:
    return splats.replace(opacity_logits=np.asarray(logits, np.float32))


# --- phase1 ---------------------------------------------------------------------------------------------


def test_phase1_is_the_rule_of_the_design() -> None:
    splats = shell(mean=-2.0, std=2.9, n=96_000)
    repair = shift_with_noise(splats, seed=1)
    logits = repair.splats.opacity_logits
    assert repair.step.changed == len(splats)
    assert logits.mean() == pytest.approx(4.0, abs=0.05)
    assert logits.std() == pytest.approx(math.sqrt(2) * splats.opacity_logits.std(), rel=0.01)
    assert repair.step.detail["accepted"] is True
    noise = logits - splats.opacity_logits - np.float32(4.0 - splats.opacity_logits.mean())
    assert np.corrcoef(noise, splats.opacity_logits)[0, 1] == pytest.approx(0, abs=0.02)
    assert_same_bits(splats, repair.splats, *OTHERS)


@pytest.mark.parametrize("mean", [0.01, 1.0, 3.0, 4.0, 5.0, 8.0])
def test_phase1_leaves_any_mean_from_zero_up_alone(mean: float) -> None:
    splats = with_logits(shell(), np.full(9600, mean))
    assert shift_with_noise(splats, seed=1).splats is splats


def test_phase1_is_seeded() -> None:
    splats = shell(mean=-2.0)
    first, again, other = (shift_with_noise(splats, seed=seed).splats for seed in (1, 1, 2))
    assert_same_bits(first, again)
    assert not np.array_equal(first.opacity_logits, other.opacity_logits)


def test_phase1_says_where_its_own_acceptance_fails() -> None:
    """A flat file stays flat: noise of no spread is no noise."""
    repair = shift_with_noise(with_logits(shell(), np.full(9600, -9.21)), seed=1)
    assert np.ptp(repair.splats.opacity_logits) < 1e-5
    assert repair.step.detail["accepted"] is False


# --- sanitise -------------------------------------------------------------------------------------------


def test_infinite_opacity_is_clamped_and_nothing_else_is_touched() -> None:
    splats = shell()
    splats.opacity_logits[:3] = np.inf, -np.inf, 30.0
    repair = clamp_infinities(splats)
    assert repair.splats.opacity_logits[:3].tolist() == pytest.approx([CLAMP_LOGIT, -CLAMP_LOGIT, 30.0])
    assert repair.step.changed == 2
    assert_same_bits(splats, repair.splats, *OTHERS)
    np.testing.assert_array_equal(splats.opacity_logits[3:], repair.splats.opacity_logits[3:])
    assert np.isinf(splats.opacity_logits[0])  # the input was not written to


def test_missing_opacity_comes_from_the_surroundings() -> None:
    """The left half is opaque, the right half is not: what is missing follows its side."""
    splats = shell(n=32_000)
    left = splats.positions[:, 0] < 0
    logits = np.where(left, 6.0, -3.0)
    missing = np.random.default_rng(0).random(len(splats)) < 0.3
    repair = fill_opacity(with_logits(splats, np.where(missing, np.nan, logits)))
    assert repair.step.changed == missing.sum()
    away = missing & (np.abs(splats.positions[:, 0]) > 0.12)
    np.testing.assert_allclose(repair.splats.opacity_logits[away], logits[away], atol=0.5)
    np.testing.assert_array_equal(repair.splats.opacity_logits[~missing], logits[~missing].astype(np.float32))


def test_missing_opacity_follows_size() -> None:
    splats = shell(n=32_000, trellis=False)
    logits = 2 - 3 * (splats.log_scales.max(axis=1) + 4)
    missing = np.arange(len(splats)) % 4 == 0
    filled = fill_opacity(with_logits(splats, np.where(missing, np.nan, logits))).splats.opacity_logits
    low, high = np.percentile(logits[~missing], (0.1, 99.9))  # what is made up stays within what is known
    np.testing.assert_allclose(filled[missing], logits[missing].clip(low, high), atol=0.01)


def test_infinities_can_be_filled_in_too() -> None:
    splats = with_logits(shell(), np.full(9600, 2.0))
    splats.opacity_logits[:10] = np.nan
    splats.opacity_logits[10:20] = np.inf
    repair = fill_opacity(splats, infinite=True)
    assert repair.step.changed == 20
    np.testing.assert_allclose(repair.splats.opacity_logits, 2.0, rtol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_filling_in_when_nothing_is_known(n: int) -> None:
    splats = with_logits(shell(n=32).select(slice(0, n)), np.full(n, np.nan))
    assert fill_opacity(splats).splats.opacity_logits.tolist() == [0.0] * n


@pytest.mark.parametrize("offset", [(-1, 0, 0), (-1, -1, 0), (1, 1, 1), (-5, 3, 1000)])
def test_one_known_neighbour_outside_of_its_own_cell_is_enough(offset: tuple[float, float, float]) -> None:
    positions = np.ones((2, 3), np.float32)
    positions[0] += np.array(offset, np.float32)
    ones = np.ones((2, 3), np.float32)
    splats = Splats(positions, ones, np.ones((2, 4), np.float32), np.array([np.nan, 1.5], np.float32), ones)
    assert fill_opacity(splats).splats.opacity_logits.tolist() == [1.5, 1.5]


@pytest.mark.parametrize("field", ["positions", "log_scales", "rotations", "f_dc"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_no_numbers_are_dropped(field: str, value: float) -> None:
    splats = shell()
    getattr(splats, field)[[0, 500, 9599], -1] = value
    repair = drop_bad_rows(splats)
    assert (len(repair.splats), repair.step.changed) == (9597, 3)
    keep = np.delete(np.arange(9600), [0, 500, 9599])
    assert_same_bits(repair.splats, splats.select(keep))


def test_zero_rotations_are_dropped_and_flat_gaussians_are_not() -> None:
    splats = shell()
    splats.rotations[4] = 0
    splats.log_scales[5, 1] = -np.inf
    repair = drop_bad_rows(splats)
    assert repair.step.changed == 1
    flat = clamp_scales(repair.splats, core_extent=1.0)
    assert flat.step.changed == 1
    assert flat.splats.log_scales[4, 1] == -10


def test_higher_colour_terms_are_zeroed_not_dropped() -> None:
    rest = np.ones((9600, 9), np.float32)
    rest[3, 4] = np.nan
    repair = drop_bad_rows(shell().replace(f_rest=rest))
    assert len(repair.splats) == 9600
    assert repair.splats.f_rest[3].tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1]


def test_scales_are_clamped_to_half_the_extent() -> None:
    splats = shell()
    splats.log_scales[9, 2] = 2.0
    repair = clamp_scales(splats, core_extent=0.8)
    assert repair.step.changed == 1
    assert repair.splats.log_scales[9, 2] == pytest.approx(math.log(0.4))
    assert_same_bits(splats.select(np.arange(9)), repair.splats.select(np.arange(9)))


# --- strays ---------------------------------------------------------------------------------------------


def test_strays_are_dropped_and_the_rest_keeps_its_bits() -> None:
    splats = shell()
    splats.positions[[11, 9000]] = [[30, 0, 0], [0, -9, 0]]
    repair = drop_strays(splats)
    assert repair.step.changed == 2
    assert_same_bits(repair.splats, splats.select(np.delete(np.arange(9600), [11, 9000])))


def test_without_strays_nothing_is_copied() -> None:
    splats = shell()
    assert drop_strays(splats).splats is splats


# --- opacity --------------------------------------------------------------------------------------------


def test_alpha_as_logit_is_inverted_exactly() -> None:
    splats = shell(std=2.0)
    alpha = 1 / (1 + np.exp(-splats.opacity_logits.astype(np.float64)))
    fixed = invert_alpha(with_logits(splats, alpha)).splats.opacity_logits
    inner = np.abs(splats.opacity_logits) < 7
    np.testing.assert_allclose(fixed[inner], splats.opacity_logits[inner], atol=2e-3)
    assert np.isfinite(invert_alpha(with_logits(splats, np.arange(9600) % 2)).splats.opacity_logits).all()


@pytest.mark.parametrize(("low", "clamp"), [(1e-4, 9.21034), (1e-3, 6.90675)])
def test_double_activation_is_undone_exactly_within_the_clamp(low: float, clamp: float) -> None:
    splats = shell(n=32_000)
    original = splats.opacity_logits.astype(np.float64)
    clipped = original.clip(low, 1 - low)
    damaged = with_logits(splats, np.log(clipped / (1 - clipped)))
    repair = undo_double_activation(damaged, clamp=clamp, reference=TRELLIS)
    fixed = repair.splats.opacity_logits
    inner = (original > low * 1.01) & (original < 1 - low * 1.01)
    np.testing.assert_allclose(fixed[inner], original[inner], atol=1e-5)
    assert repair.step.detail["exact"] == pytest.approx(inner.sum(), abs=5)
    above, below = truncated_means(TRELLIS)
    np.testing.assert_allclose(fixed[original > 1], above, rtol=1e-6)
    np.testing.assert_allclose(fixed[original < 0], below, rtol=1e-6)


def test_truncated_means_are_those_of_the_normal_distribution() -> None:
    drawn = np.random.default_rng(0).normal(TRELLIS.mean, TRELLIS.std, 2_000_000)
    above, below = truncated_means(TRELLIS)
    assert above == pytest.approx(drawn[drawn > 1].mean(), abs=0.01)
    assert below == pytest.approx(drawn[drawn < 0].mean(), abs=0.02)


def test_only_overwritten_opacities_are_imputed() -> None:
    splats = shell(n=32_000, std=0.5)
    lost = np.arange(32_000) % 3 == 0
    damaged = with_logits(splats, np.where(lost, np.float32(-9.2103404), splats.opacity_logits))
    repair = impute_clamped(damaged, value=float(np.float32(-9.2103404)))
    assert repair.step.changed == lost.sum()
    np.testing.assert_array_equal(repair.splats.opacity_logits[~lost], splats.opacity_logits[~lost])
    assert repair.splats.opacity_logits[lost].mean() == pytest.approx(3.86, abs=0.1)


def test_imputed_opacities_are_like_those_around_them() -> None:
    """Glass beside stone stays glass: the mean of the whole would be wrong for both."""
    splats = shell(n=32_000, std=0.5)
    glass = splats.positions[:, 0] < 0
    original = np.where(glass, np.float32(-2), np.float32(4)) + splats.opacity_logits - 3.86
    lost = np.arange(32_000) % 3 == 0
    damaged = with_logits(splats, np.where(lost, np.float32(-9.2103404), original))
    filled = impute_clamped(damaged, value=float(np.float32(-9.2103404))).splats.opacity_logits
    inside = np.abs(splats.positions[:, 0]) > 0.1
    assert filled[lost & inside & glass].mean() == pytest.approx(-2, abs=0.3)
    assert filled[lost & inside & ~glass].mean() == pytest.approx(4, abs=0.3)


@settings(max_examples=30, deadline=None)
@given(mean=st.floats(-9, 1), std=st.floats(0.1, 9))
def test_matching_keeps_ranks_and_meets_the_reference(mean: float, std: float) -> None:
    splats = shell(n=3200, mean=mean, std=std)
    repair = match_reference(splats, TRELLIS)
    matched = repair.splats.opacity_logits
    assert matched.mean() == pytest.approx(TRELLIS.mean, abs=1e-3)
    order = np.argsort(splats.opacity_logits, kind="stable")
    assert (np.diff(matched[order]) >= 0).all()
    actual = float(splats.opacity_logits.std())
    if 1.5 <= actual <= 4.5:
        assert matched.std() == pytest.approx(actual, rel=1e-3)
    else:
        assert matched.std() == pytest.approx(TRELLIS.std, rel=1e-3)
    assert_same_bits(splats, repair.splats, *OTHERS)


def test_collapse_gives_one_constant() -> None:
    fixed = fill_collapsed(shell(), value=2.0).splats
    assert (fixed.opacity_logits == 2.0).all()


# --- placement ------------------------------------------------------------------------------------------


def validator_positions(splats: Splats) -> np.ndarray:
    """The validator's normalisation, worked out by itself."""
    points = splats.positions.astype(np.float64)
    k = 1.5 / np.ptp(points, axis=0).max()
    return (points - points.mean()) * k


def test_placement_is_drawn_by_the_validator_as_it_is() -> None:
    splats = shell()
    splats.positions[:] = splats.positions * np.float32([1, 0.5, 0.3]) + np.float32([0.2, -1.0, 0.4])
    placed = place(splats).splats
    np.testing.assert_allclose(placed.positions, validator_positions(placed), atol=1e-5)
    assert np.ptp(placed.positions, axis=0).max() == pytest.approx(1.5, rel=1e-6)
    # Off centre by the same on all axes at most: a shift along (1, 1, 1) is not the sender's to choose.
    center = (placed.positions.max(axis=0) + placed.positions.min(axis=0)) / 2
    assert np.ptp(center) == pytest.approx(0, abs=1e-5)
    before = validator_positions(splats)
    assert np.abs(center).max() < np.abs((before.max(axis=0) + before.min(axis=0)) / 2).max()
    sizes = placed.log_scales - splats.log_scales
    np.testing.assert_allclose(sizes, math.log(1.5 / np.ptp(splats.positions, axis=0).max()), atol=1e-5)
    assert_same_bits(splats, placed, "rotations", "f_dc", "opacity_logits")


def test_one_bad_position_does_not_take_all_others_with_it() -> None:
    splats = shell()
    splats.positions[4, 1] = np.nan
    with pytest.raises(SplatError, match="can't be placed"):
        place(splats)


def test_placement_without_scaling_and_of_a_point() -> None:
    splats = shell()
    moved = place(splats, scale=False).splats
    assert_same_bits(splats, moved, "log_scales")
    np.testing.assert_allclose(np.ptp(moved.positions, axis=0), np.ptp(splats.positions, axis=0), rtol=1e-5)
    point = place(splats.replace(positions=np.ones_like(splats.positions))).splats
    assert np.isfinite(point.positions).all()
