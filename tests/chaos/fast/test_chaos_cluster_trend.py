"""The judgement about growth: noise is no growth, and a leak is one."""

from __future__ import annotations

from random import Random

import pytest
from sn17_chaos.trend import table, trend


def made(slope_per_hour: float, noise: float, *, hours: float = 1.0) -> list[tuple[float, float]]:
    rng = Random(17)
    return [
        (at, 100.0 + slope_per_hour * at / 3600 + rng.gauss(0, noise))
        for at in range(0, int(3600 * hours), 10)
    ]


def test_noise_around_a_level_is_flat() -> None:
    assert trend("memory", made(0.0, 5.0)).flat


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_a_leak_is_not(noise: float) -> None:
    found = trend("memory", made(20.0, noise))
    assert not found.flat
    assert found.slope_per_hour == pytest.approx(20.0, rel=0.1)
    assert "GROWS" in table([found], {})


def test_what_grows_only_while_it_warms_up_is_flat() -> None:
    samples = [(at, min(100.0, 20.0 + at / 5)) for at in range(0, 3600, 10)]
    assert trend("memory", [(float(at), value) for at, value in samples]).flat


def test_a_peak_does_not_make_a_slope() -> None:
    samples = [(float(at), 400.0 if 3000 < at < 3100 else 100.0) for at in range(0, 3600, 10)]
    assert trend("memory", samples).flat


def test_too_few_samples_are_no_trend() -> None:
    with pytest.raises(ValueError, match="too few"):
        trend("memory", [(0.0, 1.0), (10.0, 1.0)])
