"""What share of tasks each validator should accept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sn17.accept.stack import StackError
from sn17.given import text_of

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Targets(BaseModel):
    """FAIL below ``least``, WARN below ``expected``, a word of praise from ``good`` on; shares of 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    least: Share
    expected: Share
    good: Share | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Targets:
        if self.least > self.expected:
            raise ValueError("least is above expected")
        return self


class SuccessTargets(BaseModel):
    """Targets of all validators together, and of single ones by uid or by the beginning of their hotkey.

    The example of the design: ``{"all": {"least": 0.45, "expected": 0.55}, "validators":
    {"27": {"least": 0.44, "expected": 0.81}, "128": {"least": 0.19, "expected": 0.56}}}``, where ``least`` is
    what the validator accepted before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    all: Targets = Targets(least=0.45, expected=0.55, good=0.58)
    validators: Mapping[str, Targets] = {}

    def of(self, hotkey: str, uid: int | None) -> Targets:
        """Those of one validator: its own, else those of all."""
        named = self.named(hotkey, uid)
        return self.all if named is None else self.validators[named]

    def named(self, hotkey: str, uid: int | None) -> str | None:
        """Under which name it is listed."""
        if str(uid) in self.validators:
            return str(uid)
        return next((n for n in self.validators if len(n) >= _LEAST_PREFIX and hotkey.startswith(n)), None)


_LEAST_PREFIX: Final = 4


def parse_targets(text: str, source: str) -> SuccessTargets:
    """Read targets from JSON. Raises StackError naming ``source`` and the fields that are wrong."""
    try:
        return SuccessTargets.model_validate_json(text)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(p) for p in e['loc']) or 'JSON'}: {e['msg']}" for e in error.errors()
        )
        raise StackError(f"{source}: {wrong}") from error


def read_targets(path: Path) -> SuccessTargets:
    """The targets in a file. Raises StackError and GivenError."""
    return parse_targets(text_of(path), str(path))
