"""The fast path against the plain one, on the golden networks."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from sn17_trellis.engine.config import SamplerParams  # noqa: E402
from sn17_trellis.engine.fast import FastRunner  # noqa: E402
from sn17_trellis.engine.graphs import Replays  # noqa: E402
from sn17_trellis.engine.runners import EagerRunner  # noqa: E402
from sn17_trellis.engine.sampler import sample  # noqa: E402
from sn17_trellis.engine.voxels import Voxels  # noqa: E402


def relative(got: Any, expected: Any) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("hopper", [True, False])
def test_fast_equals_plain(golden: Any, hopper: bool) -> None:
    fast, plain = FastRunner(graphs=False, hopper=hopper), EagerRunner()
    cond, uncond = golden.tensor("cond"), golden.tensor("neg_cond")
    params = SamplerParams(**golden.meta["sampler"]["ss"])
    noise = golden.tensor("ss_noise")
    out = [
        sample(runner.structure(golden.flow, params, cond, uncond), noise, params) for runner in (fast, plain)
    ]
    assert relative(*out) < 2e-5
    params = SamplerParams(**golden.meta["sampler"]["slat"])
    for name in ("coords", "edge0_coords"):
        voxels = Voxels(golden.tensor(name), golden.meta["grid"])
        noise = torch.randn(len(voxels), 8, generator=torch.Generator().manual_seed(5))
        out = [
            sample(runner.latents(golden.latent_flow, params, cond, uncond, voxels), noise, params)
            for runner in (fast, plain)
        ]
        assert relative(*out) < 2e-5


def test_a_second_request_sees_its_own_condition(golden: Any) -> None:
    fast, plain = FastRunner(graphs=False), EagerRunner()
    params = SamplerParams(steps=2, cfg_strength=3.0)
    noise, cond = golden.tensor("ss_noise"), golden.tensor("cond")
    # Channels, not tokens: attention does not see in which order tokens stand.
    for condition in (cond, cond.flip(-1)):
        out = [
            sample(runner.structure(golden.flow, params, condition, 0 * cond), noise, params)
            for runner in (fast, plain)
        ]
        assert relative(*out) < 2e-5


def working(make: Any) -> Any:
    """Work that may be cut before its result is made."""

    def work() -> Any:
        yield
        return make()

    return work


def result(work: Any) -> Any:
    running = work()
    while True:
        try:
            next(running)
        except StopIteration as stop:
            return stop.value


class Recorder:
    """Stands for the device: what is recorded runs, and runs again at each replay, into the same memory."""

    def __init__(self) -> None:
        self.recorded = 0

    def record(self, work: Any) -> tuple[Any, Any]:
        self.recorded += 1
        out = result(work)

        class Graph:
            def replay(self) -> None:
                out.copy_(result(work))

        return Graph(), out


def test_work_is_recorded_when_it_is_wanted_a_second_time() -> None:
    device = Recorder()
    replays, x = Replays(device), torch.zeros(2)
    for turn in range(4):
        x.fill_(turn)
        assert replays.run(1, working(lambda: x + 1)).tolist() == [turn + 1] * 2
        assert device.recorded == min(turn, 1)
    assert replays.run(2, working(lambda: x + 2)).tolist() == [5.0] * 2
    assert device.recorded == 1


def test_what_ran_before_is_recorded_at_once() -> None:
    device, seen, x = Recorder(), set[int](), torch.zeros(2)
    Replays(device, seen).run(1, working(lambda: x + 1))
    following = Replays(device, seen)
    assert following.run(1, working(lambda: x + 1)).tolist() == [1.0] * 2
    assert device.recorded == 1


def test_a_recording_that_fails_before_the_work_has_run_is_made_up_for() -> None:
    class Refuses(Recorder):
        def record(self, work: Any) -> tuple[Any, Any]:
            if not self.recorded:
                self.recorded += 1
                raise RuntimeError("a kernel cannot be loaded now")
            return super().record(work)

    device, x = Refuses(), torch.zeros(2)
    replays = Replays(device, {1})
    for turn in range(3):
        x.fill_(turn)
        assert replays.run(1, working(lambda: x + 1)).tolist() == [turn + 1] * 2
    assert device.recorded == 2
    device.recorded = 0
    replays = Replays(device)
    replays.run(1, working(lambda: x + 1))
    with pytest.raises(RuntimeError, match="cannot be loaded"):
        replays.run(1, working(lambda: x + 1))


def test_without_memory_for_graphs_work_simply_runs() -> None:
    runs: list[int] = []

    def make() -> Any:
        runs.append(1)
        return torch.zeros(1)

    replays = Replays(None)
    for _ in range(3):
        replays.run(1, working(make))
    assert len(runs) == 3
