"""The commands of ``sn17 tasks``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from sn17_contract.tasks import TaskList, TaskState, TaskView
from sn17_http import own_client

from sn17.console import new_console, print_json, say
from sn17.tasks.source import OpsPort, SourceError, TaskSource, find_journal
from sn17.tasks.tables import story, task_table, window_table

app = typer.Typer(name="tasks", help="List what the miner did, and explain why.", invoke_without_command=True)

StateDir = Annotated[
    Path | None,
    typer.Option(envvar="SN17_STATE_DIR", help="The miner's state folder. Default: the newest sn17 up here."),
]
Url = Annotated[str | None, typer.Option(help="Ops port of a running miner, in place of a folder.")]
Token = Annotated[Path | None, typer.Option(help="File with the admin token, for --url.")]
Json = Annotated[bool, typer.Option("--json", help="JSON in place of tables.")]


@app.callback()
def tasks(
    context: typer.Context,
    state_dir: StateDir = None,
    url: Url = None,
    token_file: Token = None,
    state: Annotated[TaskState | None, typer.Option(help="Only tasks in this state.")] = None,
    validator: Annotated[
        str | None, typer.Option(help="Only of this uid, or of hotkeys that begin so.")
    ] = None,
    task_id: Annotated[str | None, typer.Option(help="Only tasks whose id begins so.")] = None,
    door: Annotated[
        str | None, typer.Option(help="Only of this door: validators, or a gateway's name.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Newest tasks shown.")] = 20,
    json: Json = False,
) -> None:
    """List the newest tasks with outcome, reason and score; success and yield side by side."""
    if context.invoked_subcommand is not None:
        return
    given = {
        "state": state.value if state else None,
        "validator": validator,
        "task_id": task_id,
        "door": door,
    }
    with _source(state_dir, url, token_file) as source:
        found = source.tasks(limit=limit, filters={k: v for k, v in given.items() if v is not None})
    if json:
        print_json(found.model_dump_json(by_alias=True))
    else:
        _show(found)


@app.command()
def explain(
    n: Annotated[int, typer.Argument(help="The task's number, as the list shows it.")],
    state_dir: StateDir = None,
    url: Url = None,
    token_file: Token = None,
    json: Json = False,
) -> None:
    """Tell a task's whole story: every step, every decision, and why."""
    with _source(state_dir, url, token_file) as source:
        task: TaskView = source.task(n)
    if json:
        print_json(task.model_dump_json())
    else:
        new_console().print(*story(task), sep="\n")


def _show(found: TaskList) -> None:
    console = new_console()
    console.print(task_table(found.tasks))
    console.print(window_table(found.windows))
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.counts.items())) or "empty"
    console.print(f"Journal: {states}", highlight=False)


@contextmanager
def _source(state_dir: Path | None, url: str | None, token_file: Path | None) -> Iterator[TaskSource]:
    try:
        if url is None:
            yield find_journal(state_dir, Path())
            return
        try:
            token = token_file.read_text().strip() if token_file else ""
        except OSError as error:
            raise SourceError(f"{token_file}: {error.strerror}") from error
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with own_client(base_url=url, headers=headers, timeout=10.0) as client:
            yield OpsPort(client)
    except SourceError as error:
        say(f"sn17 tasks: {error}", error=True)
        raise typer.Exit(1) from error
