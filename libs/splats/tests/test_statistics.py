from __future__ import annotations

import json

import numpy as np
import pytest
from conftest_splats import make_splats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sn17_splats import read_splat, statistics
from sn17_splats.statistics import column_statistics


def test_infinities_are_counted_and_never_averaged() -> None:
    splats = make_splats(1000)
    splats.opacity_logits[:] = 2.0
    splats.opacity_logits[:300] = np.inf
    splats.opacity_logits[300:400] = -np.inf
    splats.opacity_logits[400:450] = np.nan
    report = statistics(splats)
    logit = report.logit
    assert (logit.pos_inf, logit.neg_inf, logit.nan, logit.finite) == (300, 100, 50, 550)
    assert (logit.mean, logit.std, logit.median) == (2.0, 0.0, 2.0)
    sigmoid = 1 / (1 + np.exp(-2.0))
    assert report.alpha_mean == pytest.approx((300 + 550 * sigmoid) / 950)
    assert report.transparent_share == 0.1
    alpha = report.user[0]
    assert (alpha.name, alpha.nan, alpha.minimum, alpha.maximum) == ("alpha", 50, 0.0, 1.0)


def test_the_mean_of_alpha_is_not_the_alpha_of_the_mean() -> None:
    splats = make_splats(2)
    splats.opacity_logits[:] = -20, 20
    assert statistics(splats).alpha_mean == pytest.approx(0.5)


@given(arrays(np.float32, st.integers(1, 40)))
def test_any_floats_are_described(values: np.ndarray) -> None:
    column = column_statistics("c", values)
    assert column.count == len(values)
    assert sum(column.histogram) == column.finite
    finite = values[np.isfinite(values)].astype(np.float64)
    if finite.size:
        assert column.mean == pytest.approx(finite.mean())
        assert column.std == pytest.approx(finite.std())
        assert column.minimum is not None
        assert column.maximum is not None
        assert column.minimum <= column.median <= column.maximum
    else:
        assert column.mean is None


def test_extent_is_of_the_finite_positions() -> None:
    splats = make_splats(100)
    splats.positions[:] = np.linspace(-1, 3, 100, dtype=np.float32)[:, None]
    splats.positions[5] = np.nan
    report = statistics(splats)
    assert report.extent == pytest.approx((4, 4, 4))
    assert report.center == pytest.approx((1, 1, 1))


def test_a_report_is_json() -> None:
    splats = make_splats(10, 1)
    splats.positions[:] = np.nan
    json.dumps(statistics(splats).as_dict(), allow_nan=False)


def test_figures_of_the_subnets_sample(real_splats) -> None:
    report = statistics(read_splat((real_splats / "robocop_404.spz").read_bytes()))
    assert report.logit.mean == pytest.approx(2.68, abs=0.01)
    assert report.logit.std == pytest.approx(1.87, abs=0.01)
    assert report.alpha_mean == pytest.approx(0.88, abs=0.01)
