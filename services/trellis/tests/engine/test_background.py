"""The background extra: what is said where the package or its model is absent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the engine needs the 'torch' extra")

ABSENT = """
import logging, sys
logging.basicConfig(level="INFO", format="%(message)s")
sys.modules["rembg"] = None
from sn17_trellis.engine.background import rembg_remover
print(rembg_remover())
"""

MISSING_MODEL = """
import logging
logging.basicConfig(level="INFO", format="%(message)s")
from sn17_trellis.engine.background import rembg_remover
print(rembg_remover())
"""


def run(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "MODEL_CHECKSUM_DISABLED": "1", **env},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_without_the_package_the_extra_is_named() -> None:
    done = run(ABSENT)
    assert done.stdout.strip() == "None", done.stderr
    assert "'background' extra is not installed" in done.stderr


def test_without_its_model_nothing_is_downloaded(tmp_path: Path) -> None:
    pytest.importorskip("rembg", reason="needs the 'background' extra")
    done = run(MISSING_MODEL, U2NET_HOME=str(tmp_path), REMBG_HOME=str(tmp_path))
    assert done.stdout.strip() == "None", done.stderr
    assert f"no u2net.onnx in {tmp_path}" in done.stderr
    assert list(tmp_path.iterdir()) == []
