"""The register of faults: what can be broken, in which tier, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Generic, TypeVar

W = TypeVar("W")
"""The world a fault is injected into: a running stack, a control plane, a cluster."""

Undo = Callable[[], None]


class Tier(StrEnum):
    FAST = "fast"
    CLUSTER = "cluster"


class CannotInjectError(Exception):
    """This machine cannot do it; the message says why and goes into the table."""


def ends_by_itself() -> None:
    """The undo of a fault that is over as soon as it has injected."""


@dataclass(frozen=True, slots=True)
class Fault(Generic[W]):
    """``inject`` starts the fault and returns what ends it; all its choices come from the generator it is
    given. It lasts a time drawn from ``seconds``. Raises CannotInjectError where the machine cannot do it.
    """

    name: str
    world: str
    inject: Callable[[W, Random], Undo]
    about: str
    seconds: tuple[float, float] = (0.0, 0.0)
    pairs: bool = True
    """May be injected together with another one."""
    weight: int = 1
    """How often it comes in a turn: what needs no new process comes more often."""
    tier: Tier = Tier.FAST


@dataclass(slots=True)
class Register(Generic[W]):
    """Faults of one world by name."""

    world: str
    faults: dict[str, Fault[W]] = field(default_factory=dict)

    def add(
        self,
        name: str,
        *,
        seconds: tuple[float, float] = (0.0, 0.0),
        pairs: bool = True,
        weight: int = 1,
        tier: Tier = Tier.FAST,
    ) -> Callable[[Callable[[W, Random], Undo]], Callable[[W, Random], Undo]]:
        """Decorator: the function's docstring tells what the fault is."""

        def register(inject: Callable[[W, Random], Undo]) -> Callable[[W, Random], Undo]:
            about = " ".join((inject.__doc__ or "").split())
            self.faults[name] = Fault(name, self.world, inject, about, seconds, pairs, weight, tier)
            return inject

        return register

    def __iter__(self) -> Iterator[Fault[W]]:
        return iter(self.faults.values())

    def __getitem__(self, name: str) -> Fault[W]:
        return self.faults[name]
