"""The fake against the recorded cases, with the code that our own gateway is held to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from gateway_cases import ALL_MODELS, CASES, Start, Target
from gateway_fake import LiveFake
from sn17_devnet.gateway.settings import LOCAL_KEY


@pytest.fixture
def start() -> Start:
    @contextmanager
    def run(*, slots: int = 1, models: tuple[str, ...] = ALL_MODELS) -> Iterator[Target]:
        with LiveFake(slots=slots, models=models) as fake:
            yield Target(fake.url(), LOCAL_KEY)

    return run


@pytest.mark.parametrize("name", CASES)
def test_recorded_case(name: str, start: Start) -> None:
    CASES[name](start)
