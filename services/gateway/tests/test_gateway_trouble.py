"""A storage that is away meets every request: the log says so, and is not filled by it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from gateway_live import LiveGateway
from hypothesis import given
from hypothesis import strategies as st
from sn17_gateway.storage.database import StorageError
from sn17_gateway.trouble import LOG_SECONDS, StorageTrouble


class Lines(logging.Handler):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def failures(self) -> list[int]:
        """Of each line about the storage: how many failures it stands for."""
        return [vars(record)["failures"] for record in self.records if "storage failed" in record.msg]


def trouble(monotonic: Callable[[], float]) -> tuple[StorageTrouble, Lines]:
    log, lines = logging.Logger("gateway"), Lines()
    log.addHandler(lines)
    return StorageTrouble(log, monotonic), lines


@given(st.lists(st.floats(0, 30), min_size=1, max_size=50))
def test_the_first_failure_is_logged_and_then_one_line_in_ten_seconds(pauses: list[float]) -> None:
    now, logged = 0.0, list[float]()
    found, lines = trouble(lambda: now)
    for number, pause in enumerate(pauses, 1):
        now += pause
        before = len(lines.records)
        found.failed(StorageError("away"))
        if len(lines.records) > before:
            logged.append(now)
            assert sum(lines.failures) == number
    assert logged[0] == pauses[0]
    assert all(later - earlier >= LOG_SECONDS for earlier, later in pairwise(logged))
    assert now - logged[-1] < LOG_SECONDS


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LiveGateway]:
    with LiveGateway(tmp_path) as live:
        yield live


def test_requests_to_a_storage_that_is_away_do_not_fill_the_log(gateway: LiveGateway) -> None:
    lines, client = Lines(), gateway.client()
    gateway.service.log.addHandler(lines)
    gateway.break_storage()
    answers = [client.http.get("/get_status", params={"id": str(uuid.uuid4())}) for _ in range(30)]
    gateway.service.log.removeHandler(lines)
    assert {answer.status_code for answer in answers} == {503}
    assert gateway.live.metric("sn17_refusals_total", code="overloaded") == 30
    assert lines.failures[0] == 1
    assert len(lines.failures) < 15
