"""Proxies that the environment names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sn17.doctor.model import Finding, failed, ok

VARIABLES: Final = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@dataclass(frozen=True, slots=True)
class Proxy:
    """One variable. ``address`` is host and port, never the user's name or password; ``problem`` is why a
    client cannot use it, empty where it answers.
    """

    variable: str
    address: str
    problem: str = ""


def judge_proxies(found: Sequence[Proxy]) -> Finding:
    bad = [proxy for proxy in found if proxy.problem]
    if bad:
        said = "; ".join(f"{proxy.variable} ({proxy.address}): {proxy.problem}" for proxy in bad)
        return failed(
            f"{said}. Services of sn17 are reached all the same; model hub, chain and far clusters are not",
            "name a proxy that works, or none",
            f"unset {' '.join(proxy.variable for proxy in bad)}",
        )
    if not found:
        return ok("none set")
    named = ", ".join(f"{proxy.variable} ({proxy.address})" for proxy in found)
    return ok(f"{named}; not used for this machine and for services of a cluster")
