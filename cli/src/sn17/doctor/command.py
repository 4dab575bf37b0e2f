"""The command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sn17.console import new_console, print_json
from sn17.doctor.local.checks import local_checks
from sn17.doctor.local.probes import LocalMachine
from sn17.doctor.model import Outcome, Result, exit_code
from sn17.doctor.runner import run
from sn17.doctor.tables import as_json, line
from sn17.up.status import RUNS


def doctor(
    state_dir: Annotated[Path, typer.Option(help="Folder of local runs, for disk and rights.")] = RUNS,
    port: Annotated[
        list[int] | None,
        typer.Option(min=1, max=65535, help="A port that must be free, besides the services' usual ones."),
    ] = None,
    hotkey: Annotated[
        Path | None, typer.Option(envvar="SN17_HOTKEY_FILE", help="The hotkey file to check.")
    ] = None,
    model: Annotated[
        list[Path] | None, typer.Option(help="Folder of a fetched checkpoint, or of several.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON in place of lines.")] = False,
) -> None:
    """What stands in the way of a run, and what to do about it: one line for each check.

    Exit code 0: nothing failed. 1: a check failed, or could not find out (unknown).
    """
    checks = local_checks(
        LocalMachine(os.environ), state_dir=state_dir, ports=port or (), hotkey=hotkey, models=model or ()
    )
    console = new_console()
    results: list[Result] = []
    for result in run(checks):
        results.append(result)
        if not json:
            console.print(line(result), soft_wrap=True)
    code = exit_code(results)
    if json:
        print_json(as_json(results, code))
    else:
        console.print(_sum(results), style="green" if code == 0 else "red")
    raise typer.Exit(code)


def _sum(results: list[Result]) -> str:
    counts = {outcome: sum(r.finding.outcome is outcome for r in results) for outcome in Outcome}
    return ", ".join(f"{count} {outcome.value}" for outcome, count in counts.items() if count)
