"""Faults that a validator or a gateway's node can be told to have: rules in, decisions out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class FaultKind(StrEnum):
    RESET = "reset"
    """The connection is cut (TCP reset)."""
    SLOW = "slow"
    """The answer takes ``seconds`` longer: longer than the miner's patience, and it sees a timeout (408)."""
    STATUS = "status"
    """The answer is an error of ``status``: 408, 500, 503 or any other."""
    GARBAGE = "garbage"
    """The answer has status 200 and a body that is cut in the middle."""
    RESTART = "restart"
    """The validator is gone for ``seconds`` and comes back with the state it saved last."""
    UNVALIDATED = "unvalidated"
    """The validation service does not answer; only for SubmitResults."""


class Fault(BaseModel):
    """One fault and when it happens. Seconds are real ones: the time scale does not apply."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    when: Literal["before", "after"] = "before"
    """Whether the server has done its part (``after``: only the answer is lost)."""
    probability: float = Field(1.0, ge=0, le=1)
    limit: int | None = Field(None, ge=1)
    """Happens at most so often, per server."""
    seconds: float = Field(1.0, ge=0, le=3600)
    status: Annotated[int, Field(ge=400, le=599)] = 503

    @abstractmethod
    def concerns(self, server: int) -> bool:
        """Whether the server of this index can have it."""

    @abstractmethod
    def fits(self, call: str) -> bool:
        """Whether this call can meet it."""


class FaultRule(Fault):
    """A fault of a validator."""

    call: Literal["PullTask", "SubmitResults"] | None = None
    """None = any call."""
    validator: int | None = Field(None, ge=0)
    """Index of the validator, None = every one."""

    def concerns(self, server: int) -> bool:
        return self.validator in (None, server)

    def fits(self, call: str) -> bool:
        if self.kind is FaultKind.UNVALIDATED and call != "SubmitResults":
            return False
        return self.call in (None, call)


class FaultPlan:
    """The faults of one server: seeded, so that a run can be repeated."""

    def __init__(self, rules: Sequence[Fault], server: int, seed: int) -> None:
        self._rules = [rule for rule in rules if rule.concerns(server)]
        self._left = [rule.limit for rule in self._rules]
        self._rng = np.random.default_rng((seed, server))

    def draw(self, call: str, when: str) -> Fault | None:
        """The fault that this call meets at this point, if any; the first rule that fits wins."""
        for index, rule in enumerate(self._rules):
            if rule.when != when or not rule.fits(call) or self._left[index] == 0:
                continue
            if self._rng.random() < rule.probability:
                left = self._left[index]
                self._left[index] = None if left is None else left - 1
                return rule
        return None
