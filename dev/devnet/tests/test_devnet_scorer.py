"""The scorer's controls: the true splat passes, every other one does not. More of them with
SN17_LONG_TESTS=1.
"""

import base64
import io

import numpy as np
import pytest
import splat_maker
from PIL import Image
from sn17_devnet import preprocess
from sn17_devnet.judging import judge, judge_image, judge_text
from sn17_devnet.picture import PictureError, read_picture, render_front
from sn17_devnet.scorer import score_image, score_text
from sn17_devnet.tasks import SceneTask, TaskSource
from sn17_protocol import ImageTask, TextTask
from sn17_scene import PromptError, parse
from sn17_splats import write_ply

LIMIT = 60_000
GATE = 0.6
SH_C0 = splat_maker.SH_C0


def mirrored(splats, rng):
    return splats.replace(positions=splats.positions * np.array([-1, 1, 1], dtype=np.float32))


def recoloured(splats, rng):
    """Every colour to its complement."""
    return splats.replace(f_dc=-splats.f_dc)


def noise(splats, rng):
    n = len(splats)
    return splats.replace(
        positions=rng.uniform(-0.5, 0.5, (n, 3)).astype(np.float32),
        f_dc=rng.uniform(-1.7, 1.7, (n, 3)).astype(np.float32),
    )


def scattered(splats, rng):
    """The right colours in the wrong places."""
    return splats.replace(positions=rng.uniform(-0.5, 0.5, (len(splats), 3)).astype(np.float32))


def turned(splats, rng):
    """A quarter turn about the vertical axis, seen from the side."""
    x, y, z = splats.positions.T
    return splats.replace(positions=np.stack([z, y, -x], axis=-1))


def transparent(splats, rng):
    return splats.replace(opacity_logits=np.full(len(splats), -4.0, dtype=np.float32))


def thrown(splats, rng):
    """One stray gaussian far out: the whole model shrinks."""
    positions = np.array(splats.positions)
    positions[0] = (2.0, 0.0, 0.0)
    return splats.replace(positions=positions)


WRONG = [mirrored, recoloured, noise, scattered, transparent, thrown]


@pytest.fixture(scope="module", params=[24, pytest.param(200, marks=pytest.mark.slow)])
def scenes(request):
    """Prompts as validators hand them out, each with its splat."""
    source = TaskSource((2026, 1), 0.0)
    rng = np.random.default_rng(1)
    made = []
    for _ in range(request.param):
        prompt = source().scene
        made.append((prompt, splat_maker.surface_splats(prompt, rng, limit=LIMIT)))
    return made


def text(prompt, splats):
    return score_text(splat_maker.results(splats), prompt).value


def image(prompt, splats):
    return score_image(splat_maker.results(splats), render_front(prompt)).value


BOTH = pytest.mark.parametrize("scorer", [text, image])


def share_over_gate(values):
    return float(np.mean(np.array(values) >= GATE))


@BOTH
def test_the_true_splat_is_accepted(scenes, scorer):
    assert share_over_gate([scorer(prompt, splats) for prompt, splats in scenes]) >= 0.95


@BOTH
@pytest.mark.parametrize("change", WRONG)
def test_a_spoilt_splat_is_rejected(scenes, scorer, change):
    rng = np.random.default_rng(2)
    assert share_over_gate([scorer(prompt, change(splats, rng)) for prompt, splats in scenes]) <= 0.05


@BOTH
def test_the_splat_of_another_prompt_is_rejected(scenes, scorer):
    others = [splats for _, splats in scenes[1:] + scenes[:1]]
    values = [scorer(prompt, other) for (prompt, _), other in zip(scenes, others, strict=True)]
    assert share_over_gate(values) <= 0.05


def test_a_turned_splat_is_rejected_where_all_sides_count(scenes):
    rng = np.random.default_rng(2)
    assert share_over_gate([text(prompt, turned(splats, rng)) for prompt, splats in scenes]) <= 0.05


@pytest.mark.parametrize(
    ("prompt", "near_miss"),
    [
        ("a red cube", "a red sphere"),
        ("a red cube", "an orange cube"),
        ("a red cube", "two red cubes"),
        ("a small red cube on a green table", "a small blue cube on a green table"),
        ("a small red cube on a green table", "a large red cube on a green table"),
        ("a small red cube on a green table", "a small red cube on a green block"),
        ("a small red cube on a green table", "a small red cube on a brown table"),
        ("three yellow stars", "three yellow crosses"),
    ],
)
def test_one_wrong_word_is_enough(prompt, near_miss):
    splats = splat_maker.surface_splats(near_miss, np.random.default_rng(3), limit=LIMIT)
    assert text(near_miss, splats) >= GATE
    assert text(prompt, splats) < GATE


@pytest.mark.parametrize("limit", [8_000, 20_000, 60_000, None])
def test_fewer_gaussians_that_still_cover_are_accepted(limit):
    prompt = "a purple capsule on a yellow block"
    splats = splat_maker.surface_splats(prompt, np.random.default_rng(4), limit=limit)
    assert text(prompt, splats) >= GATE


def test_strictness_makes_it_harder():
    prompt = "a red cube"
    data = splat_maker.results(splat_maker.surface_splats(prompt, np.random.default_rng(5)))
    assert score_text(data, prompt, strictness=8).value < score_text(data, prompt).value


def test_a_plain_ply_counts_under_compression_0_only():
    prompt = "a red cube"
    splats = splat_maker.surface_splats(prompt, np.random.default_rng(5))
    ply = base64.b64encode(write_ply(splats)).decode()
    assert score_text(ply, prompt, compression=0).value >= GATE
    assert score_text(ply, prompt, compression=2).value == 0.0


@pytest.mark.parametrize(
    "data", ["", "A", "AAAA", "!!!!", "ü", "A" * 100_000, base64.b64encode(bytes(64)).decode()]
)
@pytest.mark.parametrize(
    "scorer", [lambda d: score_text(d, "a red cube"), lambda d: score_image(d, render_front("a red cube"))]
)
def test_junk_scores_nothing(scorer, data):
    score = scorer(data)
    assert score.value == 0.0
    assert score.reason


# --- intake --------------------------------------------------------------------------------------------


@pytest.fixture
def cube():
    return splat_maker.surface_splats("a red cube", np.random.default_rng(6), limit=9_000)


def refused(splats):
    with pytest.raises(preprocess.IntakeError) as caught:
        preprocess.check(splats)
    return str(caught.value)


def test_the_checks_of_the_real_service(cube):
    n = len(cube)
    preprocess.check(cube)
    assert "7000" in refused(cube.select(np.arange(6_999)))
    logits = np.where(np.arange(n) < 0.81 * n, -8.0, 4.0).astype(np.float32)
    assert "transparent" in refused(cube.replace(opacity_logits=logits))
    same = np.tile(np.array([1, 0, 0, 0], dtype=np.float32), (n, 1))
    assert "identity" in refused(cube.replace(rotations=same))
    corner = np.array(cube.positions)
    corner[2] = 1.0
    assert "(1, 1, 1)" in refused(cube.replace(positions=corner))
    corner = np.array(cube.positions)
    corner[3] = 1.0
    preprocess.check(cube.replace(positions=corner))


def test_the_normalisation_of_the_real_service(cube):
    moved = cube.replace(positions=(cube.positions * 0.5 + np.array([0, 0.3, 0])).astype(np.float32))
    model = preprocess.normalise(moved)
    extent = model.points.max(axis=0) - model.points.min(axis=0)
    assert extent.max() == pytest.approx(1.5, rel=1e-5)
    assert float(model.points.mean()) == pytest.approx(0.0, abs=1e-4)
    # One scalar is taken from all three axes: what is off centre in y is drawn off centre in x and z, too.
    means = model.points.mean(axis=0)
    assert means[1] > 0.5
    assert means[0] == pytest.approx(-means[1] / 2, abs=0.05)
    edge = float((moved.positions.max(axis=0) - moved.positions.min(axis=0)).max())
    expected = np.clip(1 / (1 + np.exp(-moved.opacity_logits)) * edge / 1.5, 0, 1)
    assert model.alpha == pytest.approx(expected, abs=1e-5)


def test_a_model_far_off_centre_is_out_of_the_picture():
    cube = splat_maker.surface_splats("a red cube", np.random.default_rng(6))
    assert text("a red cube", cube) >= GATE
    off = cube.replace(positions=(cube.positions + np.array([0, 1.5, 0])).astype(np.float32))
    assert text("a red cube", off) < GATE


@pytest.mark.parametrize("field", ["positions", "log_scales", "rotations", "opacity_logits", "f_dc"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_number_breaks_the_scorer(cube, field, value):
    array = np.array(getattr(cube, field))
    array[100:200] = value
    spoilt = cube.replace(**{field: array})
    ply = base64.b64encode(write_ply(spoilt)).decode()
    with np.errstate(all="raise", under="ignore"):
        assert 0.0 <= judge_text("a red cube", ply, compression=0).value <= 1.0


def test_a_point_of_no_extent_is_refused(cube):
    flat = cube.replace(positions=np.zeros_like(cube.positions))
    with pytest.raises(preprocess.IntakeError, match="extent"):
        preprocess.normalise(flat)


# --- tasks and pictures --------------------------------------------------------------------------------


def test_tasks_are_seeded_and_mixed():
    def take(seed, ratio=0.3):
        source = TaskSource(seed, ratio)
        return [source() for _ in range(200)]

    assert take((1, 2)) == take((1, 2))
    assert take((1, 2)) != take((1, 3))
    tasks = take((1, 2))
    assert len({each.task.id for each in tasks}) == 200
    assert 0.2 < np.mean([each.task.type == "image" for each in tasks]) < 0.4
    assert all(each.task.type == "text" for each in take((1, 2), 0.0))


def test_an_image_task_shows_the_scene():
    scene_task = TaskSource((1, 2), 1.0)()
    picture = base64.b64decode(scene_task.task.prompt)
    assert picture == render_front(scene_task.scene)
    assert Image.open(io.BytesIO(picture)).size == (256, 256)


def test_the_picture_has_the_scene_where_the_layout_says():
    pixels = read_picture(render_front("a large red cube on a green plate"))
    centre, floor, corner = pixels[100, 128], pixels[244, 10], pixels[10, 10]
    assert centre[0] > 0.7 > 0.3 > centre[1]
    assert floor[1] > floor[0]
    assert corner == pytest.approx([1, 1, 1])
    # The light comes from the left.
    left, right = pixels[128, 60], pixels[128, 195]
    assert left.sum() > right.sum()


@pytest.mark.parametrize("file", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_what_is_no_picture_is_said(file):
    with pytest.raises(PictureError):
        read_picture(file)


def test_a_picture_too_large_is_refused_before_it_is_decoded():
    file = io.BytesIO()
    Image.new("1", (5000, 5000)).save(file, "PNG")
    with pytest.raises(PictureError, match="too many"):
        read_picture(file.getvalue())


def test_a_white_picture_is_refused():
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(file, "PNG")
    with pytest.raises(PictureError, match="white"):
        score_image("", file.getvalue())


def test_the_judge_looks_at_the_task_it_gave():
    data = splat_maker.results(splat_maker.surface_splats("a red cube", np.random.default_rng(7)))
    told = SceneTask(TextTask(id="1", prompt="a red cube"), "a red cube")
    picture = base64.b64encode(render_front("a red cube")).decode()
    shown = SceneTask(ImageTask(type="image", id="2", prompt=picture), "a red cube")
    assert judge(told, data).score >= GATE
    assert judge(shown, data).score >= GATE
    assert judge_text("a blue cube", data).value < GATE
    assert "prompt" in judge_text("what nobody understands", data).reason
    assert "picture" in judge_image("AAAA", data).reason
    assert "picture" in judge_image("!", data).reason


def test_an_unknown_prompt_is_an_error_of_the_caller():
    with pytest.raises(PromptError):
        score_text("", "a quantum cube")
    parse("a red cube")


@pytest.mark.parametrize("strictness", [1.0, 1.6])
def test_detail_sees_flat_opacities_and_few_gaussians_and_nothing_else(strictness):
    scene = "a large purple dome on a yellow block"
    made = splat_maker.surface_splats(scene, np.random.default_rng(1))
    flat = made.replace(opacity_logits=np.full_like(made.opacity_logits, 4.0))
    few = splat_maker.surface_splats(scene, np.random.default_rng(1), limit=len(made) // 6)

    def score(splats, **options):
        return score_text(splat_maker.results(splats), scene, strictness=strictness, **options).value

    assert score(made, detail=True) == pytest.approx(score(made))
    assert score(flat) == pytest.approx(score(made), abs=0.05)
    assert score(flat, detail=True) < 0.8 * score(made)
    assert score(few, detail=True) < 0.8 * score(made)
