"""What one process leaves in a file, or answers, for another: with a ``schema`` that the reader checks."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class WrongShapeError(ValueError):
    """What was read has another schema, lacks a field or is no JSON; the message is one sentence."""


class Versioned(BaseModel):
    """A model with a field ``schema_`` that holds its only known schema."""

    # A writer of the same schema may be newer and say more.
    model_config = ConfigDict(extra="ignore", frozen=True)

    @classmethod
    def parse(cls, content: str | bytes, source: object) -> Self:
        """Read JSON; ``source`` is the file or address that the message names.

        Raises:
            WrongShapeError: it cannot be used.
        """
        try:
            raw = json.loads(content)
        except ValueError:
            raise WrongShapeError(f"{source} holds no JSON.") from None
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise WrongShapeError(cls._refusal(raw, error, source)) from None

    @classmethod
    def _refusal(cls, raw: Any, error: ValidationError, source: object) -> str:
        for problem in error.errors():
            if problem["loc"] == ("schema",):
                found = raw.get("schema", "none")
                expected = problem.get("ctx", {}).get("expected") or "one"
                return f"{source} has the schema {found!r}, not {expected}: it is of another release of sn17."
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        return f"{source} is no {cls.__name__}: {field}: {first['msg']}."

    def to_json(self) -> bytes:
        """As it is written."""
        return self.model_dump_json(by_alias=True, indent=2).encode()
