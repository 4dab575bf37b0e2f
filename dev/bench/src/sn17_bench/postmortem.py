"""The post-mortem, replayed: the old set-up against sn17 on local validators, strict and lenient.

    python -m sn17_bench.postmortem [--assets 12] [--days 5] [--json FILE]

The old one writes every opacity alike, makes 50,000 gaussians as its memory fills, is restarted at a
threshold in the middle of jobs, and samples 50 and 35 steps. Assets are made by the procedural generator,
damaged, repaired by the real fixer and judged by the local validators' scorer; what that acceptance earns in
a day is played in virtual time with the real scheduler, gate and ledger. A demonstration on local validators,
not on the subnet.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

import numpy as np
from sn17_devnet.judging import judge_text
from sn17_devnet.tasks import TaskSource
from sn17_fixer.policy import fix
from sn17_simulation.scene import NAIVE, Conduct, Scene, ValidatorModel, WorkerModel
from sn17_simulation.world import play
from sn17_splats import Splats

from sn17_bench.scorer import GATE, encode, generate

STRICTNESS: Final = {"strict": 1.25, "lenient": 0.8}
FULL: Final = 400_000
FEW: Final = 50_000
FILLED: Final = 0.5
"""Share of the old worker's jobs that run while its memory is nearly full."""
LOST: Final = 0.05
"""Share of its jobs that a threshold restart ends."""
STEP_SECONDS: Final = 0.45
OLD_STEPS, OUR_STEPS = 50 + 35, 25 + 25
FLAT: Final = 4.0


@dataclass(frozen=True, slots=True)
class Setup:
    """Which of the three fixes are in."""

    name: str
    opacity: bool
    """The fixer in place of one opacity for all."""
    memory: bool
    """Workers are recycled between jobs before their memory fills."""
    timing: bool
    """25 and 25 steps, the scheduler and the gate in place of 50 and 35 and handing everything in."""


SETUPS: Final = (
    Setup("old", False, False, False),
    Setup("old + opacity", True, False, False),
    Setup("old + memory", False, True, False),
    Setup("old + timing", False, False, True),
    Setup("sn17", True, True, True),
    Setup("sn17 - opacity", False, True, True),
    Setup("sn17 - memory", True, False, True),
    Setup("sn17 - timing", True, True, False),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One validator under one set-up."""

    setup: str
    validator: str
    acceptance: float
    score: float
    accepted_a_day: float


def flattened(splats: Splats) -> Splats:
    """One opacity for all, as the old fix wrote it."""
    return splats.replace(opacity_logits=np.full_like(splats.opacity_logits, FLAT))


def thinned(splats: Splats, seed: int) -> Splats:
    """What is left of it when memory is nearly full."""
    if len(splats) <= FEW:
        return splats
    kept = np.sort(np.random.default_rng(seed).choice(len(splats), FEW, replace=False))
    names = ("positions", "log_scales", "rotations", "opacity_logits", "f_dc")
    return Splats(*(getattr(splats, name)[kept] for name in names))


def repaired(splats: Splats) -> Splats:
    """By the fixer's default policy."""
    return fix(splats).splats


def score(splats: Splats, scene: str, strictness: float) -> float:
    """Of the local validators' scorer, detail counted."""
    return judge_text(scene, encode(splats), strictness=strictness, detail=True).value


def assets(count: int) -> list[tuple[str, Splats]]:
    """Scenes of the local validators and what the generator makes of them, those above ``FEW`` gaussians."""
    source, made = TaskSource((17, 0), 0.0), []
    while len(made) < count:
        scene = source().scene
        splats = generate(scene, FULL, len(made))
        if len(splats) > 2 * FEW:
            made.append((scene, splats))
    return made


class Scores:
    """Of every asset at each strictness, by what is fixed of it."""

    def __init__(self, made: list[tuple[str, Splats]]) -> None:
        self._made = made
        self._known: dict[tuple[bool, bool], dict[str, list[float]]] = {}

    def of(self, setup: Setup) -> dict[str, list[float]]:
        """As this set-up hands them in; of the old worker's, every other one is thin."""
        key = setup.opacity, setup.memory
        if key not in self._known:
            finish: Callable[[Splats], Splats] = repaired if setup.opacity else flattened
            ready = []
            for number, (scene, splats) in enumerate(self._made):
                thin = not setup.memory and number % round(1 / FILLED) == 0
                ready.append((scene, finish(thinned(splats, number) if thin else splats)))
            self._known[key] = {
                name: [score(splats, scene, strictness) for scene, splats in ready]
                for name, strictness in STRICTNESS.items()
            }
        return self._known[key]


def rows_of(setup: Setup, found: dict[str, list[float]], days: float) -> list[Row]:
    """Acceptance by the scorer, and the day that follows from it."""
    shares = {name: fmean([value >= GATE for value in values]) for name, values in found.items()}
    worker = WorkerModel(
        job=STEP_SECONDS * (OUR_STEPS if setup.timing else OLD_STEPS), hangs=0.0 if setup.memory else LOST
    )
    scene = Scene(
        validators=tuple(ValidatorModel(share, image_ratio=0.0) for share in shares.values()),
        workers=(worker, worker),
        days=days,
    )
    result = play(scene, Conduct() if setup.timing else NAIVE, seed=1)
    return [
        Row(setup.name, name, shares[name], fmean(found[name]), result.by_validator[index] / days)
        for index, name in enumerate(found)
    ]


def control(made: list[tuple[str, Splats]]) -> dict[str, float]:
    """Mean score at strictness 1 of the asset as made, and with each fault alone."""
    kinds: dict[str, Callable[[Splats, int], Splats]] = {
        "as made": lambda splats, _: splats,
        "one opacity for all": lambda splats, _: flattened(splats),
        "50,000 gaussians": thinned,
        "both": lambda splats, seed: flattened(thinned(splats, seed)),
        "as made, repaired": lambda splats, _: repaired(splats),
    }
    return {
        name: fmean([score(change(splats, n), scene, 1.0) for n, (scene, splats) in enumerate(made)])
        for name, change in kinds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=int, default=12)
    parser.add_argument("--days", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    made = assets(options.assets)
    print("A demonstration on local validators, not on the subnet.\n")
    seen = control(made)
    for name, value in seen.items():
        print(f"{name:22} mean score {value:.2f}")
    scores = Scores(made)
    rows = [row for setup in SETUPS for row in rows_of(setup, scores.of(setup), options.days)]
    print(f"\n{'set-up':16} {'validator':10} accepted   score    a day   against the old")
    old = {row.validator: row for row in rows if row.setup == "old"}
    for row in rows:
        gain = row.accepted_a_day / max(old[row.validator].accepted_a_day, 1e-9)
        more = "-" if row.setup == "old" else f"x {gain:.1f}" if gain < 1000 else "from none"
        print(
            f"{row.setup:16} {row.validator:10} {row.acceptance:8.0%} {row.score:7.2f}"
            f" {row.accepted_a_day:8.1f}   {more}"
        )
    if options.json:
        found = {"control": seen, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
