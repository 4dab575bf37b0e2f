from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the engine needs the 'torch' extra")

from sn17_trellis.engine.checkpoint import ROLES, Repositories, build, fill, locate, read_pipeline  # noqa: E402

ROOT = Path(__file__).parents[4]
OWN = Path(__file__).parent / "golden"


def golden_sets() -> list[Path]:
    """Every golden set: those of the shared folder, where it lies, and our own small ones."""
    shared = Path(os.environ.get("SN17_GOLDEN", ROOT.parent / "shared" / "golden" / "trellis"))
    return [path.parent for folder in (shared, OWN) for path in sorted(folder.glob("*/golden.npz"))]


@pytest.fixture(scope="module", autouse=True)
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with torch.no_grad():
        yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Golden:
    """A golden set with its networks in float32."""

    directory: Path
    arrays: dict[str, np.ndarray[Any, Any]]
    meta: dict[str, Any]
    flow: Any
    decoder: Any
    latent_flow: Any
    gaussian_decoder: Any
    pipeline: Any

    def tensor(self, name: str) -> Any:
        return torch.from_numpy(self.arrays[name])

    def check(self, name: str, value: Any, expected: Any = None, limits: Any = None) -> None:
        """Compare with the array of that name, by the set's own limits."""
        expected = self.arrays[name] if expected is None else expected
        got = np.asarray(value.numpy() if isinstance(value, torch.Tensor) else value)
        assert got.size == np.size(expected), name
        got = got.reshape(np.shape(expected))
        rel_limit, max_limit = limits or self.meta["tolerance"][name]
        if rel_limit == 0:
            np.testing.assert_array_equal(got, expected, err_msg=name)
            return
        difference = got.astype(np.float64) - expected
        rms = np.sqrt(np.mean(np.square(expected, dtype=np.float64)))
        assert np.sqrt(np.mean(difference**2)) <= rel_limit * rms, name
        assert np.abs(difference).max() <= max_limit * rms, name


@pytest.fixture(
    scope="module", params=golden_sets() or [None], ids=lambda path: path.name if path else "none"
)
def golden(request: pytest.FixtureRequest) -> Golden:
    if request.param is None:
        pytest.skip("no golden arrays here: set SN17_GOLDEN to their folder")
    directory: Path = request.param
    pipeline = read_pipeline(directory)
    networks = []
    for role in ROLES:
        path = locate(directory, role, pipeline.args.models[role], Repositories())
        networks.append(fill(build(path), path, torch.device("cpu"), torch.float32))
    with np.load(directory / "golden.npz") as stored:
        arrays = dict(stored)
    meta = json.loads((directory / "golden.json").read_text())
    return Golden(directory, arrays, meta, *networks, pipeline)
