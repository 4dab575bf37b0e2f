"""The fast lane: what is left out, what that does, and when it may be used at all."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the engine needs the 'torch' extra")
pytest.importorskip("transformers", reason="the engine needs the 'torch' extra")

from sn17_contract.metrics import GenerationKind  # noqa: E402
from sn17_trellis.backend import BadSampling, Job, Sampling  # noqa: E402
from sn17_trellis.commands import calibrate, compare  # noqa: E402
from sn17_trellis.engine.calibration import (  # noqa: E402
    FILE,
    Calibration,
    Candidate,
    choose,
    read_calibration,
    schedule,
    shorter,
)
from sn17_trellis.engine.config import EXACT, SamplerParams, Savings  # noqa: E402
from sn17_trellis.engine.fast import FastRunner  # noqa: E402
from sn17_trellis.engine.runners import EagerRunner  # noqa: E402
from sn17_trellis.engine.sampler import forward_count, plan, sample  # noqa: E402
from sn17_trellis.engine.structure import DeepBlocks  # noqa: E402
from sn17_trellis.torch_backend import TorchBackend, TorchConfig  # noqa: E402

pytestmark = pytest.mark.timeout(400)
PARAMS = SamplerParams(steps=8, cfg_strength=3.0, cfg_interval=(0.5, 1.0), rescale_t=3.0)


def test_nothing_is_left_out_unless_it_is_asked_for() -> None:
    steps = plan(PARAMS)
    assert not any(step.cached for step in steps)
    assert [step.branches for step in steps] == [1 + step.guided for step in steps]
    assert forward_count(PARAMS) == forward_count(PARAMS, EXACT) == 15


def test_a_plan_caches_only_what_has_run() -> None:
    late = PARAMS.override(cfg_interval=(0.2, 0.95))
    steps = plan(late, Savings(full_steps=(0,)))
    assert [step.guided for step in steps] == [False, False, *[True] * 6]
    assert [step.cached for step in steps] == [False, True, False, *[True] * 5]
    assert forward_count(late, Savings(full_steps=(0,))) == 3


def test_what_is_carried_on_lies_on_the_line_through_the_last_two_runs() -> None:
    """In time, not in steps, which are of unequal length; the first run alone is held."""
    unguided = PARAMS.override(cfg_strength=0)
    steps = plan(unguided, Savings(full_steps=(0, 2, 3), forecast=1.0))
    assert [step.deep.carried is None for step in steps] == [True, False, True, True, *[False] * 4]
    assert steps[1].deep.carried == (0.0,)
    times = [step.t for step in steps]
    for step, t in zip(steps[4:], times[4:], strict=True):
        (slopes,) = step.deep.carried or ()
        deep = DeepBlocks(before=torch.tensor(times[2]), contribution=torch.tensor(times[3]))
        assert float(deep.carried(slopes)) == pytest.approx(t)
    half = plan(unguided, Savings(full_steps=(0, 2, 3), forecast=0.5))
    assert [2 * slopes for step in half[4:] for slopes in step.deep.carried or ()] == [
        slopes for step in steps[4:] for slopes in step.deep.carried or ()
    ]


def test_each_branch_is_carried_on_from_its_own_runs() -> None:
    steps = plan(PARAMS, Savings(full_steps=(0, 1, 2), forecast=1.0, unconditional_every=2))
    assert [step.branches for step in steps] == [2, 1, 2, 1, 2, 1, 2, 1]
    t = [step.t for step in steps]
    assert steps[4].deep.carried == (
        pytest.approx((t[4] - t[2]) / (t[2] - t[1])),
        pytest.approx((t[4] - t[2]) / (t[2] - t[0])),
    )


def test_the_branch_without_condition_runs_every_third_guided_step() -> None:
    steps = plan(PARAMS, Savings(unconditional_every=3))
    assert [step.branches for step in steps] == [2, 1, 1, 2, 1, 1, 2, 1]
    assert [step.guided for step in steps] == [True] * 7 + [False]


class Line:
    """Velocity t (conditional) and a constant 2 apart: its integral is known."""

    def __init__(self, params: SamplerParams) -> None:
        self.steps = plan(params)
        self.asked: list[int] = []

    def branches(self, x: Any, step: int, count: int, deep: Any = None) -> Any:
        self.asked.append(count)
        t = torch.full_like(x, self.steps[step].t)
        return (t, t - 2)[:count]


def test_a_difference_that_does_not_change_is_re_used_without_error() -> None:
    noise = torch.zeros(3, dtype=torch.float64)
    exact = sample(Line(PARAMS), noise, PARAMS)
    line = Line(PARAMS)
    got = sample(line, noise, PARAMS, savings=Savings(unconditional_every=2))
    torch.testing.assert_close(got, exact)
    assert line.asked == [2, 1, 2, 1, 2, 1, 2, 1]


def test_the_second_order_solver_is_of_second_order() -> None:
    """x' = x backwards in time from 1: the end is 1/e; halving the steps costs a quarter of the accuracy."""

    class Growth:
        def branches(self, x: Any, step: int, count: int, deep: Any = None) -> Any:
            return (x,)

    def error(steps: int, solver: Any) -> float:
        params = SamplerParams(steps=steps, cfg_strength=0, rescale_t=2.0)
        end = sample(Growth(), torch.ones(1, dtype=torch.float64), params, savings=Savings(solver=solver))
        return abs(float(end) - torch.e**-1)

    assert error(20, "euler") / error(40, "euler") == pytest.approx(2, rel=0.1)
    assert error(20, "ab2") / error(40, "ab2") == pytest.approx(4, rel=0.2)
    assert error(20, "ab2") < error(20, "euler") / 5


def test_a_velocity_that_falls_evenly_is_carried_on_exactly_over_steps_of_any_size() -> None:
    """v = t: from the second step on nothing is left of the error, however unequal the steps are."""
    params = PARAMS.override(cfg_strength=0, rescale_t=4.0)
    end = sample(Line(params), torch.zeros(1, dtype=torch.float64), params, savings=Savings(solver="ab2"))
    first = 1 - plan(params)[1].t
    assert float(end) == pytest.approx(-(1 + first**2) / 2, rel=1e-12)


def test_a_runner_may_hand_out_the_same_buffer_at_every_step() -> None:
    class Buffer:
        def __init__(self, *, one: bool) -> None:
            self.one, self.kept = one, torch.zeros(3, dtype=torch.float64)

        def branches(self, x: Any, step: int, count: int, deep: Any = None) -> Any:
            self.kept = self.kept if self.one else torch.zeros_like(x)
            return (self.kept.copy_(x),)

    params, noise = PARAMS.override(cfg_strength=0), torch.arange(1, 4, dtype=torch.float64)
    ends = [sample(Buffer(one=one), noise, params, savings=Savings(solver="ab2")) for one in (True, False)]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)


def test_where_guidance_ends_nothing_is_carried_on() -> None:
    class Jump:
        def branches(self, x: Any, step: int, count: int, deep: Any = None) -> Any:
            return (torch.ones_like(x), torch.zeros_like(x))[:count]

    noise = torch.zeros(1, dtype=torch.float64)
    exact = sample(Jump(), noise, PARAMS)
    torch.testing.assert_close(sample(Jump(), noise, PARAMS, savings=Savings(solver="ab2")), exact)


def test_fast_and_plain_leave_out_the_same(golden: Any) -> None:
    params = SamplerParams(**golden.meta["sampler"]["ss"]).override(steps=6)
    cond, uncond, noise = (golden.tensor(name) for name in ("cond", "neg_cond", "ss_noise"))
    ends = []
    ways = (
        EXACT,
        Savings(full_steps=(0, 3)),
        Savings(full_steps=(0, 2), unconditional_every=2),
        Savings(full_steps=(0, 1, 3), forecast=0.5),
        Savings(full_steps=(0, 1), forecast=1.0, unconditional_every=3),
    )
    for savings in ways:
        out = [
            sample(runner.structure(golden.flow, params, cond, uncond), noise, params, savings=savings)
            for runner in (FastRunner(graphs=False), EagerRunner())
        ]
        assert float((out[0] - out[1]).norm() / out[1].norm()) < 2e-5
        ends.append(out[1])
    if len(golden.flow.blocks) > 1:
        for one, other in pairwise(ends):
            assert float((one - other).norm()) > 1e-4


def test_a_schedule_runs_the_steps_whose_first_block_changed() -> None:
    changes = [[], [0.1], [0.1, 0.3], [0.1, 0.2, 0.4], [0.1, 0.2, 0.3, 0.5], [0.1, 0.1, 0.1, 0.1, 0.1]]
    assert schedule(changes, [], 0.25) == (0, 2)
    assert schedule(changes, [], 0.05) == (0, 1, 2, 3, 4, 5)
    assert schedule(changes, [3], 1.0) == (0, 3)
    assert schedule([[], [0.0], [0.0], [0.0]], [], 1.0) == (0, 2)


def made(forwards: int, drift: float) -> Candidate:
    return Candidate(params=PARAMS, savings=EXACT, forwards=forwards, drift=drift)


def test_the_cheapest_that_drifts_no_further_than_plain_is_chosen() -> None:
    plain = made(40, 0.02)
    assert choose([made(20, 0.021), made(30, 0.02), made(30, 0.01)], plain) == made(30, 0.01)
    assert choose([made(20, 0.03)], plain) == plain
    # Others than the calibration's prompts drift further or less far: a margin is kept.
    assert choose([made(20, 0.0185)], plain) == plain


def test_a_schedule_is_shortened_step_by_step_while_it_drifts_no_further() -> None:
    assert shorter((0, 3, 5, 7), switches=[5]) == [(0, 5, 7), (0, 3, 5)]
    asked: list[tuple[int, ...]] = []

    def run(params: SamplerParams, savings: Savings) -> list[Any]:
        """Each step that runs is worth 0.01, early ones a little more; plain steps drift by 0.05."""
        if savings.full_steps is None:
            return [torch.ones(1) + (0.05 if params.steps == calibrate.PLAIN_STEPS else 0.0)]
        asked.append(savings.full_steps)
        return [torch.ones(1) + 0.07 - 0.01 * len(savings.full_steps) + 1e-4 * sum(savings.full_steps)]

    tries = [(PARAMS, Savings(full_steps=(0, 2, 4, 5, 7)))]
    found = calibrate.calibrate_stage(run, PARAMS, 250, tries, calibrate.shorter_schedules)
    assert found.chosen.savings.full_steps == (0, 2, 7)
    assert found.chosen.savings.full_steps in asked
    # One more was tried and drifted too far.
    assert found.tried[-1].savings.full_steps == (0, 7)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, write_checkpoint: Any) -> Path:
    directory = tmp_path_factory.mktemp("lane") / "text"
    write_checkpoint(directory, "Text")
    prompts = directory.parent / "prompts.txt"
    prompts.write_text("\na red cube\n\n")
    arguments = [str(directory), "--prompts", str(prompts), "--solution-steps", "26", "--device", "cpu"]
    assert calibrate.main([*arguments, "--preset", "fast"]) == 0
    return directory


def job(**wishes: Any) -> Job:
    return Job(GenerationKind.TASK, 5, prompt="a red cube", sampling=Sampling(**wishes))


def run(backend: TorchBackend, **wishes: Any) -> Any:
    return backend.generate(job(**wishes), lambda *_: None, lambda: False)


@pytest.mark.slow
def test_a_calibrated_checkpoint_has_a_fast_lane_and_says_so(calibrated: Path) -> None:
    found = read_calibration(calibrated)
    assert found is not None
    assert found.prompts == 1
    for of in (found.structure, found.latents):
        assert of.chosen.drift <= of.plain.drift
        assert of.chosen.forwards <= of.plain.forwards
    backend = TorchBackend(TorchConfig(calibrated, device="cpu", preset="fast"))
    backend.load()
    exact, fast = run(backend), run(backend, lane="fast")
    assert (exact.lane, fast.lane) == ("exact", "fast")
    assert run(backend, lane="exact").lane == "exact"
    with pytest.raises(BadSampling, match="steps and guidance of its own"):
        run(backend, lane="fast", latent_steps=12)
    with pytest.raises(BadSampling, match="calibrated for the preset 'fast'"):
        run(backend, preset="phase1-fast-lane")


@pytest.mark.slow
def test_another_checkpoints_calibration_is_not_used(
    calibrated: Path, tmp_path: Path, write_checkpoint: Any, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "other"
    write_checkpoint(directory, "Text", occupied=False)
    (directory / FILE).write_bytes((calibrated / FILE).read_bytes())
    backend = TorchBackend(TorchConfig(directory, device="cpu", preset="fast"))
    with caplog.at_level("WARNING"):
        backend.load()
    assert "it was calibrated for" in caplog.text
    with pytest.raises(BadSampling, match="no fast lane"):
        run(backend, lane="fast")


@pytest.mark.slow
def test_a_damaged_calibration_leaves_the_exact_lane(
    calibrated: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = (calibrated / FILE).read_bytes()
    (calibrated / FILE).write_bytes(content[:-20])
    try:
        backend = TorchBackend(TorchConfig(calibrated, device="cpu", preset="fast"))
        with caplog.at_level("WARNING"):
            backend.load()
        assert "run sn17-trellis calibrate" in caplog.text
        with pytest.raises(BadSampling, match="no fast lane"):
            run(backend, lane="fast")
    finally:
        (calibrated / FILE).write_bytes(content)


@pytest.mark.slow
def test_compare_holds_the_fast_lane_against_the_exact_one(
    calibrated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    what = [str(calibrated), "--prompt", "a red cube", "--preset", "fast", "--device", "cpu"]
    assert compare.main([*what, "--lane", "fast", "--against", "exact"], draw=lambda *_: ({}, b"")) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["ours"]["lane"], figures["other"]["lane"]) == ("fast", "exact")
    assert figures["ours"]["sha256"] != figures["other"]["sha256"]


@pytest.mark.slow
def test_calibrate_says_in_one_line_what_is_wrong(
    calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "none.txt"
    empty.write_text("\n\n")
    assert calibrate.main([str(calibrated), "--prompts", str(empty), "--device", "cpu"]) == 1
    assert calibrate.main([str(calibrated), "--prompts", str(tmp_path / "no.txt"), "--device", "cpu"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "holds no prompt" in lines[0]


def test_a_file_that_is_not_one_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        Calibration.model_validate_json('{"version": 2}')
