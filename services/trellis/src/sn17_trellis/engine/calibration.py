"""The fast lane: what a checkpoint may leave out, as measured on that very checkpoint.

`sn17-trellis calibrate` writes it beside the checkpoint. Without it, or where it belongs to other weights,
there is no fast lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from sn17_trellis.engine.config import FrozenConfig, SamplerParams, Savings
from sn17_trellis.engine.errors import CheckpointError

FILE = "sn17-fast-lane.json"
LOOK_BACK = 16
"""Steps between two full ones at most."""
MARGIN = 0.9
"""Of the drift that is allowed, on the prompts of the calibration: others drift further or less far."""

Drift = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Candidate(FrozenConfig):
    """One way to sample a stage, what it costs and how far it ends from the solution.

    `drift` is the mean over prompts of the relative L2 distance from a solution of many Euler steps;
    `forwards` counts networks run in full, for one sampling.
    """

    params: SamplerParams
    savings: Savings
    forwards: int
    drift: Drift


class StageCalibration(FrozenConfig):
    """The cheapest candidate well within the drift of `plain`, fewer Euler steps; `full` is exact."""

    chosen: Candidate
    plain: Candidate
    full: Candidate
    tried: tuple[Candidate, ...] = ()


class Calibration(FrozenConfig):
    """What `calibrate` found, for one checkpoint (its fingerprint) and the guidance of one preset."""

    version: Literal[1] = 1
    checkpoint: str
    preset: str
    device: str
    prompts: int
    solution_steps: int
    forced: bool = False
    """Set by hand where the weights are random and nothing can be judged: speed only."""
    structure: StageCalibration
    latents: StageCalibration


def read_calibration(directory: Path) -> Calibration | None:
    """The calibration beside a checkpoint, or None. Raises CheckpointError where it cannot be read."""
    path = directory / FILE
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: {reason}; run sn17-trellis calibrate {directory} again") from error


def choose(candidates: Sequence[Candidate], plain: Candidate) -> Candidate:
    """The fewest forwards well within the drift of `plain`, or that itself; among equals the least drift."""
    good = [plain, *(each for each in candidates if each.drift <= MARGIN * plain.drift)]
    return min(good, key=lambda each: (each.forwards, each.drift))


def shorter(full: Sequence[int], switches: Sequence[int]) -> list[tuple[int, ...]]:
    """Every schedule with one full step less; the first and those in `switches` stay."""
    return [tuple(step for step in full if step != left) for left in full[1:] if left not in switches]


def schedule(
    changes: Sequence[Sequence[float]], switches: Sequence[int], threshold: float
) -> tuple[int, ...]:
    """Steps that run in full: the first, those in `switches`, and each whose first block changed too much.

    `changes[i][k]` is the relative change of the first block's tokens between step i and step i - 1 - k.
    """
    full = [0]
    for step in range(1, len(changes)):
        back = step - full[-1]
        known = changes[step]
        if step in switches or back > len(known) or known[back - 1] > threshold:
            full.append(step)
    return tuple(full)
