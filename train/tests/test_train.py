"""A whole training in miniature, and that what is held out stays held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sn17_scene import describe, layout, parse
from sn17_train.__main__ import main
from sn17_train.data import arrangements, draw, held_out
from sn17_trellis.engine.checkpoint import Repositories
from sn17_trellis.engine.pipeline import check_checkpoint
from sn17_trellis.engine.voxels import GatherNeighbours, Voxels
from sn17_trellis.procedural.voxels import scene_surface


def test_arrangements_are_the_generators_scenes_in_the_networks_frame() -> None:
    for one in arrangements(4):
        prompt = one.prompt(2, 5)
        assert describe(parse(prompt)) == prompt
        surface = scene_surface(layout(parse(prompt)), 32)
        # The PLY export turns (x, y, z) into (x, -z, y).
        x, y, z = one.coords.numpy().T
        back = np.stack([x, 31 - z, y], axis=1)
        order, other = np.lexsort(back.T), np.lexsort(surface.coordinates.T)
        np.testing.assert_array_equal(back[order], surface.coordinates[other])
        np.testing.assert_allclose(one.rgb(2, 5).numpy()[order], surface.rgb[other], atol=1e-5)


def test_held_out_prompts_are_never_drawn() -> None:
    pool, rng = arrangements(40), np.random.default_rng(0)
    for _ in range(300):
        one, *colours = draw(rng, pool, unseen=False)
        assert not one.held_out
        assert not held_out(one.prompt(*colours))


def test_the_neighbour_gradient_is_autograds() -> None:
    coords = torch.nn.functional.pad(arrangements(1)[0].coords[:200].int(), (1, 0))
    voxels = Voxels(coords, 32)
    x = torch.randn(1, len(voxels), 3, requires_grad=True)
    weight = torch.randn(1, len(voxels), 81)
    (own,) = torch.autograd.grad((GatherNeighbours.apply(x, voxels.neighbours) * weight).sum(), x)
    plain = torch.nn.functional.pad(x, (0, 0, 0, 1))[:, voxels.neighbours].flatten(2)
    (expected,) = torch.autograd.grad((plain * weight).sum(), x)
    torch.testing.assert_close(own, expected)


def test_a_whole_training_in_miniature(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    small = ["--size", "smoke", "--device", "cpu", "--arrangements", "6", "--cases", "1"]
    steps = ["--structure", "2", "60", "--gaussians", "2", "60", "--flows", "2", "60"]
    state = ["--state", str(tmp_path / "state.pt")]
    assert main([str(tmp_path / "out"), *small, *steps, *state, "--batches", "2", "1", "2", "1"]) == 0
    check_checkpoint(tmp_path / "out", Repositories())
    assert (tmp_path / "out" / "figures.json").exists()
    torch.set_num_threads(before)
