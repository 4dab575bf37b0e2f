"""Manifests and the check command, on damaged copies of a checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from sn17_trellis.__main__ import main
from sn17_trellis.manifest import write_manifest
from sn17_trellis.torch_backend import bundled_checkpoint


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundled_checkpoint(), tmp_path / "mini"))


def check(directory: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    code = main(["check", str(directory), *more])
    return code, capsys.readouterr().err


def test_the_bundled_checkpoint_is_usable(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(bundled_checkpoint(), capsys)[0] == 0


def test_a_truncated_file_is_named(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = copy / "ckpts" / "slat_flow_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    code, error = check(copy, capsys)
    assert code == 1
    assert "slat_flow_model.safetensors" in error


def test_another_shape_names_the_key(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = copy / "ckpts" / "slat_decoder_gs.json"
    described = json.loads(config.read_text())
    described["args"]["mlp_ratio"] = 2
    config.write_text(json.dumps(described))
    code, error = check(copy, capsys)
    assert code == 1
    assert "blocks.0.mlp.mlp.0" in error


@pytest.mark.parametrize(("key", "value"), [("unheard_of", 1), ("num_heads", 7), ("pe_mode", "rope")])
def test_arguments_the_engine_cannot_serve(
    copy: Path, capsys: pytest.CaptureFixture[str], key: str, value: object
) -> None:
    config = copy / "ckpts" / "slat_flow_model.json"
    described = json.loads(config.read_text())
    described["args"][key] = value
    config.write_text(json.dumps(described))
    code, error = check(copy, capsys)
    assert code == 1
    assert "slat_flow_model.json: args" in error


def test_a_missing_network_lists_what_was_tried(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "ckpts" / "slat_flow_model.safetensors").unlink()
    code, error = check(copy, capsys)
    assert code == 1
    assert "slat_flow_model" in error
    assert "tried" in error


def test_changed_bytes_are_found_by_their_hash(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "ckpts/slat_decoder_gs.safetensors"
    write_manifest(copy, "someone/mini", "main", "0" * 40, ["pipeline.json", name])
    assert check(copy, capsys, "--hashes")[0] == 0
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    assert check(copy, capsys)[0] == 0
    code, error = check(copy, capsys, "--hashes")
    assert code == 1
    assert "SHA-256" in error
