"""`sn17-trellis compare` and the reference backend, against a stand-in for Microsoft's package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the engine needs the 'torch' extra")
pytest.importorskip("transformers", reason="the engine needs the 'torch' extra")

from sn17_splats import read_ply
from sn17_trellis.torch_backend import bundled_checkpoint

# Two engines start in processes of their own, which takes a machine with other work minutes.
pytestmark = pytest.mark.timeout(300)

FAKE = """
import json, os
import numpy as np
from sn17_splats import Splats, write_ply

class Gaussian:
    def __init__(self, count, seed):
        self.get_xyz = np.random.default_rng(seed).uniform(-0.4, 0.4, (count, 3)).astype(np.float32)

    def save_ply(self, path):
        n = len(self.get_xyz)
        ones = np.ones((n, 1), np.float32)
        with open(path, "wb") as out:
            three = ones.repeat(3, 1)
            out.write(write_ply(Splats(self.get_xyz, -4 * three, ones * [1, 0, 0, 0], 4 * ones[:, 0], three)))

class Pipeline:
    kind = None

    @classmethod
    def from_pretrained(cls, path):
        made = cls()
        made.path = path
        return made

    def cuda(self):
        self.on_gpu = True

    def run(self, what, **given):
        assert self.on_gpu
        shown = what if isinstance(what, str) else [what.mode, *what.size]
        with open(os.environ["FAKE_CALLS"], "a") as out:
            out.write(json.dumps({"kind": self.kind, "path": self.path, "what": shown, **given}) + chr(10))
        if what == "nothing":
            raise RuntimeError("max(): Expected reduction dim to be specified for input.numel() == 0.")
        if what == "everything":
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        return {"gaussian": [Gaussian(9000, given["seed"])]}

class TrellisTextTo3DPipeline(Pipeline):
    kind = "text"

class TrellisImageTo3DPipeline(Pipeline):
    kind = "image"
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def compare(tmp_path: Path) -> Run:
    package = tmp_path / "site" / "trellis"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "pipelines.py").write_text(FAKE)

    def run(*arguments: str, installed: bool = True) -> subprocess.CompletedProcess[str]:
        few = ["--device=cpu", "--structure-steps=2", "--latent-steps=1"]
        site = str(package.parent) if installed else ""
        return subprocess.run(
            [sys.executable, "-m", "sn17_trellis", "compare", *arguments, *few],
            env={**os.environ, "PYTHONPATH": site, "FAKE_CALLS": str(tmp_path / "calls")},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    return run


def calls(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]


def test_a_prompt_both_ways(tmp_path: Path, compare: Run) -> None:
    done = compare(str(bundled_checkpoint()), "--prompt=a small red cube", f"--into={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["other"]["backend"].startswith("reference text=mini-text")
    assert figures["other"]["gaussians"] == 9000
    assert figures["drift"] > 0
    for name in ("ours", "other"):
        assert figures[name]["seconds"] > 0
        assert len(read_ply((tmp_path / "out" / f"{name}.ply").read_bytes())) == figures[name]["gaussians"]
    made = calls(tmp_path)
    assert [call["kind"] for call in made] == ["text", "text"]
    assert made[0]["what"] == "a small red cube"
    assert made[0]["seed"] == 17
    assert made[0]["formats"] == ["gaussian"]
    assert made[0]["sparse_structure_sampler_params"] == {"steps": 2, "cfg_strength": 7.5}
    assert made[0]["slat_sampler_params"] == {"steps": 1, "cfg_strength": 3.5}


def test_a_picture_both_ways(tmp_path: Path, compare: Run, write_checkpoint: Any) -> None:
    write_checkpoint(tmp_path / "image", "Image")
    pixels = np.zeros((64, 48, 4), np.uint8)
    pixels[16:48, 16:32] = (200, 30, 30, 255)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "picture.png")
    done = compare(str(tmp_path / "image"), f"--image={tmp_path / 'picture.png'}", "--preset=fast")
    assert done.returncode == 0, done.stderr
    (call, _) = calls(tmp_path)
    assert (call["kind"], call["what"]) == ("image", ["RGBA", 48, 64])
    assert json.loads(done.stdout)["ours"]["gaussians"] == 512 * 32


@pytest.mark.parametrize(("prompt", "said"), [("nothing", "no voxel"), ("everything", "out of memory")])
def test_what_the_reference_fails_with_is_said(
    tmp_path: Path, compare: Run, write_checkpoint: Any, prompt: str, said: str
) -> None:
    write_checkpoint(tmp_path / "text", "Text")
    done = compare(str(tmp_path / "text"), f"--prompt={prompt}")
    assert done.returncode == 1
    assert "other (reference)" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_package_it_says_where_it_is(tmp_path: Path, compare: Run, write_checkpoint: Any) -> None:
    write_checkpoint(tmp_path / "text", "Text")
    done = compare(str(tmp_path / "text"), "--prompt=a cube", installed=False)
    assert done.returncode == 1
    assert "github.com/microsoft/TRELLIS" in done.stderr


def test_pictures_come_from_whoever_offers_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write_checkpoint: Any
) -> None:
    from sn17_trellis.commands.compare import main

    write_checkpoint(tmp_path / "text", "Text")
    seen: list[int] = []

    def draw(first: Any, second: Any) -> tuple[dict[str, float | None], bytes]:
        seen.extend((len(first), len(second)))
        return {"ssim": 0.5}, b"a picture"

    arguments = [str(tmp_path / "text"), "--prompt=a cube", "--against=cpu", "--device=cpu"]
    code = main(
        [*arguments, "--structure-steps=1", "--latent-steps=1", f"--into={tmp_path / 'out'}"], draw=draw
    )
    assert code == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["likeness"] == {"ssim": 0.5}
    assert figures["drift"] == 0
    assert seen == [512 * 32] * 2
    assert (tmp_path / "out" / "side-by-side.png").read_bytes() == b"a picture"
