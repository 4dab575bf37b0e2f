"""No GPL in what users and images install by default, and a check that notices when one comes in."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "dev/tools/licences.py"
MEMBERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]["members"]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A copy of what uv needs to know the closures."""
    for pattern in ("", *MEMBERS):
        for file in ROOT.glob(f"{pattern}/pyproject.toml".lstrip("/")):
            copy = tmp_path / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    (tmp_path / "uv.lock").write_bytes((ROOT / "uv.lock").read_bytes())
    return tmp_path


def check(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--root", root], capture_output=True, text=True, timeout=100, check=False
    )


def test_what_is_locked_is_free_of_the_gpl(workspace: Path) -> None:
    done = check(workspace)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_gpl_package_in_a_closure_is_named_with_everything_it_comes_with(workspace: Path) -> None:
    lock = workspace / "uv.lock"
    before = lock.read_text()
    after = re.sub(
        r'(name = "sn17-splats"\n(?:.+\n)+?dependencies = \[\n)', r'\1    { name = "plyfile" },\n', before
    )
    assert after != before
    lock.write_text(after)
    done = check(workspace)
    assert done.returncode == 1
    (problem,) = done.stderr.splitlines()
    assert problem.startswith("plyfile (in sn17, ")
    assert "sn17-fixer[fast]" in problem
    assert "sn17-operator" not in problem
    assert "GNU General Public License v3" in problem


def test_every_image_is_checked() -> None:
    """What a Dockerfile installs is one of the closures of the check."""
    listed = SCRIPT.read_text()
    installed = [
        match.groups()
        for file in ROOT.glob("Dockerfile.*")
        for match in re.finditer(r"uv sync .*--package ([\w-]+)(?: --extra ([\w-]+))?", file.read_text())
    ]
    assert len(installed) >= 5
    for package, extra in installed:
        extras = f'("{extra}",)' if extra else "()"
        expected = f'("{package}", {extras})'
        assert expected in listed, expected
