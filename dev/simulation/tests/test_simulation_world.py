"""The world in virtual time against what was measured live, and against what can be worked out."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import fmean, median

import pytest
from sn17_simulation.calibration import LIVE, Live, simulated
from sn17_simulation.scene import NAIVE, Conduct, Scene, ValidatorModel, WorkerModel
from sn17_simulation.world import play

ONE = Scene(validators=(ValidatorModel(0.5),), days=20.0)


def test_it_reproduces_the_live_run() -> None:
    """Idle time, cycle and acceptance within a few percent of the stack on the local validators."""
    live = Live(**json.loads(LIVE.read_text()))
    found = simulated(live, seeds=8)
    assert found.idle == pytest.approx(live.idle, rel=0.1, abs=0.01)
    assert found.cycle == pytest.approx(live.cycle, rel=0.05)
    assert found.acceptance == pytest.approx(live.acceptance, abs=0.05)
    assert found.violations == live.violations == 0


def test_without_choices_a_day_is_what_the_rules_say() -> None:
    """Cycle = cooldown + penalty for what is rejected, plus the moments to wake and to truncate."""
    result = play(ONE, NAIVE, seed=1)
    rejected = result.rejected / result.tasks
    assert fmean(result.cycles) == pytest.approx(300.0 + 600.0 * rejected, rel=0.01)
    assert result.rejected / result.tasks == pytest.approx(0.5, abs=0.05)
    assert median(result.idle) == pytest.approx(0.062, abs=0.005)
    assert result.violations == 0


def test_image_tasks_on_a_text_only_fleet_cost_their_cooldown_when_given_back() -> None:
    text_only = replace(ONE, workers=(WorkerModel(models=("text",)),))
    ours, held = play(text_only, Conduct(), 1), play(text_only, replace(Conduct(), unservable="hold"), 1)
    assert ours.empty / ours.tasks == pytest.approx(0.2, abs=0.03)
    assert ours.a_day > 1.1 * held.a_day


def test_a_hung_job_moves_to_another_worker() -> None:
    hanging = replace(ONE, workers=(WorkerModel(hangs=0.1), WorkerModel(hangs=0.1)))
    ours, waits = play(hanging, Conduct(), 1), play(hanging, replace(Conduct(), stalled="wait"), 1)
    assert ours.empty == 0
    assert waits.empty > 0
    assert ours.a_day > waits.a_day


def test_a_scorer_earns_at_a_strict_validator() -> None:
    strict = replace(ONE, validators=(ValidatorModel(0.3),))
    assert play(strict, Conduct(scorer=True), 1).a_day > 1.3 * play(strict, NAIVE, 1).a_day


def test_the_same_seed_gives_the_same_days() -> None:
    scene = replace(ONE, days=2.0, restart_at=1.0)
    assert play(scene, Conduct(), 3) == play(scene, Conduct(), 3)
