"""A whole training in miniature, and that what is held out stays held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sn17_scene import describe, layout, parse
from sn17_train.__main__ import UNFINISHED, main
from sn17_train.budget import Budget
from sn17_train.data import Corpus, arrangements, draw, held_out
from sn17_train.models import Models
from sn17_train.start import take
from sn17_trellis.engine.checkpoint import Repositories
from sn17_trellis.engine.pipeline import check_checkpoint
from sn17_trellis.engine.voxels import GatherNeighbours, Voxels
from sn17_trellis.procedural.voxels import scene_surface
from sn17_trellis.torch_backend import bundled_checkpoint


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


def test_held_out_prompts_are_in_no_batch() -> None:
    pool = arrangements(120)
    corpus = Corpus.of(pool)
    assert any(one.held_out for one in pool)
    assert not any(held_out(prompt) for prompt in corpus.prompts)
    held = {index for index, one in enumerate(pool) if one.held_out}
    assert not held & set(corpus.arrangement.tolist())
    drawn = corpus.draw(np.random.default_rng(0), 2000)
    assert len(set(corpus.arrangement[drawn].tolist())) == len(pool) - len(held)


def test_what_is_evaluated_is_held_out() -> None:
    pool, rng = arrangements(40), np.random.default_rng(0)
    trained = set(Corpus.of(pool).prompts)
    for _ in range(300):
        one, *colours = draw(rng, pool, unseen=True)
        assert one.prompt(*colours) not in trained


def test_a_batch_is_its_scenes_end_to_end() -> None:
    pool = arrangements(6)
    corpus = Corpus.of(pool)
    chosen = corpus.draw(np.random.default_rng(1), 5)
    scenes = corpus.scenes(chosen)
    for index, prompt in enumerate(chosen.tolist()):
        one, mine = pool[int(corpus.arrangement[prompt])], scenes.coords[:, 0] == index
        colours = [int(c) for c in corpus.colours[prompt]]
        assert corpus.prompts[prompt] == one.prompt(*colours)
        torch.testing.assert_close(scenes.coords[mine, 1:], one.coords.int())
        torch.testing.assert_close(scenes.rgb[mine], one.rgb(*colours))


def test_the_neighbour_gradient_is_autograds() -> None:
    coords = torch.nn.functional.pad(arrangements(1)[0].coords[:200].int(), (1, 0))
    voxels = Voxels(coords, 32)
    x = torch.randn(1, len(voxels), 3, requires_grad=True)
    weight = torch.randn(1, len(voxels), 81)
    (own,) = torch.autograd.grad((GatherNeighbours.apply(x, voxels.neighbours) * weight).sum(), x)
    plain = torch.nn.functional.pad(x, (0, 0, 0, 1))[:, voxels.neighbours].flatten(2)
    (expected,) = torch.autograd.grad((plain * weight).sum(), x)
    torch.testing.assert_close(own, expected)


def test_a_budget_ends_with_its_steps_and_goes_on_from_a_chunk() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    first = Budget(steps=3, seconds=60)
    assert list(first.train(optimizer, 1.0)) == [0, 1, 2]
    assert first.progress() == 1
    second = Budget(steps=3, seconds=60, step=2, spent=10)
    assert list(second.train(optimizer, 1.0)) == [2]
    assert list(Budget(steps=3, seconds=60, chunk=0).train(optimizer, 1.0)) == []


@pytest.mark.timeout(300)
def test_a_whole_training_in_miniature_and_in_chunks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    small = ["--size", "smoke", "--device", "cpu", "--arrangements", "3"]
    small += ["--cases", "1", "--sampling-steps", "1"]
    steps = ["--structure", "2", "60", "--gaussians", "2", "60", "--flows", "2", "60"]
    command = [str(tmp_path / "out"), *small, *steps, "--batches", "2", "1", "2", "2"]
    command += ["--state", str(tmp_path / "state")]
    assert main([*command, "--chunk", "0"]) == UNFINISHED
    assert "stage" in capsys.readouterr().out
    assert main(command) == 0
    assert '"stage": "structure"' not in capsys.readouterr().out
    check_checkpoint(tmp_path / "out", Repositories())
    further = [str(tmp_path / "further"), *small, "--fit", "2", "--start", str(tmp_path / "out")]
    assert main([*further, "--flows", "1", "60", "--batches", "2", "1", "2", "2"]) == 0
    assert '"stage": "fit"' in capsys.readouterr().out
    for role, kept in (("sparse_structure_decoder", True), ("sparse_structure_flow_model", False)):
        name = f"ckpts/{role}.safetensors"
        first, second = ((tmp_path / place / name).read_bytes() for place in ("out", "further"))
        assert (first == second) is kept
    torch.set_num_threads(before)


def test_a_checkpoint_of_other_sizes_is_no_start(tmp_path: Path) -> None:
    models = Models.make("smoke", torch.device("cpu"), 1)
    with pytest.raises(ValueError, match="other sizes"):
        take(models, bundled_checkpoint())
