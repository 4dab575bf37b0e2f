"""The torch worker as a process: what it says when its weights are not there, or not what was fetched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="the engine needs the 'torch' extra")

from sn17_trellis.integrity import VerifiedFiles, manifest_directories
from sn17_trellis.manifest import ManifestError, write_manifest
from sn17_trellis.torch_backend import bundled_checkpoint


@pytest.fixture
def ended(tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Runs a worker that cannot start; its exit code, the words it leaves to the kubelet, and its log."""

    def run(**settings: str) -> tuple[int, str, str]:
        words = tmp_path / "termination-log"
        words.write_text("")
        env = {
            **os.environ,
            "SN17_BACKEND": "torch",
            "SN17_PORT": "0",
            "SN17_OPS_PORT": "0",
            "SN17_SPOOL_DIR": str(tmp_path / "spool"),
            "SN17_TERMINATION_LOG": str(words),
            "SN17_DEVICE": "cpu",
            **settings,
        }
        done = subprocess.run(
            [sys.executable, "-m", "sn17_trellis", "serve"],
            env=env,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        return done.returncode, words.read_text(), done.stderr

    return run


def test_a_worker_without_weights_ends_with_the_word_the_operator_shows(tmp_path: Path, ended: Any) -> None:
    code, words, _ = ended(SN17_TEXT_CHECKPOINT=str(tmp_path / "models" / "someone" / "text"))
    assert code == 1
    assert words.startswith("ModelMissing: ")
    assert f"{tmp_path}/models/someone/text/pipeline.json: no such file" in words
    assert f"sn17-trellis fetch --into {tmp_path}/models someone/text@REVISION" in words
    assert "trellis.model.revision" in words


def test_a_repository_that_another_one_needs_is_missing_too(tmp_path: Path, ended: Any) -> None:
    checkpoint = tmp_path / "models" / "someone" / "text"
    shutil.copytree(bundled_checkpoint(), checkpoint)
    described = json.loads((checkpoint / "pipeline.json").read_text())
    described["args"]["models"]["slat_decoder_gs"] = "microsoft/elsewhere/ckpts/slat_decoder_gs"
    (checkpoint / "pipeline.json").write_text(json.dumps(described))
    code, words, _ = ended(SN17_TEXT_CHECKPOINT=str(checkpoint))
    assert code == 1
    assert words.startswith("ModelMissing: ")
    assert "microsoft/elsewhere" in words


def test_a_worker_does_not_start_on_files_that_are_not_what_was_fetched(tmp_path: Path, ended: Any) -> None:
    checkpoint = tmp_path / "models" / "someone" / "text"
    shutil.copytree(bundled_checkpoint(), checkpoint)
    name = "ckpts/slat_decoder_gs.safetensors"
    write_manifest(checkpoint, "someone/text", "main", "0" * 40, ["pipeline.json", name])
    content = bytearray((checkpoint / name).read_bytes())
    content[-1] ^= 1
    (checkpoint / name).write_bytes(content)
    code, words, log = ended(SN17_TEXT_CHECKPOINT=str(checkpoint))
    assert code == 1
    assert not words.startswith("ModelMissing")
    assert name in words
    assert "SHA-256" in log


def test_files_are_read_through_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "files"
    directory.mkdir()
    for name in ("a", "b"):
        (directory / name).write_text(name)
    write_manifest(directory, "someone/some", "main", "0" * 40, ["a", "b"])
    assert manifest_directories([directory / "a", directory / "b", tmp_path / "c"]) == [directory]
    read: list[int] = []
    caplog.set_level("INFO", "sn17.trellis.manifest")
    for _ in range(2):
        VerifiedFiles(tmp_path / "book").verify(directory)
        read.append(vars(caplog.records[-1])["read_through"])
    (directory / "b").write_text("b")
    os.utime(directory / "b", ns=(1, 1))
    VerifiedFiles(tmp_path / "book").verify(directory)
    read.append(vars(caplog.records[-1])["read_through"])
    (tmp_path / "book").write_text("not a book")
    VerifiedFiles(tmp_path / "book").verify(directory)
    read.append(vars(caplog.records[-1])["read_through"])
    assert read == [2, 0, 1, 2]
    (directory / "a").write_text("x")
    with pytest.raises(ManifestError, match="SHA-256"):
        VerifiedFiles(tmp_path / "book").verify(directory)
