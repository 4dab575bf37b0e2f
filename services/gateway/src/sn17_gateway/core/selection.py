"""Which waiting tasks a pull takes: round robin over the models, first come first served within one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def turns(models: Sequence[str], last: str | None) -> list[str]:
    """``models`` without repetitions, beginning behind the one served last."""
    unique = list(dict.fromkeys(models))
    at = unique.index(last) + 1 if last in unique else 0
    return unique[at:] + unique[:at]


def interleave(order: Sequence[str], waiting: Mapping[str, Sequence[T]], count: int) -> list[T]:
    """At most ``count`` items, one of each model in turn; ``waiting`` holds each model's queue."""
    taken: list[T] = []
    rank = 0
    while len(taken) < count:
        row = [waiting[model][rank] for model in order if rank < len(waiting.get(model, ()))]
        if not row:
            break
        taken += row[: count - len(taken)]
        rank += 1
    return taken
