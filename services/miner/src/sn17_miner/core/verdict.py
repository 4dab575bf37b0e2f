"""What a validator's answer, or the lack of one, means for a submission."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sn17_protocol import SubmitResults


class CallError(Exception):
    """A call without a usable answer.

    ``status`` is None when nothing reached the validator, 408 for a timeout, 503 for a broken connection,
    422 for an unreadable answer, else what it answered.
    """

    def __init__(self, status: int | None, message: str) -> None:
        super().__init__(f"{status or 'not sent'}: {message}")
        self.status = status
        self.message = message


class Verdict(StrEnum):
    """``GONE`` to ``NOT_SENT`` leave the outcome open; the rest ends the task."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNVALIDATED = "unvalidated"
    SKIPPED = "skipped"
    GONE = "gone"
    """No task is assigned to us: it was judged before, or dropped."""
    NOT_PROCESSED = "not processed"
    """The validation lock holds, or another task is assigned."""
    UNKNOWN = "unknown"
    """It may or may not have been judged."""
    REFUSED = "refused"
    """It certainly was not judged."""
    NOT_SENT = "not sent"


@dataclass(frozen=True, slots=True)
class Reading:
    """``cooldown_until`` by the validator's clock."""

    verdict: Verdict
    detail: str
    score: float | None = None
    cooldown_until: float | None = None


def read_answer(answer: SubmitResults, *, skipped: bool, sent_theirs: float) -> Reading:
    """``sent_theirs``: the validator's time when we sent.

    A judged submission starts a cooldown; an answer without feedback on us repeats an old one that was over
    when the task was handed out.
    """
    feedback, until = answer.feedback, float(answer.cooldown_until)
    if feedback is None:
        return Reading(Verdict.UNKNOWN, "answer without feedback")
    if feedback.task_fidelity_score > 0:
        score = feedback.task_fidelity_score
        return Reading(Verdict.ACCEPTED, f"score {score:.3f}", score, until)
    if feedback.validation_failed:
        return Reading(Verdict.UNVALIDATED, "the validator could not validate it", None, until)
    if until <= sent_theirs:
        return Reading(Verdict.NOT_PROCESSED, "no verdict: validation lock, or another task is assigned")
    if skipped:
        return Reading(Verdict.SKIPPED, "skip acknowledged", None, until)
    return Reading(Verdict.REJECTED, "score below the threshold", None, until)


def read_error(error: CallError) -> Reading:
    """The meaning of a call that failed."""
    detail = f"{error.status or 'not sent'}: {error.message}"
    if error.status is None:
        return Reading(Verdict.NOT_SENT, detail)
    if error.status == 403 and "no task" in error.message.lower():
        return Reading(Verdict.GONE, detail)
    if error.status in (408, 422) or error.status >= 500:
        return Reading(Verdict.UNKNOWN, detail)
    return Reading(Verdict.REFUSED, detail)
