"""`make demo` on a copy of the Makefile, with a uv and an sn17 that write down how they were called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECORD = '#!/bin/sh\necho "$(basename "$0") $*" >> "$(dirname "$0")/../../calls"\n'


@pytest.fixture(params=["clone", "run #1 %20 ü"])
def clone(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    made = tmp_path / request.param
    (made / "dev/tools").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", made)
    shutil.copy(ROOT / "dev/tools/bootstrap.sh", made / "dev/tools")
    for path in (made / ".bootstrap/bin/uv", made / ".venv/bin/sn17"):
        path.parent.mkdir(parents=True)
        path.write_text(RECORD)
        path.chmod(0o755)
    return made


def make(clone: Path, *args: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    answer = subprocess.run(
        ["make", "demo", *args], cwd=clone, env=env, capture_output=True, text=True, check=False
    )
    calls = clone / "calls"
    return answer, calls.read_text().splitlines() if calls.exists() else []


@pytest.mark.parametrize("wrong", ["BACKEND=cuda", "BACKEND=", "TASKS=many", "TASKS=0"])
def test_a_wrong_argument_is_refused_before_anything_is_installed(clone: Path, wrong: str) -> None:
    answer, calls = make(clone, wrong)
    assert answer.returncode != 0
    assert answer.stderr.startswith(f"make demo: {wrong}")
    assert calls == []


def test_nothing_that_is_installed_is_removed(clone: Path) -> None:
    answer, calls = make(clone)
    assert answer.returncode == 0, answer.stderr
    sync, up = calls
    assert "--inexact" in sync
    assert "--extra" not in sync
    assert up.endswith("--tasks 27 --backend procedural")


def test_the_download_of_torch_shows_progress(clone: Path) -> None:
    _, (sync, up) = make(clone, "BACKEND=torch", "TASKS=3")
    assert "--extra torch" in sync
    assert " -q " not in sync
    assert up.endswith("--tasks 3 --backend torch")
