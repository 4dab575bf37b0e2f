from __future__ import annotations

import io
import math
from importlib.metadata import entry_points

import numpy as np
import pytest
from fixer_splats import shell
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sn17_fixer.compare import compare, side_by_side
from sn17_fixer.render.camera import Camera, validator_camera
from sn17_fixer.render.check import check_render
from sn17_fixer.render.metrics import psnr, ssim
from sn17_fixer.render.preview import preview_png
from sn17_fixer.render.raster_numpy import rasterise_numpy
from sn17_fixer.render.scene import Model, project, render, to_bytes, validator_model
from sn17_splats import SplatError, Splats

RASTERISERS = [rasterise_numpy]
try:
    from sn17_fixer.render.raster_numba import rasterise_numba

    RASTERISERS.append(rasterise_numba)
except ImportError:
    pass


def brute_force(model: Model, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Every gaussian at every pixel, one after the other, in double precision and in matrix form."""
    size = camera.size
    rotation, translation = camera.rotation.astype(float), camera.translation.astype(float)
    centres = rotation @ model.positions.astype(float) + translation[:, None]
    colour, light = np.zeros((size, size, 3)), np.ones((size, size))
    finished = np.zeros((size, size), bool)
    ys, xs = np.mgrid[:size, :size] + 0.5
    limit = 1.3 * size / 2 / camera.focal + 0.3 * size / 2 / camera.focal
    for i in np.argsort(centres[2], kind="stable"):
        x, y, z = centres[:, i]
        if z <= 0.01:
            continue
        xx, xy, xz, yy, yz, zz = model.covariance[:, i].astype(float)
        sigma = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        u, v = np.clip([x / z, y / z], -limit, limit)
        jacobian = camera.focal / z * np.array([[1, 0, -u], [0, 1, -v]])
        cov = jacobian @ rotation @ sigma @ rotation.T @ jacobian.T + 0.3 * np.eye(2)
        inverse = np.linalg.inv(cov)
        dx, dy = xs - (camera.focal * x / z + size / 2), ys - (camera.focal * y / z + size / 2)
        power = 0.5 * (inverse[0, 0] * dx**2 + inverse[1, 1] * dy**2) + inverse[0, 1] * dx * dy
        alpha = np.minimum(0.999, model.alphas[i] * np.exp(-power))
        alpha[(alpha < 1 / 255) | finished] = 0
        after = light * (1 - alpha)
        finished |= (after <= 1e-4) & (alpha > 0)
        alpha[finished] = 0
        colour += (light * alpha)[:, :, None] * model.colours[i]
        light *= 1 - alpha
    return colour, light


def scene(seed: int, n: int) -> Splats:
    rng = np.random.default_rng(seed)
    return Splats(
        rng.uniform(-0.5, 0.5, (n, 3)).astype(np.float32),
        rng.normal(-3, 0.8, (n, 3)).astype(np.float32),
        rng.normal(size=(n, 4)).astype(np.float32),
        rng.normal(2, 3, n).astype(np.float32),
        rng.normal(0, 1.5, (n, 3)).astype(np.float32),
    )


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 150), st.integers(0, 15), st.sampled_from([24, 37]))
def test_compositing_agrees_with_brute_force(seed: int, n: int, view: int, size: int) -> None:
    model, camera = validator_model(scene(seed, n)), validator_camera(view, size)
    colour, light = brute_force(model, camera)
    for rasterise in RASTERISERS:
        got_colour, got_light = rasterise(project(model, camera), size)
        # A pixel may flip at the thresholds (1/255, 1e-4) in single precision: few and by little.
        error = np.abs(got_colour - colour).max(axis=2)
        assert np.percentile(error, 98) < 1e-3
        assert error.max() < 0.02
        assert np.abs(got_light - light).max() < 0.006


def test_rasterisers_agree_on_a_dense_scene() -> None:
    model, camera = validator_model(shell(n=32_000)), validator_camera(3, 128)
    pictures = [rasterise(project(model, camera), 128) for rasterise in RASTERISERS]
    for colour, light in pictures[1:]:
        assert np.abs(colour - pictures[0][0]).max() < 1e-4
        assert np.abs(light - pictures[0][1]).max() < 1e-5


def dot(position: tuple[float, float, float], colour: tuple[float, float, float]) -> list[float]:
    return [*position, *((c - 0.5) / 0.28209479 for c in colour)]


def test_the_camera_sees_front_right_and_up_where_they_are() -> None:
    """Red to the right (+x), green up (+y), blue in front (+z); corners at +-0.5 hold the scale."""
    rows = np.array(
        [dot((0.4, 0, 0), (1, 0, 0)), dot((0, 0.4, 0), (0, 1, 0)), dot((0, 0, 0.4), (0, 0, 1)),
         dot((-0.5, -0.5, -0.5), (1, 1, 1)), dot((0.5, 0.5, 0.5), (1, 1, 1))]
    )  # fmt: skip
    n = len(rows)
    splats = Splats(
        rows[:, :3], np.full((n, 3), -4), np.tile([1.0, 0, 0, 0], (n, 1)), np.full(n, 9), rows[:, 3:]
    )
    picture = to_bytes(render(validator_model(splats), validator_camera(0, 128))[0]).astype(int)
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    where = {
        "red": np.argwhere((red > 150) & (green < 90) & (blue < 90)).mean(axis=0),
        "green": np.argwhere((green > 150) & (red < 90) & (blue < 90)).mean(axis=0),
        "blue": np.argwhere((blue > 150) & (red < 90) & (green < 90)).mean(axis=0),
    }
    assert where["red"][1] > 85
    assert where["green"][0] < 45
    assert 50 < where["blue"][1] < 78
    assert where["blue"][0] > 64  # nearer, seen from above: lower in the picture


def test_views_go_round_and_view_15_is_view_0() -> None:
    eyes = [-camera.rotation.T @ camera.translation for camera in map(validator_camera, range(16))]
    np.testing.assert_allclose(eyes[15], eyes[0], atol=1e-5)
    for eye in eyes:
        assert np.linalg.norm(eye) == pytest.approx(2.5, rel=1e-5)
        assert math.degrees(math.asin(eye[1] / 2.5)) == pytest.approx(15, abs=1e-3)
    for i in range(15):
        a, b = eyes[i][[0, 2]], eyes[i + 1][[0, 2]]
        assert np.degrees(np.arccos(a @ b / (a @ a))) == pytest.approx(24, abs=1e-2)


def test_the_model_is_normalised_as_the_validator_does_it() -> None:
    splats = shell()
    splats.positions[:] = splats.positions * np.float32(0.5) + np.float32([0.1, 0.4, 0])
    extent = float(np.ptp(splats.positions, axis=0).max())
    model = validator_model(splats)
    expected = (splats.positions - splats.positions.mean()) * (1.5 / extent)
    np.testing.assert_allclose(model.positions.T, expected, atol=1e-5)
    alphas = 1 / (1 + np.exp(-splats.opacity_logits))
    np.testing.assert_allclose(model.alphas, (alphas * extent / 1.5).clip(0, 1), rtol=1e-4)
    trace = model.covariance[[0, 3, 5]].sum(axis=0)
    np.testing.assert_allclose(
        trace, np.square(np.exp(splats.log_scales) * 1.5 / extent).sum(axis=1), rtol=1e-3
    )


def test_what_is_not_finite_is_not_drawn() -> None:
    splats = shell()
    clean = preview_png(splats.select(slice(5, None)), size=64)
    for i, name in enumerate(("positions", "log_scales", "rotations", "f_dc")):
        getattr(splats, name)[i] = np.nan
    splats.rotations[4] = 0
    assert preview_png(splats, size=64) == clean
    with pytest.raises(SplatError, match="no gaussian can be drawn"):
        validator_model(splats.replace(positions=np.full_like(splats.positions, np.inf)))


@pytest.mark.parametrize("value", [3e38, -3e38, 1e-40, 0.0])
def test_extreme_values_draw_something_or_nothing_but_do_not_fail(value: float) -> None:
    splats = shell()
    for name in ("positions", "log_scales", "rotations", "f_dc", "opacity_logits"):
        array = getattr(splats, name).copy()
        array[::7] = value
        picture, _ = render(validator_model(splats.replace(**{name: array})), validator_camera(1, 48))
        to_bytes(picture)


def test_preview_is_the_grid_that_judges_see() -> None:
    picture = Image.open(io.BytesIO(preview_png(shell())))
    assert (picture.size, picture.mode) == ((1041, 1041), "RGB")
    pixels = np.asarray(picture)
    assert not pixels[518:523].any()
    assert not pixels[:, 518:523].any()
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert (pixels[259, 259] < 255).any()


def test_the_check_tells_opaque_from_transparent() -> None:
    solid = shell(n=64_000)
    seen = check_render(solid)
    assert seen.alpha_p10 > 0.9
    ghost = check_render(solid.replace(opacity_logits=solid.opacity_logits - np.float32(9)))
    assert ghost.alpha_p10 < 0.4
    assert ghost.coverage < seen.coverage


def test_metrics_on_known_pictures() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 200, (40, 30, 3), dtype=np.uint8)
    assert psnr(picture, picture) == math.inf
    assert ssim(picture, picture) == pytest.approx(1.0)
    assert psnr(picture, picture + np.uint8(5)) == pytest.approx(20 * math.log10(255 / 5))
    flat, other = np.full((20, 20, 3), 100, np.uint8), np.full((20, 20, 3), 120, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(flat, other) == pytest.approx((2 * 100 * 120 + c1) / (100**2 + 120**2 + c1))
    noise = rng.integers(0, 255, (40, 30, 3), dtype=np.uint8)
    assert ssim(picture, noise) < 0.1


def test_compare_counts_rows_and_measures_views() -> None:
    splats = shell()
    same = compare(splats, splats, size=64)
    assert (same.rows_changed, same.psnr, same.ssim) == (0, math.inf, pytest.approx(1.0))
    other = splats.replace(opacity_logits=splats.opacity_logits - np.float32(4))
    changed = compare(splats, other, size=64)
    assert changed.rows_changed == len(splats)
    assert 5 < changed.psnr < 40
    assert len(changed.views) == 4
    assert compare(splats, splats.select(slice(0, 9000)), size=64).rows_changed is None


def test_both_assets_side_by_side_are_offered_to_other_commands() -> None:
    splats = shell()
    (point,) = entry_points(group="sn17.side_by_side")
    assert point.load() is side_by_side
    figures, png = side_by_side(splats, splats, size=64)
    assert figures == {"psnr": None, "ssim": pytest.approx(1.0)}
    picture = np.asarray(Image.open(io.BytesIO(png)))
    one = 2 * 64 + 5
    assert picture.shape == (one, 2 * one, 3)
    np.testing.assert_array_equal(picture[:, :one], picture[:, one:])
