"""The engine on its small checkpoint before the local validators' scorer, and its canary before the book."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the engine needs the 'torch' extra")

from sn17_contract.metrics import GenerationKind  # noqa: E402
from sn17_devnet.scorer import score_text  # noqa: E402
from sn17_splats import Splats, encode_spz, write_ply  # noqa: E402
from sn17_trellis.backend import Job, Sampling  # noqa: E402
from sn17_trellis.canary import CanaryBook, CanaryVerdict  # noqa: E402
from sn17_trellis.quality import measure  # noqa: E402
from sn17_trellis.torch_backend import TorchBackend, TorchConfig  # noqa: E402

GATE = 0.6
QUICK = Sampling(structure_steps=12, latent_steps=12)
NEVER_TRAINED_ON = (
    "a small orange wedge on a blue block",
    "two blue pyramids on a pink block",
    "a large green capsule on an orange block",
)
OTHER = ("a small red wedge on a blue block", "two blue spheres on a pink block", "a large green torus")


@pytest.fixture(scope="module")
def backend() -> TorchBackend:
    made = TorchBackend(TorchConfig(device="cpu", threads=2))
    made.load()
    return made


def make(backend: TorchBackend, prompt: str, seed: int = 17) -> Splats:
    job = Job(GenerationKind.TASK, seed, prompt=prompt, sampling=QUICK)
    made = backend.generate(job, lambda *_: None, lambda: False).asset
    assert isinstance(made, Splats)
    return made


@pytest.mark.timeout(300)
def test_what_the_engine_makes_is_accepted_for_its_prompt_and_no_other(backend: TorchBackend) -> None:
    for prompt, other in zip(NEVER_TRAINED_ON, OTHER, strict=True):
        asset = base64.b64encode(encode_spz(make(backend, prompt))).decode()
        assert score_text(asset, prompt).value >= GATE, prompt
        assert score_text(asset, other).value < GATE, other


def verdict(backend: TorchBackend, book: CanaryBook) -> CanaryVerdict:
    splats = make(backend, NEVER_TRAINED_ON[0])
    return book.judge(backend.identity, measure(splats), hashlib.sha256(write_ply(splats)).hexdigest())


@contextmanager
def off_by(tensor: torch.Tensor, change: float) -> Iterator[None]:
    kept = tensor.clone()
    with torch.no_grad():
        tensor.add_(change)
        yield
        tensor.copy_(kept)


@pytest.mark.timeout(300)
def test_the_canary_knows_its_model_and_notices_a_changed_one(backend: TorchBackend, tmp_path: Path) -> None:
    book = CanaryBook(tmp_path)
    assert verdict(backend, book).first
    again = verdict(backend, book)
    assert again.passed
    assert again.same_bytes
    decoder = backend._pipelines["text"].gaussian_decoder.out_layer.bias
    with off_by(decoder, 3.0):
        changed = verdict(backend, book)
    assert not changed.passed
    assert not changed.same_bytes
    assert verdict(backend, book).same_bytes
