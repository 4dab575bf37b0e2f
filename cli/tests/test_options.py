"""Options and exit codes mean the same in every command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from sn17 import exits, options
from sn17.commands import COMMANDS, app
from typer.testing import CliRunner

DOCS = Path(__file__).resolve().parents[2] / "docs" / "command-line.md"
SHARED = {
    "--json": options.Json,
    "--namespace": options.Namespace,
    "--context": options.Context,
    "--kubeconfig": options.Kubeconfig,
    "--release": options.ReleaseName,
    "--report": options.ReportFile,
    "--token-file": options.TokenFile,
}


def leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command below, and groups that do something by themselves."""
    below = getattr(command, "commands", {})
    if not below or command.invoke_without_command:
        yield name, command
    for own, child in below.items():
        yield from leaves(f"{name} {own}", child)


ALL = [leaf for name, entry in COMMANDS.items() for leaf in leaves(name, entry.load(name))]


def declared(option: str) -> dict[str, Any]:
    """How a command has the shared option and nothing of its own."""
    alone = typer.Typer(add_completion=False)

    def one(value: Any = None) -> None:
        """Takes it."""

    one.__annotations__["value"] = SHARED[option]
    alone.command()(one)
    return facts(typer.main.get_command(alone).params[0])


def facts(parameter: Any) -> dict[str, Any]:
    names = ("opts", "secondary_opts", "help", "is_flag", "envvar", "multiple", "metavar")
    return {name: getattr(parameter, name) for name in names}


@pytest.mark.parametrize("option", SHARED)
def test_a_shared_option_is_the_same_in_every_command(option: str) -> None:
    expected = declared(option)
    having = []
    for name, command in ALL:
        for parameter in command.params:
            if option in parameter.opts:
                having.append(name)
                assert facts(parameter) == expected, name
    assert having


def test_whoever_reaches_a_cluster_takes_all_that_says_which() -> None:
    trio = {"--namespace", "--context", "--kubeconfig"}
    for name, command in ALL:
        own = {opt for parameter in command.params for opt in parameter.opts}
        if own & {"--release", "--context", "--kubeconfig"}:
            assert trio <= own, name


def test_no_option_of_another_meaning_has_a_shared_short_name() -> None:
    for name, command in ALL:
        for parameter in command.params:
            if "-n" in parameter.opts:
                assert "--namespace" in parameter.opts, name
            if "-o" in parameter.opts:
                assert "--output" in parameter.opts, name


@pytest.mark.parametrize("name", [name for name, _ in ALL])
def test_help_tells_the_exit_codes_of_the_one_table(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "--help"])
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.output.split())
    for code in exits.codes_of(name):
        assert f"{code.value} {exits.MEANINGS[code]}" in words, (name, code)
    for code in set(exits.Exit) - set(exits.codes_of(name)):
        assert f"{code.value} {exits.MEANINGS[code]}" not in words, (name, code)


def test_the_docs_have_the_same_table() -> None:
    text = DOCS.read_text()
    assert exits.markdown() in text, "write the output of sn17.exits.markdown() into docs/command-line.md"


def test_every_named_command_of_the_table_exists() -> None:
    assert set(exits.MORE) <= {name for name, _ in ALL}
