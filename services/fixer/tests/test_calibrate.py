from __future__ import annotations

import numpy as np
import pytest
from fixer_splats import shell
from sn17_fixer.calibrate import calibrate, fit_censored
from sn17_fixer.reference import TRELLIS
from sn17_splats import decode_spz, encode_spz, read_splat


def test_the_fit_sees_through_what_eight_bits_cut_off() -> None:
    splats = shell(n=64_000)
    arrived = decode_spz(encode_spz(splats))
    assert np.isinf(arrived.opacity_logits).mean() > 0.15
    mean, std = fit_censored(arrived)
    assert mean == pytest.approx(3.86, abs=0.05)
    assert std == pytest.approx(2.78, abs=0.05)


def test_assets_are_averaged() -> None:
    reference = calibrate([shell(mean=3, std=2), shell(mean=5, std=3, seed=1)])
    assert reference.mean == pytest.approx(4, abs=0.1)
    assert reference.std == pytest.approx(2.5, abs=0.1)
    assert reference.assets == 2
    assert reference.suspect_below == pytest.approx(reference.mean - reference.std)


def test_what_would_teach_the_wrong_thing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        calibrate([])
    with pytest.raises(ValueError, match="asset 2 does not carry"):
        calibrate([shell(), shell(trellis=False)])
    damaged = shell()
    damaged.positions[0] = np.nan
    with pytest.raises(ValueError, match="asset 1 is damaged: nonfinite_rows"):
        calibrate([damaged])


def test_the_built_in_reference_is_that_of_the_real_asset(real_splats) -> None:
    reference = calibrate([read_splat((real_splats / "robocop_404.spz").read_bytes())])
    assert reference.mean == pytest.approx(TRELLIS.mean, abs=0.02)
    assert reference.std == pytest.approx(TRELLIS.std, abs=0.02)
