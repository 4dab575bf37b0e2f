"""Thresholds that the chart fills in: the same names as in its template ``sn17.thresholds``."""

from __future__ import annotations

from collections.abc import Mapping

from sn17_dashboards.model import Threshold

CORDON = Threshold("cordon_ratio", 0.8)
EMERGENCY = Threshold("emergency_ratio", 0.9)
DEGRADED_GAUSSIANS = Threshold("degraded_gaussians", 150_000)
CANARY_DRIFT = Threshold("canary_drift_ratio", 0.2)
ACCEPTANCE_GAUSSIANS = Threshold("acceptance_gaussians", 350_000)
ACCEPTANCE_SECONDS = Threshold("acceptance_seconds", 35)
SUCCESS_LEAST = Threshold("success_least", 0.45)
SUCCESS_EXPECTED = Threshold("success_expected", 0.55)
SUCCESS_GOOD = Threshold("success_good", 0.58)
GATEWAY_WAIT = Threshold("alert_gateway_wait", 180)

ALL = (
    *(CORDON, EMERGENCY, DEGRADED_GAUSSIANS, CANARY_DRIFT, ACCEPTANCE_GAUSSIANS, ACCEPTANCE_SECONDS),
    *(SUCCESS_LEAST, SUCCESS_EXPECTED, SUCCESS_GOOD, GATEWAY_WAIT),
)


def filled_in(text: str, values: Mapping[str, float] | None = None) -> str:
    """A board's JSON with its thresholds filled in: ``values`` by name, else the chart's own."""
    for threshold in ALL:
        number = f"{(values or {}).get(threshold.name, threshold.default):g}"
        text = text.replace(f'"{threshold}"', number).replace(str(threshold), number)
    return text
