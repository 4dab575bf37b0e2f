from __future__ import annotations

import numpy as np
import pytest
from fixer_splats import assert_same_bits, shell
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sn17_contract.fixer import FixVerdict
from sn17_fixer.model import PolicyName, Reason, RenderCheck
from sn17_fixer.policy import FixOptions, fix
from sn17_splats import SplatError, Splats, decode_spz, encode_spz, read_splat

PHASE1 = FixOptions(policy=PolicyName.PHASE1)


def never(_: Splats) -> RenderCheck:
    raise AssertionError("a render was asked for")


def with_logits(splats: Splats, logits: np.ndarray) -> Splats:
    return splats.replace(opacity_logits=np.asarray(logits, np.float32))


@pytest.mark.parametrize("policy", list(PolicyName))
def test_a_healthy_splat_comes_out_as_it_went_in(policy: PolicyName) -> None:
    splats = shell()
    fixed = fix(splats, FixOptions(policy=policy, checker=never))
    assert fixed.splats is splats
    assert fixed.verdict is FixVerdict.HEALTHY
    assert not any(step.changed for step in fixed.steps)


@pytest.mark.parametrize("file", ["robocop_404.spz", "hamburger.ply", "tmp_model_0b21e73.ply"])
def test_real_splats_keep_their_bits_but_for_infinities(real_splats, file: str) -> None:
    splats = read_splat((real_splats / file).read_bytes())
    fixed = fix(splats)
    assert fixed.verdict is FixVerdict.HEALTHY
    assert_same_bits(fixed.splats, splats, "positions", "log_scales", "rotations", "f_dc")
    finite = np.isfinite(splats.opacity_logits)
    np.testing.assert_array_equal(fixed.splats.opacity_logits[finite], splats.opacity_logits[finite])
    assert np.isfinite(fixed.splats.opacity_logits).all()


def test_dim_splats_of_other_origin_are_respected_by_measured_and_not_by_phase1() -> None:
    splats = shell(trellis=False, mean=-2.08, std=1.47)
    assert fix(splats).splats is splats
    fixed = fix(splats, PHASE1)
    assert fixed.verdict is FixVerdict.REPAIRED
    assert Reason.LOW_MEAN_LOGIT in fixed.reasons
    assert_same_bits(fixed.splats, splats, "positions", "log_scales", "rotations", "f_dc")


def test_a_transparent_asset_of_the_generator_is_matched_where_the_render_agrees() -> None:
    splats = shell()
    fixed = fix(with_logits(splats, splats.opacity_logits - splats.opacity_logits.mean() - 6.9))
    assert fixed.verdict is FixVerdict.REPAIRED
    assert Reason.VISIBLY_TRANSPARENT in fixed.reasons
    np.testing.assert_allclose(fixed.splats.opacity_logits, splats.opacity_logits, atol=0.1)


def checks(*answers: RenderCheck):
    pending = list(answers)
    return lambda _: pending.pop(0)


@pytest.mark.parametrize(
    ("answers", "changed", "names"),
    [
        ([RenderCheck(0.999, 0.99)], 0, ["render_check"]),  # thick enough to be opaque all the same
        ([RenderCheck(0.2, 0.7), RenderCheck(0.999, 0.99)], 9600, ["render_check", "match_reference"]),
        ([RenderCheck(0.2, 0.7), RenderCheck(0.2, 0.71)], 0, ["render_check", "match_reference"]),  # no help
        ([RenderCheck(0.2, 0.7), RenderCheck(0.9, 0.6)], 0, ["render_check", "match_reference"]),
    ],
)
def test_the_render_decides(answers, changed, names) -> None:
    splats = shell(mean=-2.0)
    fixed = fix(splats, FixOptions(checker=checks(*answers)))
    assert [step.name for step in fixed.steps] == names
    assert fixed.steps[-1].changed == changed
    assert (fixed.verdict is FixVerdict.REPAIRED) == bool(changed)
    if not changed:
        assert fixed.splats is splats


DAMAGES = {
    "flat": lambda x: np.full_like(x, -9.2103404),
    "alpha": lambda x: 1 / (1 + np.exp(-x.astype(np.float64))),
    "double": lambda x: np.log(x.clip(1e-4, 0.9999) / (1 - x.clip(1e-4, 0.9999))),
    "clamped": lambda x: np.where(np.arange(len(x)) % 10 < 3, -9.2103404, x),
    "offset": lambda x: x - 9,
    "squeezed": lambda x: (x - x.mean()) * 0.2 - 3,
    "holes": lambda x: np.where(np.arange(len(x)) % 10 == 0, np.nan, x),
    "saturated": lambda x: np.where(x > 4, np.inf, x),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("trellis", [True, False])
def test_fixing_twice_changes_nothing_more(damage: str, trellis: bool) -> None:
    splats = shell(trellis=trellis, n=12_800)
    once = fix(with_logits(splats, DAMAGES[damage](splats.opacity_logits)))
    assert np.isfinite(once.splats.opacity_logits).all()
    again = fix(once.splats)
    assert not any(step.changed for step in again.steps), again.steps


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_fixed_passes_through_spz_and_is_healthy_there(damage: str) -> None:
    splats = shell(n=12_800)
    once = fix(with_logits(splats, DAMAGES[damage](splats.opacity_logits)))
    again = fix(decode_spz(encode_spz(once.splats)))
    assert again.verdict is FixVerdict.HEALTHY
    assert again.after.gates.passed


def test_overwritten_and_missing_opacity_together() -> None:
    """What was overwritten is no evidence for what is missing."""
    splats = shell(n=32_000, std=0.5)
    logits = splats.opacity_logits.copy()
    logits[::3] = -9.2103404
    logits[1::3] = np.nan
    fixed = fix(with_logits(splats, logits))
    assert [step.name for step in fixed.steps if step.changed][:2] == ["impute_clamped", "fill_opacity"]
    assert fixed.splats.opacity_logits.min() > 1


def test_infinities_beside_nan_are_damage_unless_eight_bits_made_them() -> None:
    splats = shell()
    logits = splats.opacity_logits.copy()
    logits[::10], logits[1::10] = np.nan, np.inf
    assert fix(with_logits(splats, logits)).splats.opacity_logits[1::10].max() < 9.19
    saturated = np.where(np.abs(logits) > 5.5, np.inf, logits)
    assert fix(with_logits(splats, saturated)).splats.opacity_logits[1::10] == pytest.approx(9.2)


def test_every_bad_row_goes_and_all_else_stays() -> None:
    splats = shell()
    splats.positions[3] = 50.0
    splats.positions[4, 1] = np.nan
    splats.rotations[5] = 0
    splats.log_scales[6, 0] = np.inf
    splats.log_scales[7, 0] = 3.0
    fixed = fix(splats)
    assert fixed.verdict is FixVerdict.REPAIRED
    assert len(fixed.splats) == 9596
    kept = np.delete(np.arange(9600), [3, 4, 5, 6])
    assert_same_bits(fixed.splats, splats.select(kept), "positions", "rotations", "f_dc", "opacity_logits")
    assert {step.name for step in fixed.steps if step.changed} == {
        "drop_bad_rows",
        "drop_strays",
        "clamp_scales",
    }
    assert fixed.after.reasons == ()


def test_phase1_makes_numbers_of_everything_first() -> None:
    splats = shell(mean=-2.0)
    splats.opacity_logits[:4] = np.nan, np.inf, -np.inf, 0
    splats.positions[9] = np.nan
    fixed = fix(splats, PHASE1)
    assert len(fixed.splats) == 9599
    assert fixed.splats.opacity_logits.mean() == pytest.approx(4, abs=0.1)


def test_none_changes_nothing_at_all() -> None:
    splats = shell()
    splats.opacity_logits[:4] = np.nan, np.inf, -np.inf, 0
    splats.positions[9] = 90.0
    fixed = fix(splats, FixOptions(policy=PolicyName.NONE))
    assert fixed.splats is splats
    assert not fixed.steps


@pytest.mark.parametrize("policy", list(PolicyName))
def test_too_few_gaussians_are_unrepairable(policy: PolicyName) -> None:
    fixed = fix(shell(n=6400), FixOptions(policy=policy))
    assert fixed.verdict is FixVerdict.UNREPAIRABLE
    assert Reason.TOO_FEW_GAUSSIANS in fixed.reasons


def test_placement_is_a_stage_of_its_own() -> None:
    splats = shell()
    splats.positions[:] += np.float32(0.3)
    fixed = fix(splats, FixOptions(place=True))
    assert fixed.verdict is FixVerdict.HEALTHY
    assert [step.name for step in fixed.steps if step.changed] == ["place"]
    assert fixed.after.extents.max_extent == pytest.approx(1.5, rel=1e-5)
    assert fixed.after.extents.alpha_factor == pytest.approx(1.0, rel=1e-5)


def test_nothing_left_is_an_error() -> None:
    splats = shell(n=32).replace(positions=np.full((32, 3), np.nan, np.float32))
    with pytest.raises(SplatError, match="no gaussian is left"):
        fix(splats)


ODD = st.sampled_from([0.0, 1.0, -1.0, 9.2, -9.2103404, 1e-30, 3e38, -3e38, np.nan, np.inf, -np.inf, 1e15])


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 64), st.just(14)), elements=ODD | st.floats(-5, 5, width=32)),
    st.sampled_from([PolicyName.MEASURED, PolicyName.PHASE1]),
    st.booleans(),
)
def test_any_floats_come_out_finite_or_are_refused(
    values: np.ndarray, policy: PolicyName, place: bool
) -> None:
    splats = Splats(values[:, :3], values[:, 3:6], values[:, 6:10], values[:, 13], values[:, 10:13])
    before = [np.array(array) for array in (splats.positions, splats.opacity_logits)]
    try:
        fixed = fix(splats, FixOptions(policy=policy, place=place)).splats
    except SplatError:
        return
    finally:
        np.testing.assert_array_equal(before[0], splats.positions)
        np.testing.assert_array_equal(before[1], splats.opacity_logits)
    for name in ("positions", "rotations", "f_dc", "opacity_logits"):
        assert np.isfinite(getattr(fixed, name)).all(), name
