from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sn17_scene import (
    BASES,
    COLOURS,
    COUNTS,
    SHAPES,
    SIZES,
    Base,
    PlacedObject,
    PromptError,
    Scene,
    SceneObject,
    describe,
    imagine,
    layout,
    lit,
    parse,
    random_prompt,
)

scenes = st.builds(
    Scene,
    st.builds(
        SceneObject,
        st.sampled_from(sorted(SHAPES)),
        st.sampled_from(sorted(COLOURS)),
        st.sampled_from(sorted(SIZES)),
        st.sampled_from(sorted(COUNTS.values())),
    ),
    st.none() | st.builds(Base, st.sampled_from(BASES), st.sampled_from(sorted(COLOURS))),
)


@given(scenes)
def test_describe_and_parse_are_inverse(scene: Scene) -> None:
    assert parse(describe(scene)) == scene


@given(scenes, st.booleans())
def test_wording_is_forgiving(scene: Scene, dot: bool) -> None:
    assert parse("  " + describe(scene).upper().replace(" ", " \t ") + ("." if dot else "")) == scene


@pytest.mark.parametrize(
    ("prompt", "scene"),
    [
        ("a red torus", Scene(SceneObject("torus", "red"))),
        (
            "three blue cubes on a wooden table",
            Scene(SceneObject("cube", "blue", "", 3), Base("table", "brown")),
        ),
        ("an orange ball", Scene(SceneObject("sphere", "orange"))),
        (
            "2 tiny violet rings on a plate",
            Scene(SceneObject("torus", "purple", "small", 2), Base("plate", "brown")),
        ),
        ("the medium black box", Scene(SceneObject("cube", "black"))),
    ],
)
def test_everyday_wordings(prompt: str, scene: Scene) -> None:
    assert parse(prompt) == scene


def test_canonical_wording_uses_the_right_article() -> None:
    assert describe(Scene(SceneObject("star", "orange"), Base("block", "orange"))) == (
        "an orange star on an orange block"
    )


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        ("   . ", "empty"),
        ("a dragon", "expected a colour"),
        ("a red dragon", "expected a shape"),
        ("a red cubes", "expected a shape"),
        ("two red cube", "expected a shape"),
        ("red cube", "expected a count"),
        ("a cube", "expected a colour"),
        ("a red cube in the sea", "after the shape"),
        ("a red cube on", "expected an article"),
        ("a red cube on a blue sofa", "expected a base"),
        ("a red cube on a blue table today", "after the base"),
        ("a red cube on a table on a table", "after the base"),
        ("a " * 600, "at most 1024"),
    ],
)
def test_other_prompts_are_refused_with_a_reason(prompt: str, says: str) -> None:
    with pytest.raises(PromptError, match=says):
        parse(prompt)


@given(st.text(max_size=1100))
def test_any_text_gives_a_scene_or_a_prompt_error(text: str) -> None:
    try:
        scene = parse(text)
    except PromptError as error:
        reason = str(error)
    else:
        reason = "" if parse(describe(scene)) == scene else "not the same scene" * 100
    assert len(reason) < 600
    if text.split():
        assert imagine(text) == imagine(f" {text}")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("a wooden treasure ring", "a brown torus"),
        ("huge violet balls", "two large purple spheres"),
        ("a red cube in the sea", "a red cube"),
        ("a red cube and three cones on a sofa or on a blue table today", "three red cubes on a blue table"),
        ("Green cubes, on a plate.", "two green cubes on a brown plate"),
    ],
)
def test_known_words_of_a_free_text_are_used(text: str, canonical: str) -> None:
    assert describe(imagine(text)) == canonical


def test_free_texts_show_every_shape_in_every_colour() -> None:
    seen = [imagine(f"a thing of kind {number}").objects for number in range(400)]
    assert {item.shape for item in seen} == set(SHAPES)
    assert {item.colour for item in seen} == set(COLOURS)


@given(st.integers(0, 2**32))
def test_random_prompts_are_canonical_and_seeded(seed: int) -> None:
    prompt = random_prompt(np.random.default_rng(seed))
    assert describe(parse(prompt)) == prompt
    assert prompt == random_prompt(np.random.default_rng(seed))


def test_random_prompts_reach_every_word() -> None:
    rng = np.random.default_rng(0)
    seen = {word for _ in range(2000) for word in random_prompt(rng).split()}
    plurals = {shape.plural for shape in SHAPES.values()}
    assert seen == {*SHAPES, *plurals, *COLOURS, *COUNTS, *BASES, "small", "large", "on", "an"}


@given(scenes)
def test_everything_lies_in_the_unit_cube_and_apart(scene: Scene) -> None:
    placed = layout(scene)
    objects, base = placed[: scene.objects.count], placed[scene.objects.count :]
    for part in placed:
        low, high = _box(part)
        assert (low >= -0.5).all()
        assert (high <= 0.5).all()
        assert (low < high).all()
    for left, right in itertools.pairwise(objects):
        assert _box(left)[1][0] < _box(right)[0][0]
    if base:
        top = max(_box(part)[1][1] for part in base)
        assert all(_box(part)[0][1] == pytest.approx(top) for part in objects)
    else:
        assert all(part.centre[1] == 0 for part in objects)


@given(scenes)
def test_larger_words_make_larger_objects(scene: Scene) -> None:
    def reach(size: str) -> float:
        sized = SceneObject(scene.objects.shape, scene.objects.colour, size, scene.objects.count)
        return max(layout(Scene(sized, scene.base))[0].half_size)

    assert reach("small") < reach("") < reach("large")


@given(st.sampled_from(sorted(COLOURS)), st.integers(0, 2**32))
def test_light_tells_a_mirrored_surface_apart(colour: str, seed: int) -> None:
    local = np.random.default_rng(seed).uniform(-1, 1, (256, 3)).astype(np.float32)
    rgb = lit(COLOURS[colour], local)
    mirrored = lit(COLOURS[colour], local * np.asarray([-1, 1, 1], dtype=np.float32))
    assert rgb.dtype == np.float32
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    assert np.abs(rgb - mirrored).mean() > 0.05


@pytest.mark.parametrize(
    "bad", [("blob", "red", "", 1), ("cube", "beige", "", 1), ("cube", "red", "vast", 1)]
)
def test_values_outside_the_vocabulary_cannot_be_built(bad: tuple[str, str, str, int]) -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        SceneObject(*bad)
    with pytest.raises(ValueError, match="count"):
        SceneObject("cube", "red", "", 4)
    with pytest.raises(ValueError, match="vocabulary"):
        Base("sofa", "red")


def _box(part: PlacedObject) -> tuple[np.ndarray, np.ndarray]:
    centre, half = np.asarray(part.centre), np.asarray(part.half_size)
    return centre - half, centre + half
