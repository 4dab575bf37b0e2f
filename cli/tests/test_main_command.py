"""The list of commands costs no imports, and says what the commands themselves say."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sn17.commands import COMMANDS, app
from typer.testing import CliRunner

RUNNER = CliRunner()


def test_help_lists_every_command_and_imports_none() -> None:
    script = (
        "import sys; from sn17.commands import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'fastapi', 'kubernetes', 'aiohttp', 'httpx2', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    for name in COMMANDS:
        assert f" {name} " in made.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_in_the_list_is_that_of_the_command(name: str) -> None:
    assert COMMANDS[name].load(name).get_short_help_str(300) == COMMANDS[name].help
    answer = RUNNER.invoke(app, [name, "--help"])
    assert answer.exit_code == 0, answer.output
    assert f"sn17 {name}" in answer.output or f"root {name}" in answer.output


def test_unknown_command_is_told_with_the_nearest() -> None:
    answer = RUNNER.invoke(app, ["cordn"])
    assert answer.exit_code == 2
    assert "cordon" in answer.output
