"""The backend as the worker drives it, on the bundled checkpoint and the CPU."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from sn17_contract.metrics import GenerationKind
from sn17_splats import write_ply
from sn17_trellis.backend import BadSampling, Cancelled, Job, Sampling
from sn17_trellis.quality import measure
from sn17_trellis.torch_backend import TorchBackend, TorchConfig

QUICK = Sampling(structure_steps=3, latent_steps=2)


@pytest.fixture(scope="module")
def backend() -> TorchBackend:
    made = TorchBackend(TorchConfig(device="cpu", threads=2))
    made.load()
    return made


def job(seed: int = 3, sampling: Sampling = QUICK) -> Job:
    return Job(GenerationKind.TASK, seed, prompt="a small red cube", sampling=sampling)


def test_same_job_same_bytes(backend: TorchBackend) -> None:
    seen: list[tuple[str, int, int]] = []
    made = [backend.generate(job(), lambda *step: seen.append(step), lambda: False).asset for _ in range(2)]
    assert write_ply(made[0]) == write_ply(made[1])  # type: ignore[arg-type]
    assert ("structure", 3, 3) in seen
    assert ("latents", 2, 2) in seen


def test_assets_are_finite_and_seeds_differ(backend: TorchBackend) -> None:
    made = [backend.generate(job(seed), lambda *_: None, lambda: False).asset for seed in (1, 2)]
    quality = measure(made[0])  # type: ignore[arg-type]
    assert quality.usable
    assert quality.finite_share == 1
    assert len(made[0]) != len(made[1]) or not np.array_equal(made[0].positions, made[1].positions)  # type: ignore[union-attr]


def test_a_caller_who_left_ends_the_job_between_steps(backend: TorchBackend) -> None:
    steps: list[int] = []

    def left() -> bool:
        return len(steps) >= 2

    with pytest.raises(Cancelled):
        backend.generate(job(), lambda _stage, step, _steps: steps.append(step), left)
    assert len(steps) == 2
    backend.generate(job(), lambda *_: None, lambda: False)


@pytest.mark.parametrize(
    "sampling", [Sampling(preset="none such"), Sampling(structure_steps=0), Sampling(latent_guidance=99)]
)
def test_wishes_out_of_bounds(backend: TorchBackend, sampling: Sampling) -> None:
    with pytest.raises(BadSampling):
        backend.generate(job(sampling=sampling), lambda *_: None, lambda: False)
