"""The commands of docs/worker.md, pasted into a shell against a worker."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sn17_splats import read_ply

DOCS = Path(__file__).resolve().parents[3] / "docs" / "worker.md"
COMMANDS = re.findall(r"^curl .*/generate .*$", DOCS.read_text(), re.MULTILINE)


def paste(command: str, url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    here = command.replace("http://127.0.0.1:10006", url).replace("curl ", "curl --noproxy '*' ", 1)
    return subprocess.run(["bash", "-c", here], cwd=folder, capture_output=True, text=True, check=False)


def picture(folder: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), (200, 30, 30)).save(folder / "cup.png")


def test_the_commands_save_the_asset_they_name(new_process: Any, tmp_path: Path) -> None:
    assert len(COMMANDS) == 2
    picture(tmp_path)
    worker = new_process()
    for command in COMMANDS:
        answer = paste(command, worker.url, tmp_path)
        assert answer.returncode == 0, answer.stderr
        name = re.search(r"-o (\S+)", command)
        assert name is not None
        assert len(read_ply((tmp_path / name[1]).read_bytes())) > 1000


@pytest.mark.parametrize("command", COMMANDS, ids=["prompt", "picture"])
def test_the_commands_fail_and_save_nothing_when_the_worker_refuses(
    new_process: Any, tmp_path: Path, command: str
) -> None:
    picture(tmp_path)
    worker = new_process()
    refused = command.replace("/generate", "/generate?sede=17")
    answer = paste(refused, worker.url, tmp_path)
    assert answer.returncode == 22
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".ply"]
