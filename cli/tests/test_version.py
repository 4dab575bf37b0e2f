"""``sn17 --version`` and ``-h``, as a person types them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from sn17.version import version_text


def sn17(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sn17", *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_version_is_that_of_the_package_with_the_commit_of_a_checkout() -> None:
    answer = sn17("--version")
    assert answer.returncode == 0
    assert re.fullmatch(
        rf"sn17 {re.escape(version('sn17'))}( \(commit [0-9a-f]{{12}}(, changed)?\))?\n", answer.stdout
    )


def test_an_installed_copy_in_somebodys_checkout_names_no_commit(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    installed = tmp_path / "venv" / "version.py"
    installed.parent.mkdir()
    installed.touch()
    assert version_text(installed) == f"sn17 {version('sn17')}"


@pytest.mark.parametrize("command", [(), ("splat",), ("splat", "inspect")])
def test_the_short_option_is_the_long_one(command: tuple[str, ...]) -> None:
    short, long = sn17(*command, "-h"), sn17(*command, "--help")
    assert (short.returncode, short.stdout) == (0, long.stdout)
    assert "Usage: " in short.stdout
