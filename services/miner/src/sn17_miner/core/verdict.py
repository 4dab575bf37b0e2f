"""What a validator's answer, or the lack of one, means for a submission."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sn17_protocol import Feedback, SubmitResults

from sn17_miner.core.clock_offset import DATE_SPAN


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
    REPEATED = "accepted before"
    """An earlier submission of this task was accepted; this answer only repeats the cooldown."""
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


@dataclass(frozen=True, slots=True)
class Terms:
    """What is known of a validator when an answer is read; seconds."""

    base_cooldown: float
    penalty: float
    throttle: float
    standing: Standing | None = None
    """What its last answer told; None when there was none in this life of the process."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What every answer tells about the miner. A validator changes both with each accepted result, and the
    count when an old one leaves the window.
    """

    accepted: int
    fidelity: float

    @classmethod
    def of(cls, feedback: Feedback) -> Standing:
        """From an answer."""
        return cls(feedback.generations_within_the_window, feedback.average_fidelity_score)


def read_answer(
    answer: SubmitResults,
    *,
    skipped: bool,
    resent: bool,
    sent_theirs: float,
    received_theirs: float,
    terms: Terms,
) -> Reading:
    """What a validator's answer to a submission means.

    ``sent_theirs`` and ``received_theirs`` are the validator's time when we sent and got the answer, and
    ``resent`` says whether the task was submitted before. A judged submission starts a cooldown; an answer
    without feedback on us repeats an old one that was over when the task was handed out.

    Zeros with a cooldown are a rejection, or the repetition of an acceptance: a submission that was still
    being validated when an earlier one of the same task, ours or of another miner with this hotkey, was
    accepted.
    """
    feedback, until = answer.feedback, float(answer.cooldown_until)
    if feedback is None:
        return Reading(Verdict.UNKNOWN, "answer without feedback")
    if feedback.task_fidelity_score > 0:
        score = feedback.task_fidelity_score
        return Reading(Verdict.ACCEPTED, f"score {score:.3f}", score, until)
    if feedback.validation_failed:
        return Reading(Verdict.UNVALIDATED, "the validator could not validate it", None, until)
    # A cooldown that began just now has most of its time left; one with less was over, by clocks that differ.
    if until <= sent_theirs + min(DATE_SPAN, terms.base_cooldown / 4):
        return Reading(Verdict.NOT_PROCESSED, "no verdict: validation lock, or another task is assigned")
    if skipped:
        return Reading(Verdict.SKIPPED, "skip acknowledged", None, until)
    if _repeats(Standing.of(feedback), until - received_theirs, resent=resent, terms=terms):
        who = "an earlier submission" if resent else "another miner with this hotkey"
        return Reading(
            Verdict.REPEATED, f"accepted before: {who} was faster; the score was not told", None, until
        )
    return Reading(Verdict.REJECTED, "score below the threshold", None, until)


def _repeats(standing: Standing, left: float, *, resent: bool, terms: Terms) -> bool:
    """Whether an earlier submission was accepted. Of a rejection's cooldown at least base + penalty -
    throttle is left, of a repetition's at most base.
    """
    if standing.accepted == 0 or standing == terms.standing:
        # Nothing was accepted within the window, or nothing since the last answer.
        return False
    gap = terms.penalty - terms.throttle
    return left < terms.base_cooldown + gap / 2 if gap > 0 else resent


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
