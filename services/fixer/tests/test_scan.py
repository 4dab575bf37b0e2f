from __future__ import annotations

import numpy as np
import pytest
from fixer_splats import shell
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sn17_fixer.diagnosis import diagnose
from sn17_fixer.scan.columns import COLUMNS, Scan
from sn17_fixer.scan.numpy_pass import scan_numpy
from sn17_splats import Splats, read_ply, write_ply

scan_numba = pytest.importorskip("sn17_fixer.scan.numba_pass", reason="numba is not installed").scan_numba


def splats_of(values: np.ndarray) -> Splats:
    return Splats(values[:, :3], values[:, 3:6], values[:, 6:10], values[:, 13], values[:, 10:13])


def assert_alike(left: Scan, right: Scan) -> None:
    for name in ("count", "transparent"):
        assert getattr(left, name) == getattr(right, name), name
    for name in ("nonfinite", "minimum", "maximum", "histogram"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    with np.errstate(over="ignore"):
        for name in ("total", "squares"):
            a, b = getattr(left, name), getattr(right, name)
            np.testing.assert_allclose(
                a,
                b,
                rtol=1e-4,
                atol=1e-3 * max(1, np.abs(left.maximum[np.isfinite(left.maximum)]).max(initial=1)),
                err_msg=name,
            )
    np.testing.assert_allclose(left.norms, right.norms, rtol=1e-5)
    assert left.alpha_total == pytest.approx(right.alpha_total, rel=1e-5, abs=1e-5)


FLOATS = st.floats(width=32, min_value=-1000, max_value=1000) | st.sampled_from(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3e38, -3e38, 2e15, -16.0, 16.0]
)


@settings(max_examples=80, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 300), st.just(14)), elements=FLOATS, fill=st.just(0.5)))
def test_compiled_and_numpy_agree_on_any_floats(values: np.ndarray) -> None:
    values = values.astype(np.float32)
    assert_alike(scan_numpy(splats_of(values)), scan_numba(splats_of(values)))


@pytest.mark.parametrize("scanner", [scan_numpy, scan_numba])
@pytest.mark.parametrize("offset", [0.0, 3000.0])
def test_moments_are_exact(scanner, offset: float) -> None:
    """Also of a column far from zero, whose variance would drown in a plain sum of squares."""
    rng = np.random.default_rng(0)
    values = (rng.normal(size=(30_000, 14)) + offset).astype(np.float32)
    diagnosis = diagnose(splats_of(values), scanner=scanner)
    columns = {column.name: column for column in diagnosis.columns}
    for c, name in enumerate(COLUMNS):
        exact = values[:, c].astype(np.float64)
        column = columns[name]
        assert column.mean == pytest.approx(exact.mean(), rel=1e-6, abs=1e-5)
        assert column.std == pytest.approx(exact.std(), rel=1e-4)
        assert (column.minimum, column.maximum) == (exact.min(), exact.max())


@pytest.mark.parametrize("scanner", [scan_numpy, scan_numba])
def test_views_of_a_file_scan_like_copies(scanner) -> None:
    splats = shell()
    assert_alike(scanner(read_ply(write_ply(splats))), scanner(splats))


@pytest.mark.parametrize("scanner", [scan_numpy, scan_numba])
def test_percentiles_and_alpha(scanner) -> None:
    splats = shell(n=32_000)
    opacity = diagnose(splats, scanner=scanner).opacity
    logit = opacity.logit
    for percent, value in (
        (1, logit.p01),
        (10, logit.p10),
        (50, logit.p50),
        (90, logit.p90),
        (99, logit.p99),
    ):
        assert value == pytest.approx(np.percentile(splats.opacity_logits, percent), abs=1 / 32)
    alphas = 1 / (1 + np.exp(-splats.opacity_logits.astype(np.float64)))
    assert opacity.alpha.mean == pytest.approx(alphas.mean(), rel=1e-6)
    assert opacity.alpha.std == pytest.approx(alphas.std(), rel=1e-5)
    assert sum(opacity.histogram) == len(splats)


@pytest.mark.parametrize("scanner", [scan_numpy, scan_numba])
def test_infinities_never_enter_a_mean(scanner) -> None:
    splats = shell()
    splats.opacity_logits[:] = 1.0
    splats.opacity_logits[:3000] = np.inf
    splats.opacity_logits[3000:3100] = -np.inf
    opacity = diagnose(splats, scanner=scanner).opacity
    assert (opacity.pos_inf, opacity.neg_inf, opacity.logit.mean, opacity.logit.std) == (3000, 100, 1.0, 0.0)
    expected = (3000 + 6500 / (1 + np.exp(-1))) / 9600
    assert opacity.alpha.mean == pytest.approx(expected, rel=1e-6)
    assert opacity.logit.p99 is None
