"""How a task ends."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How a task ended. Success = accepted / (all but skipped); yield = accepted / pulled."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNVALIDATED = "unvalidated"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    GIVEN_UP = "given_up"


class GivenUpReason(StrEnum):
    """The closed list of reasons for ``given_up``."""

    BAD_PROMPT = "bad_prompt"
    EMPTY_STRUCTURE = "empty_structure"
    NO_WORKER = "no_worker"
    GENERATION_FAILED = "generation_failed"
    UNREPAIRABLE = "unrepairable"
    VALIDATOR_DROPPED = "validator_dropped"
    VALIDATOR_UNREACHABLE = "validator_unreachable"
    REFUSED_BY_VALIDATOR = "refused_by_validator"
    ANSWER_LOST = "answer_lost"
    FIXER_UNAVAILABLE = "fixer_unavailable"
