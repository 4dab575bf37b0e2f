"""What may be done with a model process, and how it is cut short."""

from __future__ import annotations

from dataclasses import dataclass

from sn17_contract.worker import RecycleHow


class Closing(Exception):  # noqa: N818
    """The service ends: nothing new is begun."""


class TooLate(Exception):  # noqa: N818
    """An act did not end within its time."""


@dataclass(frozen=True, slots=True)
class Act:
    """What is asked for, and of which life. ``canary``: whether the fresh process has to run it."""

    how: RecycleHow
    life_id: str
    reason: str
    verify: bool
    canary: bool = True
