"""What a world consists of, what a miner decides in it, and what comes of it: values only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Final

from sn17_miner.core.timing import Timing

START: Final = 1_700_000_000.0
DAY: Final = 86400.0


@dataclass(frozen=True, slots=True)
class ValidatorModel:
    """``acceptance`` of first seeds, 0 to 1, which swings by ``drift`` over the day."""

    acceptance: float
    drift: float = 0.0
    image_ratio: float = 0.2
    validation: float = 1.5
    """Seconds."""

    def cutoff(self, at: float) -> float:
        """The quality from which it accepts, ``at`` seconds after the start."""
        now = self.acceptance + (self.drift if at % DAY < DAY / 2 else -self.drift)
        return -NormalDist().inv_cdf(min(0.99, max(0.01, now)))


@dataclass(frozen=True, slots=True)
class WorkerModel:
    """Seconds, and chances of a job."""

    models: tuple[str, ...] = ("text", "image")
    job: float = 11.0
    hangs: float = 0.0
    """Share of jobs that never end."""
    refuses_enhanced: float = 0.0
    """Share of enhanced prompts that it makes nothing of."""


@dataclass(frozen=True, slots=True)
class Conduct:
    """What the miner decides by itself; each field is one decision, and the second word is the naive rule."""

    gate: bool = True
    max_seeds: int = 3
    unservable: str = "give back"
    """A task of a kind that no worker does: ``give back`` at once, or ``hold`` it for its deadline."""
    stalled: str = "move"
    """A job without progress: ``move`` it after the stall time, or ``wait`` for the timeout."""
    enhance: str = "no"
    """Prompts: ``no``, ``fall back`` to the original where the enhanced one fails, or ``always``."""
    scorer: bool = False
    """Whether a validation service gives scores before results are handed in."""


NAIVE: Final = Conduct(False, 1, "hold", "wait", "no")


@dataclass(frozen=True, slots=True)
class Scene:
    """The world that two conducts are compared in."""

    validators: tuple[ValidatorModel, ...] = (ValidatorModel(0.5),)
    workers: tuple[WorkerModel, ...] = (WorkerModel(), WorkerModel())
    fails_checks: float = 0.0
    """Share of results that the validators' own checks refuse, and that the fixer says so of."""
    damaged: float = 0.0
    """Share of results that the fixer repairs, and that are worse by one unit."""
    same_prompt: float = 0.4
    """Share of quality's variance that is the prompt's."""
    score_noise: float = 0.5
    enhanced_gain: float = 0.0
    days: float = 10.0
    restart_at: float | None = None
    """Days after which the miner is started anew, from what its journal holds."""
    policy: Timing = field(default_factory=Timing)

    @property
    def scarce(self) -> bool:
        """Whether workers are waited for, and not cooldowns."""
        job = sum(worker.job for worker in self.workers) / len(self.workers)
        return len(self.validators) * job > len(self.workers) * self.policy.base_cooldown


@dataclass(slots=True)
class Result:
    """What came of it."""

    accepted: int = 0
    tasks: int = 0
    empty: int = 0
    rejected: int = 0
    violations: int = 0
    duels_lost: int = 0
    """Tasks that were not accepted: had they been duels, they were lost."""
    idle: list[float] = field(default_factory=list)
    cycles: list[float] = field(default_factory=list)
    by_validator: Counter[int] = field(default_factory=Counter)
    luck: dict[int, float] = field(default_factory=dict)
    """By validator: what was accepted less the chances of what was handed in."""
    days: float = 0.0
    penalty: float = 0.0
    """Seconds that a rejection costs: 0 where workers are waited for anyway."""

    @property
    def a_day(self) -> float:
        """Accepted results."""
        return self.accepted / self.days

    @property
    def expected_a_day(self) -> float:
        """Accepted results, less what luck brought: itself, and the tasks of the time that it saved."""
        luck = 0.0
        for validator, more in self.luck.items():
            rate = self.by_validator[validator] / (self.days * DAY)
            luck += more * (1.0 + rate * self.penalty)
        return (self.accepted - luck) / self.days
