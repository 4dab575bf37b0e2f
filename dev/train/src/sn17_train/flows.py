"""The last thing that is trained: both flows and the text model, together, in chunks."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as fn
from sn17_trellis.engine.voxels import Voxels
from torch import Tensor, nn

from sn17_train.budget import Budget, Log, apply_step, autocast
from sn17_train.data import Arrangement, Corpus
from sn17_train.models import Models
from sn17_train.stages import STD, encode_structures, latent_batch

PEAK = 8e-4
AVERAGE = 0.999
DROPPED = 0.1
"""Share of the prompts that are trained on as no prompt, which is what guidance guides away from."""
FROM_NOISE = 1 / 3


@dataclass(slots=True, eq=False)
class Training:
    """Networks, their exponential averages and the optimizer, kept in `file` between chunks."""

    trained: dict[str, nn.Module]
    averages: dict[str, nn.Module]
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    averaged: list[Tensor]
    rng: np.random.Generator
    file: Path | None

    @classmethod
    def of(cls, models: Models, rng: np.random.Generator, directory: Path | None) -> Training:
        trained = models.of_stage("flows")
        averages = {name: copy.deepcopy(module).requires_grad_(False) for name, module in trained.items()}
        parameters = [p for module in trained.values() for p in module.parameters()]
        averaged: list[Tensor] = [p for module in averages.values() for p in module.parameters()]
        fused = models.device.type == "cuda"
        optimizer = torch.optim.AdamW(parameters, weight_decay=0.01, betas=(0.9, 0.98), fused=fused)
        file = directory / "flows.pt" if directory else None
        return cls(trained, averages, optimizer, parameters, averaged, rng, file)

    def resume(self, budget: Budget, device: torch.device) -> None:
        """Take up an earlier chunk, if there is one."""
        if self.file is None or not self.file.exists():
            return
        saved = torch.load(self.file, map_location=device, weights_only=True)
        for name, module in self.trained.items():
            module.load_state_dict(saved["trained"][name])
            self.averages[name].load_state_dict(saved["averages"][name])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.rng.bit_generator.state = saved["rng"]
        torch.manual_seed(saved["step"])
        budget.step, budget.spent = saved["step"], saved["seconds"]

    def keep(self, budget: Budget) -> None:
        """Write the state of this chunk."""
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "trained": {name: module.state_dict() for name, module in self.trained.items()},
            "averages": {name: module.state_dict() for name, module in self.averages.items()},
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "step": budget.step,
            "seconds": budget.elapsed(),
        }
        torch.save(state, self.file)

    def average(self, step: int) -> None:
        """Move the averages; young ones forget faster."""
        with torch.no_grad():
            share = 1 - min(AVERAGE, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.averaged, list[Tensor](self.parameters), share)


def train_flows(
    models: Models,
    pool: list[Arrangement],
    corpus: Corpus,
    budget: Budget,
    batches: tuple[int, int],
    rng: np.random.Generator,
    log: Log,
    directory: Path | None = None,
    wrong: float = 0.0,
    targets: Tensor | None = None,
) -> dict[str, nn.Module] | None:
    """Both flows and the text model, which has to learn from both: colours mean nothing to structure.

    `wrong` is the share of scenes that are shown with another scene's prompt, as captions found on the web
    are: what a prompt then stands for is mixed with everything else, and guidance has to take that out again.
    `targets` are the arrangements' latents; None: as the encoder makes them.

    Returns the exponential averages by name, or None where the chunk ended before the budget did.
    """
    training = Training.of(models, rng, directory)
    training.resume(budget, models.device)
    if models.device.type == "cuda":
        for block in models.flow.blocks:
            block.compile(dynamic=False)
        # Its plans cost tens of milliseconds for every new number of voxels.
        torch.backends.cuda.enable_cudnn_sdp(False)
    if targets is None:
        targets = encode_structures(models, torch.stack([each.occupancy() for each in pool]))
    tokens = models.tokens([*corpus.prompts, ""])
    std = torch.tensor(STD, device=models.device)
    for step in budget.train(training.optimizer, PEAK):
        chosen = corpus.draw(rng, sum(batches))
        dropped = torch.from_numpy(rng.random(len(chosen)) < DROPPED).to(models.device)
        x = targets[corpus.arrangement[chosen[: batches[0]]]]
        rows, voxels = latent_batch(corpus, chosen[batches[0] :])
        captions = torch.where(
            torch.from_numpy(rng.random(len(chosen)) < wrong).to(models.device),
            corpus.draw(rng, len(chosen)),
            chosen,
        )
        with autocast(models.device):
            cond = models.encode_text(tokens[torch.where(dropped, len(tokens) - 1, captions)])
            first, second = torch.split(cond, list(batches))
            t = late_times(batches[0], models.device)
            structure = flow_loss(x, t, models.flow, first)
            # Thousands of voxels share a colour, so it shows through nearly any noise: only from noise alone
            # is it learned from the words.
            t = late_times(batches[1], models.device)
            t = torch.where(torch.rand_like(t) < FROM_NOISE, 1.0, t)
            latents = ragged_flow_loss(rows / std, t, models.latents, second, voxels)
        apply_step(training.optimizer, structure + latents, training.parameters)
        training.average(step)
        if step % 100 == 0:
            values = {"structure": structure.item(), "latents": latents.item()}
            log({"stage": "flows", "step": step, **values, "progress": budget.progress()})
    training.keep(budget)
    return training.averages if budget.progress() >= 1 else None


def late_times(count: int, device: torch.device) -> Tensor:
    """Random times [count], more often late (noisy) ones."""
    return torch.sigmoid(torch.randn(count, device=device) + 1)


def flow_loss(x: Tensor, t: Tensor, flow: nn.Module, cond: Tensor) -> Tensor:
    """Mean squared error of the velocity of grids `x` [B, ...] at times `t` [B]."""
    each, noise = t.view(-1, *[1] * (x.dim() - 1)), torch.randn_like(x)
    predicted: Tensor = flow((1 - each) * x + each * noise, 1000 * t, cond)
    return fn.mse_loss(predicted.float(), noise - x)


def ragged_flow_loss(x: Tensor, t: Tensor, flow: nn.Module, cond: Tensor, voxels: Voxels) -> Tensor:
    """The same of latents `x` [N, C] of several objects' voxels, with a time for each object."""
    each, noise = t[voxels.batch][:, None], torch.randn_like(x)
    predicted: Tensor = flow(((1 - each) * x + each * noise)[None], 1000 * t, cond, voxels)[0]
    return fn.mse_loss(predicted.float(), noise - x)
