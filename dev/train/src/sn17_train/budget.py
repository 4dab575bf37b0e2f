"""How long a stage trains, and how fast it learns meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Log = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Budget:
    """Steps at most and seconds at most; whichever share is further along drives the schedule.

    `step` and `spent` (seconds) are what earlier chunks have used. A chunk ends after `chunk` seconds.
    """

    steps: int
    seconds: float
    step: int = 0
    spent: float = 0.0
    chunk: float = float("inf")
    _start: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Seconds in all chunks."""
        return self.spent + time.monotonic() - self._start

    def progress(self) -> float:
        """From 0 to 1."""
        return min(1.0, max(self.step / self.steps, self.elapsed() / self.seconds))

    def train(self, optimizer: torch.optim.Optimizer, peak: float) -> Iterator[int]:
        """Steps with the learning rate set, until the budget or the chunk is used up."""
        while (progress := self.progress()) < 1 and self.elapsed() - self.spent < self.chunk:
            for group in optimizer.param_groups:
                group["lr"] = rate(progress, peak)
            yield self.step
            self.step += 1


def rate(progress: float, peak: float) -> float:
    """Learning rate: short warm-up, then straight down to 2 %."""
    return peak * min(1.0, progress / 0.03 + 0.02, 0.02 + 0.98 * (1 - progress) / 0.97)


def autocast(device: torch.device) -> Any:
    """bfloat16 where a GPU computes."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def apply_step(optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter]) -> None:
    """One step down the clipped gradient."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
