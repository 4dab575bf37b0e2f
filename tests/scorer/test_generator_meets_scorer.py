"""The procedural generator before the local validators' scorer: two readings of one grammar agree."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from sn17_contract.metrics import GenerationKind
from sn17_devnet.judging import judge
from sn17_devnet.tasks import TaskSource
from sn17_protocol import ImageTask
from sn17_splats import encode_spz
from sn17_trellis.backend import Job
from sn17_trellis.procedural import ProceduralBackend

GATE = 0.6
SAMPLES = pytest.mark.parametrize("samples", [16, pytest.param(200, marks=pytest.mark.slow)])
SIZES = pytest.mark.parametrize("max_gaussians", [60_000, 100_000, 400_000])


def generate(backend, task, seed):
    if isinstance(task, ImageTask):
        with Image.open(io.BytesIO(base64.b64decode(task.prompt))) as picture:
            job = Job(GenerationKind.TASK, seed, image=np.asarray(picture.convert("RGBA")))
    else:
        job = Job(GenerationKind.TASK, seed, prompt=task.prompt)
    splats = backend.generate(job, lambda *_: None, lambda: False).asset
    return base64.b64encode(encode_spz(splats)).decode()


def scene_tasks(image_ratio, samples):
    source = TaskSource((7, 7), image_ratio)
    return [source() for _ in range(samples)]


@SAMPLES
@SIZES
@pytest.mark.parametrize("image_ratio", [0.0, 1.0])
def test_what_the_generator_makes_is_accepted(image_ratio, max_gaussians, samples):
    backend = ProceduralBackend(max_gaussians)
    scores = [
        judge(each, generate(backend, each.task, seed)).score
        for seed, each in enumerate(scene_tasks(image_ratio, samples))
    ]
    assert np.mean(np.array(scores) >= GATE) >= 0.95, sorted(scores)[:5]


@SAMPLES
@pytest.mark.parametrize("image_ratio", [0.0, 1.0])
def test_what_it_makes_of_another_prompt_is_not(image_ratio, samples):
    backend = ProceduralBackend(60_000)
    asked = scene_tasks(image_ratio, samples)
    made = [generate(backend, each.task, seed) for seed, each in enumerate(asked[1:] + asked[:1])]
    scores = [judge(each, results).score for each, results in zip(asked, made, strict=True)]
    assert np.mean(np.array(scores) >= GATE) <= 0.05, sorted(scores)[-5:]
