"""Two runs of the lane benchmark are joined as one over all their prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the engine needs the 'torch' extra")

from sn17_bench.lanes import joined
from sn17_bench.sampling import spread


def run(values: list[float]) -> dict[str, Any]:
    share = float(np.mean([value >= 0.6 for value in values]))
    asset = {"forwards": 7, "accepted": share, "accepted_interval": [0, 1], "score": list(spread(values))}
    drift = {"steps": 3, "forwards": 7, "drift": list(spread(values))}
    tables = {"structure": {"full": drift}, "latents": {"full": drift}, "assets": {"full": asset}}
    return {"cases": len(values), "threshold": 0.6, "checkpoint": "a", "seconds": 2.0, **tables}


def test_means_and_intervals_are_those_of_all_prompts() -> None:
    draws = np.random.default_rng(0).uniform(0, 1, 600).tolist()
    whole, both = run(draws), joined(run(draws[:200]), run(draws[200:]))
    assert both["cases"] == 600
    assert both["seconds"] == 4.0
    assert both["structure"]["full"]["forwards"] == 7
    row, want = both["assets"]["full"], whole["assets"]["full"]
    assert row["accepted"] == pytest.approx(want["accepted"])
    assert row["score"] == pytest.approx(want["score"], rel=0.02)
    assert row["accepted_interval"][0] < row["accepted"] < row["accepted_interval"][1]


def test_runs_of_different_checkpoints_are_not_joined() -> None:
    with pytest.raises(SystemExit, match="different checkpoints"):
        joined(run([0.1, 0.9]), {**run([0.1, 0.9]), "checkpoint": "b"})
