"""The background extra: what is said where the package or its model is absent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the engine needs the 'torch' extra")

ABSENT = """
import sys
sys.modules["rembg"] = None
from sn17_trellis.engine.background import rembg_remover
print(rembg_remover())
"""

REFUSED = """
import sys
sys.modules["rembg"] = None
from pathlib import Path
from sn17_trellis.backend import ModelMissing
from sn17_trellis.torch_backend import TorchBackend, TorchConfig
for photographs in ("required", "refused"):
    config = TorchConfig(image_checkpoint=Path(sys.argv[1]), device="cpu", photographs=photographs)
    backend = TorchBackend(config)
    try:
        backend.load()
    except ModelMissing as error:
        print(photographs, error)
    else:
        print(photographs, "starts as", *backend.models)
"""

MISSING_MODEL = """
from sn17_trellis.engine.background import rembg_remover
print(rembg_remover())
"""


def run(script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "MODEL_CHECKSUM_DISABLED": "1", **env},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_without_the_package_the_extra_is_named() -> None:
    done = run(ABSENT)
    assert "'background' extra is not installed" in done.stdout, done.stderr


def test_without_its_model_nothing_is_downloaded(tmp_path: Path) -> None:
    pytest.importorskip("rembg", reason="needs the 'background' extra")
    done = run(MISSING_MODEL, U2NET_HOME=str(tmp_path), REMBG_HOME=str(tmp_path))
    assert f"no u2net.onnx in {tmp_path}" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_image_worker_without_it_does_not_start_unless_it_is_to_refuse_photographs(
    tmp_path: Path, write_checkpoint: Any
) -> None:
    write_checkpoint(tmp_path / "image", "Image")
    first, second = run(REFUSED, str(tmp_path / "image")).stdout.splitlines()
    assert first.startswith("required image tasks: the 'background' extra is not installed")
    assert "SN17_PHOTOGRAPHS=refused" in first
    assert second == "refused starts as image"
