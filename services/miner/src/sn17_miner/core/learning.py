"""What the miner has learned about one validator; kept over restarts, forgotten with its hotkey."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any, Final

from sn17_miner.core.clock_offset import Offset
from sn17_miner.core.gate import Evidence
from sn17_miner.core.timing import Policy

_BLEND: Final = 0.2
_PRIOR_TASKS: Final = 4.0
_PRIOR_ACCEPTANCE: Final = 0.9
_KEEP: Final = 0.98
"""Share of the past that counts after one more task: about 50 tasks of memory."""


@dataclass(slots=True)
class Learned:
    """``delivery`` seconds from pull to verdict; ``accepted``/``judged`` fade with each new task."""

    throttle: float
    threshold: float
    base_cooldown: float
    penalty: float
    accepted: float = 0.0
    judged: float = 0.0
    delivery: float | None = None
    offset: Offset = field(default_factory=Offset)
    evidence: Evidence = field(default_factory=dict)
    """What the quality gate saw of this validator."""

    @classmethod
    def fresh(cls, policy: Policy) -> Learned:
        """Nothing learned yet: the defaults validators are shipped with."""
        return cls(policy.throttle, 0.6, policy.base_cooldown, policy.penalty)

    @property
    def acceptance(self) -> float:
        """Share of judged submissions that were accepted, with a mild optimistic prior."""
        return (self.accepted + _PRIOR_TASKS * _PRIOR_ACCEPTANCE) / (self.judged + _PRIOR_TASKS)

    def told(self, throttle: float, threshold: float) -> None:
        """A pull's answer named the validator's own values; absurd ones are ignored."""
        if 0 < throttle < 3600:
            self.throttle = throttle
        if 0 < threshold <= 1:
            self.threshold = threshold

    def judge(self, accepted: bool) -> None:
        """Count a verdict on quality."""
        self.accepted = self.accepted * _KEEP + accepted
        self.judged = self.judged * _KEEP + 1.0

    def delivered(self, seconds: float) -> None:
        """Blend in the time from pull to verdict."""
        self.delivery = (
            seconds if self.delivery is None else self.delivery + _BLEND * (seconds - self.delivery)
        )

    def cooled(self, *, assigned: float, ended: float, until: float, accepted: bool) -> None:
        """Work out cooldown and penalty from an answer (their clock, seconds).

        ``until = max(ended + C - throttle, assigned + C)``, so C is the smaller of the two differences.
        """
        seconds = min(until - assigned, until - ended + self.throttle)
        if seconds <= 0 or seconds > 24 * 3600:
            return
        if accepted:
            self.base_cooldown = seconds
        elif seconds > self.base_cooldown:
            self.penalty = seconds - self.base_cooldown

    def dump(self) -> str:
        """JSON for the journal."""
        values = asdict(self)
        offset = values.pop("offset")
        # JSON has no infinities; a bound that is missing is one.
        values["offset"] = {key: value for key, value in offset.items() if isfinite(value)}
        return json.dumps(values)

    @classmethod
    def load(cls, text: str, policy: Policy) -> Learned:
        """Read what ``dump`` wrote; an unreadable or foreign text is as good as nothing learned."""
        try:
            values: dict[str, Any] = json.loads(text)
            offset = Offset(**values.pop("offset", {}))
            evidence = {
                str(k): (float(a), float(b), float(c)) for k, (a, b, c) in values.pop("evidence", {}).items()
            }
            return cls(**values, offset=offset, evidence=evidence)
        except (ValueError, TypeError, AttributeError):
            return cls.fresh(policy)
