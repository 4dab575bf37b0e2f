from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import sn17_scene
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from sn17_contract.metrics import GenerationKind
from sn17_splats import Splats, read_ply, statistics, write_ply
from sn17_trellis.backend import BadImage, BadPrompt, BadSampling, Cancelled, Generation, Job, Sampling
from sn17_trellis.procedural import ProceduralBackend
from sn17_trellis.procedural.image import image_surface
from sn17_trellis.procedural.voxels import INSIDE, scene_surface
from sn17_trellis.quality import measure

prompts = st.integers(0, 2**32).map(lambda seed: sn17_scene.random_prompt(np.random.default_rng(seed)))


def generate(backend: ProceduralBackend, prompt: str, seed: int = 1) -> Generation:
    return backend.generate(Job(GenerationKind.TASK, seed, prompt=prompt), lambda *_: None, lambda: False)


def splats_of(generation: Generation) -> Splats:
    assert isinstance(generation.asset, Splats)
    return generation.asset


@given(prompts, st.integers(0, 2**32 - 1))
@example("three small purple stars", 0)
@settings(max_examples=25, deadline=None)
def test_an_asset_looks_like_one_of_trellis(prompt: str, seed: int) -> None:
    generation = generate(ProceduralBackend(700_000), prompt, seed)
    splats = splats_of(generation)
    assert generation.gaussians == len(splats)
    assert len(splats) % 32 == 0
    assert 7_000 <= len(splats) <= 700_000
    quality = measure(splats)
    assert quality.findings == ()
    assert quality.finite_share == 1
    assert quality.statistics["logit_mean"] == pytest.approx(3.86, abs=0.4)
    assert quality.statistics["logit_std"] == pytest.approx(2.7, abs=0.4)
    assert np.abs(splats.positions).max() <= 0.5
    assert splats.log_scales.min() >= np.log(9e-4) - 1e-4
    norms = np.linalg.norm(splats.rotations, axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)
    assert not np.allclose(splats.rotations, [1, 0, 0, 0])


@given(prompts, st.integers(7_168, 120_000))
@example("three small purple stars", 7_168)
@settings(max_examples=25, deadline=None)
def test_the_maximum_holds_and_the_surface_stays_closed(prompt: str, limit: int) -> None:
    splats = splats_of(generate(ProceduralBackend(limit), prompt))
    assert 1 <= len(splats) <= limit
    fine = splats_of(generate(ProceduralBackend(700_000), prompt))
    # The extents agree within one voxel of the coarser grid, so nothing was cut away.
    edge = 1 / max(8, 64 * np.sqrt(len(splats) / len(fine)) / 2)
    np.testing.assert_allclose(splats.positions.max(axis=0), fine.positions.max(axis=0), atol=2 * edge)
    np.testing.assert_allclose(splats.positions.min(axis=0), fine.positions.min(axis=0), atol=2 * edge)


def test_assets_span_the_range_that_miners_see() -> None:
    backend = ProceduralBackend(700_000)
    rng = np.random.default_rng(1)
    counts = [generate(backend, sn17_scene.random_prompt(rng)).gaussians for _ in range(40)]
    assert min(counts) < 80_000
    assert max(counts) > 250_000
    assert generate(backend, "a large red cube").gaussians > 600_000


@given(prompts, st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_the_same_job_gives_the_same_bytes_and_another_seed_others(prompt: str, seed: int) -> None:
    backend = ProceduralBackend(50_000)
    first = write_ply(splats_of(generate(backend, prompt, seed)))
    assert write_ply(splats_of(generate(ProceduralBackend(50_000), prompt, seed))) == first
    assert write_ply(splats_of(generate(backend, prompt, seed ^ 1))) != first
    assert len(read_ply(first)) % 32 == 0


@given(prompts)
@settings(max_examples=30, deadline=None)
def test_every_gaussian_lies_on_a_placed_object_in_its_colour(prompt: str) -> None:
    """Against the layout, voxel by voxel: inside a part's box, and of a colour that light can give it."""
    placed = sn17_scene.layout(sn17_scene.parse(prompt))
    surface = scene_surface(placed, 48)
    centres = (surface.coordinates + 0.5) / 48 - 0.5
    explained = np.zeros(len(surface), dtype=bool)
    for part in placed:
        local = (centres - part.centre) / part.half_size
        within = (np.abs(local) <= 1 + 1e-3).all(axis=1)
        same = np.abs(sn17_scene.lit(part.rgb, local.astype(np.float32)) - surface.rgb).max(axis=1) < 1e-3
        explained |= within & same
    assert explained.all()


@pytest.mark.parametrize("shape", sorted(sn17_scene.SHAPES))
def test_each_shape_fills_its_box_and_no_more(shape: str) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1.2, 1.2, (200_000, 3)).astype(np.float32)
    inside = INSIDE[shape](*points.T)
    outside_box = (np.abs(points) > 1).any(axis=1)
    assert not (inside & outside_box).any()
    reach = np.abs(points[inside]).max(axis=0)
    assert (reach > (0.75 if shape == "star" else 0.9)).all()
    assert set(INSIDE) == set(sn17_scene.SHAPES)


SOLID_SHARE = {
    "cube": 1.0,
    "sphere": np.pi / 6,
    "cylinder": np.pi / 4,
    "cone": np.pi / 12,
    "pyramid": 1 / 3,
    "dome": np.pi / 6,
    "diamond": 1 / 6,
    "cross": 7 / 27,
    "wedge": 1 / 2,
}
"""Volume as a share of the bounding box, from geometry."""


@pytest.mark.parametrize(("shape", "share"), SOLID_SHARE.items())
def test_volumes_are_those_of_geometry(shape: str, share: float) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (400_000, 3)).astype(np.float32)
    assert INSIDE[shape](*points.T).mean() == pytest.approx(share, abs=0.005)


def test_the_torus_has_a_hole_towards_the_viewer_and_the_wedge_rises_to_the_right() -> None:
    assert not INSIDE["torus"](np.zeros(1), np.zeros(1), np.zeros(1))[0]
    assert INSIDE["torus"](np.full(1, 0.7), np.zeros(1), np.zeros(1))[0]
    right = INSIDE["wedge"](np.full(1, 0.8), np.full(1, 0.5), np.zeros(1))
    left = INSIDE["wedge"](np.full(1, -0.8), np.full(1, 0.5), np.zeros(1))
    assert right[0]
    assert not left[0]


def test_any_prompt_gives_an_object_of_the_words_that_are_known() -> None:
    backend = ProceduralBackend(7_168)
    dragon, again, knight = (
        splats_of(generate(backend, prompt)) for prompt in ("a dragon", "a dragon", "a knight in armour")
    )
    assert write_ply(dragon) == write_ply(again) != write_ply(knight)
    known = splats_of(generate(backend, "two green stars on a red table"))
    free = splats_of(generate(backend, "Two shining, green STARS (from space) on the old red table!"))
    np.testing.assert_allclose(free.positions.max(axis=0), known.positions.max(axis=0), atol=0.01)
    np.testing.assert_allclose(free.f_dc.mean(axis=0), known.f_dc.mean(axis=0), atol=0.02)


def test_an_empty_prompt_and_a_sampler_wish_are_refused() -> None:
    backend = ProceduralBackend(50_000)
    with pytest.raises(BadPrompt, match="empty"):
        generate(backend, " ")
    job = Job(GenerationKind.TASK, 1, prompt="a red cube", sampling=Sampling(structure_steps=25))
    with pytest.raises(BadSampling, match="no sampler"):
        backend.generate(job, lambda *_: None, lambda: False)


def test_it_stops_between_steps_and_tells_them() -> None:
    backend = ProceduralBackend(50_000)
    seen: list[tuple[str, int, int]] = []
    job = Job(GenerationKind.TASK, 1, prompt="a red cube")
    with pytest.raises(Cancelled):
        backend.generate(job, lambda *step: seen.append(step), lambda: True)
    assert seen == [("structure", 1, 3)]
    backend.generate(job, lambda *step: seen.append(step), lambda: False)
    assert [step for _, step, _ in seen] == [1, 1, 2, 3]


def picture(size: int = 128, *, alpha: bool) -> np.ndarray:
    """A red disc above a green bar on the right."""
    yy, xx = np.mgrid[0:size, 0:size] / size
    image = np.full((size, size, 4), 255, dtype=np.uint8)
    if alpha:
        image[..., 3] = 0
    disc = (xx - 0.35) ** 2 + (yy - 0.3) ** 2 < 0.2**2
    bar = (xx > 0.6) & (xx < 0.9) & (yy > 0.6) & (yy < 0.9)
    image[disc] = (220, 20, 20, 255)
    image[bar] = (20, 160, 30, 255)
    return image


@pytest.mark.parametrize("alpha", [True, False])
def test_a_picture_is_extruded_in_place_and_colour(alpha: bool) -> None:
    surface = image_surface(picture(alpha=alpha), 64)
    centres = (surface.coordinates + 0.5) / 64 - 0.5
    red = surface.rgb[:, 0] > 0.6
    green = ~red
    # Up is +y and right is +x: the disc was at the upper left, the bar at the lower right.
    np.testing.assert_allclose(centres[red].mean(axis=0)[:2], [-0.15, 0.2], atol=0.02)
    np.testing.assert_allclose(centres[green].mean(axis=0)[:2], [0.25, -0.25], atol=0.02)
    assert centres[:, 2].max() == pytest.approx(-centres[:, 2].min())
    assert 0.08 < centres[:, 2].max() <= 0.21


def test_a_wide_picture_keeps_its_proportions() -> None:
    wide = np.full((32, 128, 4), 255, dtype=np.uint8)
    wide[4:28, 8:120, :3] = 0
    centres = (image_surface(wide, 64).coordinates + 0.5) / 64 - 0.5
    extent = centres.max(axis=0) - centres.min(axis=0)
    assert extent[0] == pytest.approx(112 / 128, abs=0.03)
    assert extent[1] == pytest.approx(24 / 128, abs=0.03)


@pytest.mark.parametrize("value", [255, 250])
def test_a_picture_of_nothing_is_refused(value: int) -> None:
    blank = np.full((64, 64, 4), 255, dtype=np.uint8)
    blank[..., :3] = value
    with pytest.raises(BadImage, match="background"):
        image_surface(blank, 64)


def test_a_picture_makes_a_healthy_asset() -> None:
    image = np.asarray(Image.fromarray(picture(alpha=True)).convert("RGBA"))
    backend = ProceduralBackend(300_000)
    job = Job(GenerationKind.TASK, 5, image=image)
    splats = splats_of(backend.generate(job, lambda *_: None, lambda: False))
    assert measure(splats).findings == ()
    assert statistics(splats).transparent_share < 0.01
    other = dataclasses.replace(job, image=image[:, ::-1].copy())
    mirrored = splats_of(backend.generate(other, lambda *_: None, lambda: False))
    assert not np.array_equal(splats.positions[:32], mirrored.positions[:32])


def test_identity_names_what_decides_the_bytes() -> None:
    assert ProceduralBackend(50_000).identity != ProceduralBackend(60_000).identity
    assert ProceduralBackend(50_000).identity == ProceduralBackend(50_000).identity
