"""Other exporters' conventions are brought to ours or left alone, never repaired into something else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sn17_contract.fixer import FixVerdict as Verdict
from sn17_fixer.conventions import SH_C0
from sn17_fixer.diagnosis import diagnose
from sn17_fixer.model import PolicyName, Reason
from sn17_fixer.policy import FixOptions, fix
from sn17_splats import Splats

FOREIGN = {Reason.LINEAR_SCALES, Reason.ACTIVATED_COLOURS, Reason.ROTATIONS_XYZW}


def thing(seed: int = 1, size: float = 1.0, n: int = 8000) -> Splats:
    """A ball of `n` gaussians in our conventions, `size` wide, its quaternions of either sign."""
    rng = np.random.default_rng(seed)
    positions = rng.normal(size=(n, 3))
    positions *= size / 2 / np.linalg.norm(positions, axis=1, keepdims=True)
    rotations = rng.normal(size=(n, 4))
    return Splats(
        positions.astype("f4"),
        (np.log(size / 90) + rng.normal(0, 0.1, (n, 3))).astype("f4"),
        (rotations / np.linalg.norm(rotations, axis=1, keepdims=True)).astype("f4"),
        rng.normal(3, 1, n).astype("f4"),
        rng.normal(0, 0.8, (n, 3)).clip(-1.77, 1.77).astype("f4"),
    )


def linear(splats: Splats) -> Splats:
    return splats.replace(log_scales=np.exp(splats.log_scales))


def bright(splats: Splats, top: float) -> Splats:
    return splats.replace(
        f_dc=((splats.f_dc * np.float32(SH_C0) + np.float32(0.5)).clip(0, 1) * np.float32(top))
    )


def xyzw(splats: Splats) -> Splats:
    signed = splats.rotations * np.where(splats.rotations[:, :1] < 0, -1, 1).astype("f4")
    return splats.replace(rotations=np.ascontiguousarray(np.roll(signed, -1, axis=1)))


@pytest.mark.parametrize("policy", [PolicyName.MEASURED, PolicyName.PHASE1])
@pytest.mark.parametrize("size", [0.01, 1.0, 3.0, 15.0, 10_000.0])
def test_scales_given_as_lengths_become_the_logarithms_they_were(size: float, policy: PolicyName) -> None:
    ours = thing(size=size)
    fixed = fix(linear(ours), FixOptions(policy=policy))
    assert Reason.LINEAR_SCALES in fixed.reasons
    assert Reason.OVERSIZED_SCALES not in fixed.reasons
    assert fixed.verdict is Verdict.REPAIRED
    np.testing.assert_allclose(fixed.splats.log_scales, ours.log_scales, atol=1e-5)


@pytest.mark.parametrize("top", [1.0, 255.0])
def test_colours_given_as_brightness_become_coefficients(top: float) -> None:
    ours = thing()
    fixed = fix(bright(ours, top))
    assert Reason.ACTIVATED_COLOURS in fixed.reasons
    np.testing.assert_allclose(fixed.splats.f_dc, ours.f_dc, atol=1e-4)


def test_quaternions_with_the_real_part_last_are_turned_round() -> None:
    ours = thing()
    fixed = fix(xyzw(ours))
    assert Reason.ROTATIONS_XYZW in fixed.reasons
    np.testing.assert_allclose(np.abs((fixed.splats.rotations * ours.rotations).sum(axis=1)), 1, atol=1e-5)


def test_all_three_at_once_are_undone_together() -> None:
    ours = thing()
    fixed = fix(xyzw(bright(linear(ours), 255)))
    assert set(fixed.reasons) >= FOREIGN
    assert not FOREIGN & set(fixed.after.reasons)
    np.testing.assert_allclose(fixed.splats.log_scales, ours.log_scales, atol=1e-5)


def test_policy_none_changes_nothing() -> None:
    theirs = linear(thing())
    fixed = fix(theirs, FixOptions(policy=PolicyName.NONE))
    assert fixed.splats is theirs


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(0.01, 5_000),
    st.floats(-7, 0.5),
    st.sampled_from(["as it is", "signs fixed", "white", "flat"]),
)
def test_files_in_our_conventions_are_never_taken_for_others(
    seed: int, size: float, detail: float, kind: str
) -> None:
    ours = thing(seed, size, n=500)
    ours = ours.replace(log_scales=ours.log_scales + np.float32(detail - 0.5))
    if kind == "signs fixed":
        ours = ours.replace(
            rotations=ours.rotations * np.where(ours.rotations[:, :1] < 0, -1, 1).astype("f4")
        )
    elif kind == "white":
        ours = ours.replace(f_dc=np.full_like(ours.f_dc, 0.5 / SH_C0))
    elif kind == "flat":
        ours = ours.replace(log_scales=np.where(np.arange(3) == 2, np.float32(-10), ours.log_scales))
    assert not FOREIGN & set(diagnose(ours).reasons)
