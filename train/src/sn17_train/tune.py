"""`python -m sn17_train.tune`: teach an exported checkpoint's latent flow and text model more about words.

The structure flow's behaviour is held by its former self: it is trained on to give the same velocities under
the new text model as before under the old one, so no encoder is needed.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as fn
from safetensors.torch import load_file
from torch import Tensor, nn

from sn17_train.data import arrangements, draw
from sn17_train.export import export
from sn17_train.stages import STD, Budget, Models, apply_step, autocast, flow_loss, latent_batch, rate

ROLES = {
    "flow": "sparse_structure_flow_model",
    "decoder": "sparse_structure_decoder",
    "latents": "slat_flow_model",
    "gaussians": "slat_decoder_gs",
}


def load_models(checkpoint: Path, size: str, device: torch.device) -> Models:
    """Networks for training from an exported checkpoint, in float32."""
    models = Models.make(size, device, 0)
    for name, role in ROLES.items():
        models.modules()[name].load_state_dict(load_file(checkpoint / "ckpts" / f"{role}.safetensors"))
    models.text = type(models.text).from_pretrained(checkpoint / "text").float().to(device).train()
    return models


@torch.no_grad()
def imagined(models: Models, states: Tensor, steps: int = 12) -> Tensor:
    """Structure latents that the flow makes of conditions, by plain Euler steps."""
    r = models.flow.config.resolution
    x = torch.randn(len(states), models.flow.config.in_channels, r, r, r, device=models.device)
    times = torch.linspace(1, 0, steps + 1)
    times = 3 * times / (1 + 2 * times)
    for t, following in pairwise(times):
        x = x - float(t - following) * models.flow(x, 1000 * t.expand(len(x)).to(x.device), states).float()
    return x


def main(argv: list[str] | None = None) -> int:
    """Train on within the budget, then export."""
    parser = argparse.ArgumentParser(prog="python -m sn17_train.tune", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", choices=("full", "smoke"), default="full")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--batches", type=int, nargs=2, default=(32, 12))
    parser.add_argument("--arrangements", type=int)
    args = parser.parse_args(argv)
    device, started = torch.device(args.device), time.monotonic()
    models = load_models(args.checkpoint, args.size, device)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    pool = [each.to(device) for each in arrangements(args.arrangements)]
    teacher = copy.deepcopy(models.flow).requires_grad_(False)
    old_text = copy.deepcopy(models.text).requires_grad_(False)
    seen = [draw(rng, pool, unseen=False) for _ in range(16 * args.batches[0])]
    prompts = [one.prompt(colour, base) for one, colour, base in seen]
    with torch.no_grad():
        grids = torch.cat(
            [imagined(models, models.encode_text(prompts[i : i + 128])) for i in range(0, len(prompts), 128)]
        )
    trained: dict[str, nn.Module] = {"flow": models.flow, "latents": models.latents, "text": models.text}
    averages = {name: copy.deepcopy(module).requires_grad_(False) for name, module in trained.items()}
    parameters = [p for module in trained.values() for p in module.parameters()]
    averaged = [p for module in averages.values() for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0, betas=(0.9, 0.98))
    budget, step, std = Budget(args.steps, args.seconds), 0, torch.tensor(STD, device=device)
    while (progress := budget.progress(step)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate(progress, 6e-4)
        chosen = rng.integers(len(prompts), size=args.batches[0])
        some = [prompts[i] if rng.random() > 0.1 else "" for i in chosen]
        x = grids[torch.from_numpy(chosen).to(device)]
        t = torch.sigmoid(torch.randn(len(x), device=device) + 1)
        each = t.view(-1, 1, 1, 1, 1)
        noisy = (1 - each) * x + each * torch.randn_like(x)
        rows, voxels, more = latent_batch(models, pool, args.batches[1], rng)
        more = [prompt if rng.random() > 0.1 else "" for prompt in more]
        with autocast(device):
            new_text, models.text = models.text, old_text
            with torch.no_grad():
                wanted = teacher(noisy, 1000 * t, models.encode_text(some)).float()
            models.text = new_text
            cond = models.encode_text([*some, *more])
            kept = fn.mse_loss(models.flow(noisy, 1000 * t, cond[: len(x)]).float(), wanted)
            latents = flow_loss(
                rows / std,
                lambda xt, t, c=cond, v=voxels, n=len(x): models.latents(xt[None], t, c[n:], v)[0],
                args.batches[1],
                voxels.batch,
            )
        apply_step(optimizer, 2 * kept + latents, parameters)
        with torch.no_grad():
            torch._foreach_lerp_(averaged, parameters, max(0.01, 1 - (1 + step) / (10 + step)))
        if step % 50 == 0:
            values = {"kept": kept.item(), "latents": latents.item(), "progress": progress}
            line = {"seconds": round(time.monotonic() - started, 1), "step": step, **values}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        step += 1
    export(models, averages, args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
