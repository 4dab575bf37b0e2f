"""Starting, pacing and running out of memory: what the engine does around its networks."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the engine needs the 'torch' extra")
pytest.importorskip("transformers", reason="the engine needs the 'torch' extra")

from sn17_contract.metrics import GenerationKind  # noqa: E402
from sn17_trellis.backend import Cancelled, GpuOutOfMemory, Job, Sampling, StructureTooLarge  # noqa: E402
from sn17_trellis.engine.config import SamplerParams  # noqa: E402
from sn17_trellis.engine.device import is_out_of_memory  # noqa: E402
from sn17_trellis.engine.sampler import Pace, sample  # noqa: E402
from sn17_trellis.engine.voxels import shell  # noqa: E402
from sn17_trellis.torch_backend import TorchBackend, TorchConfig  # noqa: E402

FEW = Sampling(structure_steps=3, latent_steps=2)
JOB = Job(GenerationKind.TASK, 5, prompt="a red cube", sampling=FEW)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory, write_checkpoint: Any) -> TorchBackend:
    directory = tmp_path_factory.mktemp("checkpoint") / "text"
    write_checkpoint(directory, "Text")
    made = TorchBackend(TorchConfig(directory, device="cpu"))
    made.load()
    return made


class Still:
    """A velocity of zero that notes when it is asked."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def branches(self, x: Any, step: int, count: int, deep: Any = None) -> Any:
        self.seen.append(("run", step))
        return (torch.zeros_like(x),) * count


def test_a_step_is_reported_once_it_is_done() -> None:
    seen: list[Any] = []
    sample(Still(seen), torch.zeros(1), SamplerParams(steps=3), lambda *done: seen.append(done))
    assert seen == [(0, 3), ("run", 0), (1, 3), ("run", 1), (2, 3), ("run", 2), (3, 3)]


def test_who_leaves_after_a_step_stops_the_next() -> None:
    seen: list[Any] = []

    def leave(done: int, _steps: int) -> None:
        if done == 2:
            raise KeyError

    with pytest.raises(KeyError):
        sample(Still(seen), torch.zeros(1), SamplerParams(steps=9), leave)
    assert seen == [("run", 0), ("run", 1)]


class Device:
    """Works on one step after the other, and only while somebody waits for it."""

    def __init__(self) -> None:
        self.given = self.done = 0

    def record(self) -> Until:
        self.given += 1
        return Until(self, self.given)


class Until:
    def __init__(self, device: Device, step: int) -> None:
        self._device, self._step = device, step

    def synchronize(self) -> None:
        self._device.done = max(self._device.done, self._step)


@pytest.mark.parametrize("ahead", [0, 1, 2, 5, 9])
def test_a_device_is_never_given_more_steps_than_allowed(ahead: int) -> None:
    """With none allowed it has nothing left to do at a report: whoever takes it there has it alone."""
    device, reported, pending = Device(), list[int](), list[int]()
    device.given = 1  # what was prepared

    def on_step(done: int, steps: int) -> None:
        assert steps == 7
        assert done == 0 or done < device.done
        reported.append(done)
        pending.append(device.given - device.done)

    pace = Pace(7, on_step, device.record, ahead)
    for _ in range(7):
        pace.given()
    pace.finish()
    assert reported == list(range(8))
    assert max(pending) == min(ahead, 6)


def test_every_stage_reports_its_start_and_its_end(backend: TorchBackend) -> None:
    seen: list[Any] = []
    backend.generate(JOB, lambda *step: seen.append(step), lambda: False)
    assert seen == [
        *(("condition", done, 1) for done in range(2)),
        *(("structure", done, 3) for done in range(4)),
        *(("structure_decode", done, 1) for done in range(2)),
        *(("latents", done, 2) for done in range(3)),
        *(("gaussians", done, 1) for done in range(2)),
        *(("transfer", done, 1) for done in range(2)),
    ]


def test_warming_up_can_be_given_up_and_needs_no_prompt(backend: TorchBackend) -> None:
    seen: list[Any] = []
    backend.warmup(lambda *step: seen.append(step), lambda: False)
    assert seen[0] == ("warmup", 0, 1)
    assert seen[-1] == ("warmup", 1, 1)
    seen.clear()
    backend.warmup(lambda *step: seen.append(step), lambda: True)
    assert seen == []


@pytest.mark.parametrize("count", [1, 64, 700, 10_000])
def test_a_shell_is_a_set_of_voxels_as_the_decoder_gives_them(count: int) -> None:
    voxels = shell(count, 16, torch.device("cpu"))
    assert len(voxels) == min(count, 16**3)
    coords = voxels.coords
    assert coords.dtype == torch.int32
    assert int(coords.min()) >= 0
    assert int(coords[:, 1:].max()) < 16
    torch.testing.assert_close(coords, torch.unique(coords, dim=0))


def test_a_structure_above_the_limit_has_an_error_of_its_own(backend: TorchBackend) -> None:
    pipeline = backend._pipelines["text"]
    before, pipeline.max_voxels = pipeline.max_voxels, 500
    try:
        with pytest.raises(StructureTooLarge, match="512 voxels are occupied, the limit is 500") as caught:
            backend.generate(JOB, lambda *_: None, lambda: False)
    finally:
        pipeline.max_voxels = before
    assert caught.value.code == "structure_too_large"


MESSAGES = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
)


@pytest.mark.parametrize("message", MESSAGES)
def test_no_room_on_the_device_ends_the_job_only(backend: TorchBackend, message: str) -> None:
    wanted = backend.generate(JOB, lambda *_: None, lambda: False).asset

    def full(_module: Any, _inputs: Any) -> None:
        raise RuntimeError(message)

    flow = backend._pipelines["text"].latent_flow
    handle = flow.register_forward_pre_hook(full)
    with pytest.raises(GpuOutOfMemory, match="ran out of memory"):
        backend.generate(JOB, lambda *_: None, lambda: False)
    backend.warmup(lambda *_: None, lambda: False)
    handle.remove()
    again = backend.generate(JOB, lambda *_: None, lambda: False).asset
    torch.testing.assert_close(torch.tensor(again.positions), torch.tensor(wanted.positions))


def test_a_device_too_full_to_load_kernels_leaves_that_to_the_warm_up(
    backend: TorchBackend, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_module: Any, _inputs: Any) -> None:
        raise RuntimeError(MESSAGES[0])

    handle = backend._pipelines["text"].latent_flow.register_forward_pre_hook(full)
    backend._load_kernels()
    handle.remove()
    assert "kernels are loaded at the warm-up only" in caplog.text
    backend.warmup(lambda *_: None, lambda: False)
    assert backend.generate(JOB, lambda *_: None, lambda: False).gaussians > 0


@pytest.mark.parametrize(
    "message", ["CUDA error: an illegal memory access was encountered", "shape mismatch"]
)
def test_other_errors_are_not_taken_for_it(message: str) -> None:
    assert not is_out_of_memory(RuntimeError(message))


def test_a_caller_who_left_before_the_start_costs_nothing(backend: TorchBackend) -> None:
    seen: list[Any] = []
    with pytest.raises(Cancelled):
        backend.generate(JOB, lambda *step: seen.append(step), lambda: True)
    assert seen == []
