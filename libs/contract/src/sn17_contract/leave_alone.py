"""How long a miner expects to leave a worker alone: a header of its status poll, signed with the admin token.

The token itself is never sent. Anyone may poll; only a signed word counts, and only while it is fresh.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final

HEADER_LEAVE_ALONE: Final = "SN17-Leave-Alone"
FRESH_SECONDS: Final = 30.0
"""What clocks may differ by, and how long a word is believed at most after it was signed."""
_FORM: Final = re.compile(r"v1 ([A-Za-z0-9._-]{1,64}) (\d{1,6}) (\d{1,12}) ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class LeaveAlone:
    """``poller`` gives the worker no job for ``seconds`` from ``at`` (Unix time) on."""

    poller: str
    seconds: int
    at: int

    def header(self, token: str) -> str:
        """The header's value. The poller's name has up to 64 letters, digits, dots, dashes, underscores."""
        return f"v1 {self._said()} {_mac(token, self._said())}"

    def _said(self) -> str:
        return f"{self.poller} {self.seconds} {self.at}"


def read_leave_alone(value: str, token: str, now: float) -> LeaveAlone | None:
    """What a header says; None where it is malformed, not signed with ``token``, or not fresh."""
    found = _FORM.fullmatch(value)
    if found is None:
        return None
    said = LeaveAlone(found[1], int(found[2]), int(found[3]))
    if abs(now - said.at) > FRESH_SECONDS or not hmac.compare_digest(value, said.header(token)):
        return None
    return said


def _mac(token: str, said: str) -> str:
    return hmac.new(token.encode(), f"sn17 leave alone {said}".encode(), hashlib.sha256).hexdigest()
