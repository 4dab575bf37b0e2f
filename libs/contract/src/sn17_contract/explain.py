"""``GET /v1/explain/POD`` of the operator: why a worker is judged as it is, and what comes next.

No field of an answer has a default. The names are camelCase on the wire, as those of an SN17Miner.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class _Answer(BaseModel):
    # Readers may be older than the operator.
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")


class ExplainedRule(_Answer):
    """One finding. ``value`` is in the unit of ``threshold``; None where nothing is known.

    ``dwell_left_seconds``: how long it must last until the operator acts. ``queries`` is the PromQL that the
    evidence came from.
    """

    rule: str
    outcome: str
    message: str
    value: float | None
    threshold: float | None
    sample_age_seconds: float | None
    dwell_left_seconds: float
    queries: tuple[str, ...]


class ExplainedIntent(_Answer):
    """The remediation that is under way."""

    action: str
    rule: str


class ExplainedBudget(_Answer):
    """Workers wanted, in and out of service, and how many may be out of service or unhealthy at once."""

    expected: int
    available: int
    unavailable: int
    in_flight: int
    max_unavailable: int
    quality_verdicts: int
    max_unhealthy: int


class Explanation(_Answer):
    """One worker at the operator's last tick. ``at`` is RFC 3339; ``next`` a sentence."""

    miner: str
    pod: str
    node: str | None
    at: str
    boot_id: str | None
    life_id: str | None
    container_id: str
    state: str
    verdict: str
    message: str
    strategy: str
    rules: tuple[ExplainedRule, ...]
    intent: ExplainedIntent | None
    budget: ExplainedBudget
    next: str
