"""What the miner tells its workers of the time until it has a job for them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sn17_contract.leave_alone import HEADER_LEAVE_ALONE, read_leave_alone
from sn17_miner.clients.leave_alone import MOST_SECONDS, LeaveAloneHeader, until_next_pull

NOW = 1_700_000_000.0


def lane(next_pull: float | None) -> Any:
    return SimpleNamespace(next_pull=next_pull)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([], None),
        ([None], None),
        ([NOW + 40, NOW + 90, None], 40),
        ([NOW - 5, NOW + 90], 0),
    ],
)
def test_until_the_earliest_validator_that_may_be_asked(
    times: list[float | None], expected: float | None
) -> None:
    assert until_next_pull(map(lane, times), NOW) == expected


def test_word_is_signed_with_the_token_and_the_token_is_not_sent(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("correct horse\n")
    header = LeaveAloneHeader(token, "5Hotkey", lambda: 41.9, lambda: NOW)
    sent = header()[HEADER_LEAVE_ALONE]
    assert "correct horse" not in sent
    said = read_leave_alone(sent, "correct horse", NOW)
    assert said is not None
    assert (said.poller, said.seconds) == ("5Hotkey", 41)
    token.write_text("rotated")
    assert read_leave_alone(header()[HEADER_LEAVE_ALONE], "rotated", NOW) is not None


def test_what_is_not_known_is_not_said(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("correct horse")
    assert LeaveAloneHeader(token, "m", lambda: None, lambda: NOW)() == {}
    assert LeaveAloneHeader(None, "m", lambda: 5.0, lambda: NOW)() == {}
    assert LeaveAloneHeader(tmp_path / "none", "m", lambda: 5.0, lambda: NOW)() == {}
    token.write_text("\n")
    assert LeaveAloneHeader(token, "m", lambda: 5.0, lambda: NOW)() == {}


def test_word_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    sent = LeaveAloneHeader(tmp_path / "token", "m", lambda: 1e9, lambda: NOW)()[HEADER_LEAVE_ALONE]
    said = read_leave_alone(sent, "t", NOW)
    assert said is not None
    assert said.seconds == MOST_SECONDS
