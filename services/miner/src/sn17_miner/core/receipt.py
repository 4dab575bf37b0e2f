"""What a gateway's answer to a result means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Receipt(StrEnum):
    """``BUSY`` to ``NOT_SENT`` leave it open; the rest ends the task."""

    STORED = "stored"
    OVER = "over"
    """410: unknown, complete or out of time. The result is dropped."""
    NOT_OURS = "not ours"
    """401: not assigned to us, or answered before. The result is dropped."""
    REFUSED = "refused"
    """The gateway will never take it in this form."""
    BUSY = "busy"
    """It was certainly not stored; later it may be."""
    LOST = "lost"
    """It may be stored."""
    NOT_SENT = "not sent"


FINAL: Final = frozenset({Receipt.STORED, Receipt.OVER, Receipt.NOT_OURS, Receipt.REFUSED})
_STATUS: Final = {200: Receipt.STORED, 410: Receipt.OVER, 401: Receipt.NOT_OURS}


class GatewayError(Exception):
    """A call without a usable answer.

    ``status`` is what the gateway answered, or None where no answer came; ``sent`` says whether any of the
    call may have reached it; ``retry_after`` seconds, where it named them.
    """

    def __init__(
        self, status: int | None, message: str, *, sent: bool = True, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{status or ('no answer' if sent else 'not sent')}: {message}")
        self.status = status
        self.sent = sent
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Reading:
    """The meaning and the reason; ``retry_after`` seconds; ``answered``: a whole answer came."""

    receipt: Receipt
    detail: str
    retry_after: float | None = None
    answered: bool = True


def read_receipt(error: GatewayError | None) -> Reading:
    """The meaning of an answer to ``add_result``; None is a 200."""
    if error is None:
        return Reading(Receipt.STORED, "stored")
    if error.status is None:
        silence = Receipt.LOST if error.sent else Receipt.NOT_SENT
        return Reading(silence, str(error), answered=False)
    receipt = _STATUS.get(error.status)
    if receipt is None:
        if error.status in (408, 429):
            receipt = Receipt.BUSY
        else:
            # A 503 may tell that an earlier sending of the same result is being taken in.
            receipt = Receipt.LOST if error.status >= 500 else Receipt.REFUSED
    return Reading(receipt, str(error), error.retry_after)
