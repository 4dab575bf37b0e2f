"""What the miner has learned about one validator; kept over restarts, forgotten with its hotkey."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import Any, Final

from sn17_miner.core.clock_offset import Offset
from sn17_miner.core.evidence import Evidence
from sn17_miner.core.gate import Outlook
from sn17_miner.core.timing import Timing

_BLEND: Final = 0.2
_LONGEST_IDLE: Final = 10.0
"""Cooldowns: a longer wait was a pause of ours and says nothing about the next one."""
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
    idle: float = 0.0
    """Seconds from a cooldown's end to the next pull: more than a moment where workers are scarce."""
    offset: Offset = field(default_factory=Offset)
    evidence: Evidence = field(default_factory=Evidence)
    """What the quality gate saw of this validator."""

    @classmethod
    def fresh(cls, policy: Timing) -> Learned:
        """Nothing learned yet: the defaults validators are shipped with."""
        evidence = Evidence(policy.evidence_half_life)
        return cls(policy.throttle, 0.6, policy.base_cooldown, policy.penalty, evidence=evidence)

    @property
    def acceptance(self) -> float:
        """Share of judged submissions that were accepted, with a mild optimistic prior."""
        return (self.accepted + _PRIOR_TASKS * _PRIOR_ACCEPTANCE) / (self.judged + _PRIOR_TASKS)

    @property
    def cycle(self) -> float:
        """Seconds from one pull to the next when the result is accepted, or skipped."""
        late = max(0.0, (self.delivery or 0.0) - self.throttle)
        return self.base_cooldown + late + self.idle

    def outlook(self, now: float) -> Outlook:
        """What the quality gate expects of this validator."""
        return Outlook.of(
            self.evidence, cycle=self.cycle, penalty=self.penalty, threshold=self.threshold, now=now
        )

    def waited(self, seconds: float) -> None:
        """Blend in the time between a cooldown's end and the next pull."""
        self.idle += _BLEND * (min(seconds, _LONGEST_IDLE * self.base_cooldown) - self.idle)

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
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["evidence"] = self.evidence.dump()
        # JSON has no infinities; a bound that is missing is one.
        values["offset"] = {key: value for key, value in asdict(self.offset).items() if isfinite(value)}
        return json.dumps(values)

    @classmethod
    def load(cls, text: str, policy: Timing) -> Learned:
        """Read what ``dump`` wrote; an unreadable or foreign text is as good as nothing learned."""
        try:
            values: dict[str, Any] = json.loads(text)
            offset = Offset(**values.pop("offset", {}))
            evidence = Evidence.load(values.pop("evidence", {}), policy.evidence_half_life)
            return cls(**values, offset=offset, evidence=evidence)
        except (ValueError, TypeError, AttributeError):
            return cls.fresh(policy)
