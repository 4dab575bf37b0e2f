"""``sn17-trellis calibrate``: find out what a checkpoint may leave out, and keep it beside the checkpoint."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

import torch
from sn17_files import write_atomically
from torch import Tensor

from sn17_trellis.engine.calibration import (
    FILE,
    LOOK_BACK,
    Calibration,
    Candidate,
    StageCalibration,
    choose,
    schedule,
    shorter,
)
from sn17_trellis.engine.checkpoint import Repositories, fingerprint
from sn17_trellis.engine.conditioning import TextConditioner
from sn17_trellis.engine.config import EXACT, PRESETS, SamplerParams, Savings
from sn17_trellis.engine.errors import EngineError
from sn17_trellis.engine.fast import FastRunner
from sn17_trellis.engine.pipeline import Pipeline, load_pipeline
from sn17_trellis.engine.runners import EagerRunner, Runner, timesteps
from sn17_trellis.engine.sampler import RUN, Deep, forward_count, plan, sample
from sn17_trellis.engine.structure import DeepBlocks
from sn17_trellis.engine.voxels import Voxels

FROM_CHECKPOINT = "checkpoint"
PLAIN_STEPS = 25
"""The fast lane may drift as far as so many plain Euler steps do."""
THRESHOLDS = (0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.12, 0.14, 0.16, 0.2, 0.25, 0.3, 0.4)
FORECASTS = (0.0, 0.5, 1.0)
LATENT_STEPS = (10, 11, 12, 13, 14, 15, 16, 20, 25)
EVERY = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One prompt under way: its condition and absence, and the noise of both stages."""

    cond: Tensor
    uncond: Tensor
    noise: Tensor
    generator: torch.Generator


Try = tuple[SamplerParams, Savings]
Run = Callable[[SamplerParams, Savings], list[Tensor]]
"""Samples one stage for every prompt."""


def candidate(run: Run, solutions: list[Tensor], params: SamplerParams, savings: Savings) -> Candidate:
    """What one way to sample costs, and how far it ends from the solutions."""
    made = run(params, savings)
    apart = [float((got - want).norm() / want.norm()) for got, want in zip(made, solutions, strict=True)]
    drift = sum(apart) / len(apart)
    return Candidate(params=params, savings=savings, forwards=forward_count(params, savings), drift=drift)


def calibrate_stage(
    run: Run,
    params: SamplerParams,
    solution_steps: int,
    tries: Sequence[Try],
    refine: Callable[[Candidate], Sequence[Try]] = lambda _: (),
) -> StageCalibration:
    """Measure plain Euler and all tries against the solution, and choose the cheapest that is near enough.

    `refine` names cheaper ways near the one chosen so far; the best of them is chosen next, if it is good.
    """
    solutions = run(params.override(steps=solution_steps), EXACT)

    def measured(params: SamplerParams, savings: Savings) -> Candidate:
        found = candidate(run, solutions, params, savings)
        sys.stderr.write(describe(found) + "\n")
        return found

    full, plain = measured(params, EXACT), measured(params.override(steps=PLAIN_STEPS), EXACT)
    tried = [measured(*each) for each in tries]
    chosen = choose(tried, plain)
    while nearby := refine(chosen):
        tried.append(min((measured(*each) for each in nearby), key=lambda each: each.drift))
        before, chosen = chosen, choose(tried, plain)
        if chosen == before:
            break
    return StageCalibration(chosen=chosen, plain=plain, full=full, tried=tuple(tried))


def describe(each: Candidate) -> str:
    """One line of the table."""
    savings = each.savings
    left_out = f"{len(savings.full_steps)} full" if savings.full_steps is not None else "all full"
    return (
        f"{each.params.steps:4d} steps {savings.solver:5} {left_out:9} forecast {savings.forecast:.1f} "
        f"unconditional every {savings.unconditional_every}: "
        f"{each.forwards:4d} forwards, drift {each.drift:.4f}"
    )


def first_block_changes(
    pipeline: Pipeline, samples: list[Sample], params: SamplerParams
) -> list[list[float]]:
    """Relative change of the first block's tokens since each step before, the largest of all prompts."""
    steps = params.steps
    changes = [[0.0] * min(step, LOOK_BACK) for step in range(steps)]
    for each in samples:
        recorder = _Recorder(pipeline, each, params)
        sample(recorder, each.noise, params)
        for step, (now, row) in enumerate(zip(recorder.seen, changes, strict=True)):
            for back in range(len(row)):
                before = recorder.seen[step - 1 - back]
                row[back] = max(row[back], float((now - before).norm() / before.norm()))
    return changes


class _Recorder:
    """The plain form of the structure flow; keeps what the first block made of each step."""

    def __init__(self, pipeline: Pipeline, of: Sample, params: SamplerParams) -> None:
        self._flow, self._times = pipeline.flow, timesteps(params, of.noise.device)
        self._conditions = (of.cond, of.uncond)
        self.seen: list[Tensor] = []

    def branches(self, x: Tensor, step: int, count: int, deep: Deep = RUN) -> tuple[Tensor, ...]:
        assert deep == RUN
        blocks = DeepBlocks()
        t = self._times[step : step + 1]
        out = [self._flow(x, t, self._conditions[0], blocks)]
        assert blocks.first is not None
        self.seen.append(blocks.first.float())
        out += [self._flow(x, t, cond) for cond in self._conditions[1:count]]
        return tuple(out)


def guidance_switches(params: SamplerParams) -> list[int]:
    """Steps at which guidance begins or ends."""
    return [i for i, (a, b) in enumerate(pairwise(plan(params)), 1) if a.branches != b.branches]


def structure_tries(pipeline: Pipeline, samples: list[Sample], params: SamplerParams) -> list[Try]:
    """A schedule for each threshold, without doubles, with each forecast."""
    changes, switches = first_block_changes(pipeline, samples, params), guidance_switches(params)
    found = dict.fromkeys(schedule(changes, switches, threshold) for threshold in THRESHOLDS)
    return [
        (params, Savings(full_steps=full, forecast=forecast)) for full, forecast in product(found, FORECASTS)
    ]


def shorter_schedules(chosen: Candidate) -> list[Try]:
    """The chosen schedule with one full step less, in all ways."""
    savings = chosen.savings
    if savings.full_steps is None:
        return []
    switches = guidance_switches(chosen.params)
    return [
        (chosen.params, savings.model_copy(update={"full_steps": full}))
        for full in shorter(savings.full_steps, switches)
    ]


def latent_tries(params: SamplerParams) -> list[Try]:
    """Each part of the fast lane alone, and all together."""
    kept = [(params, Savings(unconditional_every=every)) for every in EVERY[1:]]
    return kept + [
        (params.override(steps=steps), Savings(solver="ab2", unconditional_every=every))
        for steps, every in product(LATENT_STEPS, EVERY)
    ]


@torch.inference_mode()
def calibrate(
    pipeline: Pipeline, prompts: list[str], preset: str, solution_steps: int, content: str
) -> Calibration:
    """Calibrate both stages, the latents on each prompt's own structure. Raises EngineError."""
    structure, latents = pipeline.defaults
    if preset != FROM_CHECKPOINT:
        values = PRESETS[preset]
        structure = structure.override(steps=values.structure_steps, cfg_strength=values.structure_cfg)
        latents = latents.override(steps=values.latent_steps, cfg_strength=values.latent_cfg)
    assert isinstance(pipeline.conditioner, TextConditioner)
    samples = []
    for seed, prompt in enumerate(prompts):
        cond, uncond = pipeline.conditioner.condition(prompt)
        generator = torch.Generator().manual_seed(seed)
        samples.append(Sample(cond, uncond, pipeline.structure_noise(generator), generator))

    def structures(params: SamplerParams, savings: Savings) -> list[Tensor]:
        return [
            pipeline.sample_structure(each.noise, each.cond, each.uncond, params, savings=savings)
            for each in samples
        ]

    of_structure = calibrate_stage(
        *(structures, structure, solution_steps, structure_tries(pipeline, samples, structure)),
        refine=shorter_schedules,
    )
    voxels: list[Voxels] = [pipeline.decode_structure(latent) for latent in structures(structure, EXACT)]
    noises = [pipeline.latent_noise(each.generator, grid) for each, grid in zip(samples, voxels, strict=True)]

    def slats(params: SamplerParams, savings: Savings) -> list[Tensor]:
        return [
            pipeline.sample_latents(noise, each.cond, each.uncond, grid, params, savings=savings)
            for each, noise, grid in zip(samples, noises, voxels, strict=True)
        ]

    of_latents = calibrate_stage(slats, latents, solution_steps, latent_tries(latents))
    on_gpu = pipeline.device.type == "cuda"
    return Calibration(
        checkpoint=content,
        preset=preset,
        device=torch.cuda.get_device_name() if on_gpu else "cpu",
        prompts=len(prompts),
        solution_steps=solution_steps,
        structure=of_structure,
        latents=of_latents,
    )


def main(argv: Sequence[str]) -> int:
    """Calibrate a text checkpoint and write the result beside it; one line per way that was tried."""
    parser = argparse.ArgumentParser(prog="sn17-trellis calibrate", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--prompts", type=Path, required=True, help="file with one prompt a line")
    parser.add_argument("--preset", choices=(*PRESETS, FROM_CHECKPOINT), default="phase1")
    parser.add_argument("--solution-steps", type=int, default=250, help="Euler steps that count as exact")
    parser.add_argument("--root", type=Path, action="append", default=[], help="folder with OWNER/NAME/...")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    args = parser.parse_args(argv)
    name = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    device, repositories = torch.device(name), Repositories(tuple(args.root))
    runner: Runner = FastRunner() if name == "cuda" else EagerRunner()
    try:
        prompts = [line.strip() for line in args.prompts.read_text().splitlines() if line.strip()]
        if not prompts:
            raise ValueError(f"{args.prompts} holds no prompt")
        pipeline = load_pipeline(
            args.checkpoint,
            device,
            dtype=None if name == "cuda" else torch.float32,
            repositories=repositories,
            runner=runner,
        )
        if pipeline.kind != "text":
            raise ValueError(f"{args.checkpoint} takes images: only text checkpoints can be calibrated")
        content = fingerprint(args.checkpoint, repositories)
        found = calibrate(pipeline, prompts, args.preset, args.solution_steps, content)
        write_atomically(args.checkpoint / FILE, found.model_dump_json(indent=1).encode() + b"\n")
    except (OSError, ValueError, EngineError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for stage, of in (("structure", found.structure), ("latents", found.latents)):
        sys.stdout.write(
            f"{stage}: {describe(of.chosen)}; plain {PLAIN_STEPS} steps drift {of.plain.drift:.4f}\n"
        )
    sys.stdout.write(f"{args.checkpoint / FILE}\n")
    return 0
