"""The commands of ``sn17 tasks``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from sn17_contract.tasks import TaskList, TaskState, TaskView
from sn17_http import own_client
from sn17_splats import SplatError

from sn17.cluster.access import Access, cannot
from sn17.cluster.release import Release
from sn17.console import new_console, print_json, say
from sn17.exits import Exit, sentence
from sn17.given import address_of, secret_of
from sn17.options import Context, Json, Kubeconfig, Namespace, ReleaseName, TokenFile
from sn17.splat.formats import STDIO
from sn17.splat.saving import format_of, save
from sn17.tasks.source import NothingThereError, OpsPort, SourceError, TaskSource, find_journal
from sn17.tasks.tables import story, task_table, window_table

ANSWER_SECONDS = 60.0

app = typer.Typer(name="tasks", help="List what the miner did, and explain why.", invoke_without_command=True)

Number = Annotated[int, typer.Argument(metavar="N", help="The task's number, as the list shows it.")]
MinerDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar="SN17_STATE_DIR",
        help="A run's folder, or a miner's state folder. Default: the newest `sn17 up` below .sn17.",
    ),
]
Url = Annotated[str | None, typer.Option("--url", help="Ops port of a running miner, instead of a folder.")]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the tasks are, as the options say; those before a sub-command count for it, too."""

    state_dir: Path | None = None
    url: str | None = None
    token_file: Path | None = None
    release: str | None = None
    access: Access = field(default_factory=Access)

    def over(self, before: Place | None) -> Place:
        """The same, with what is not given taken from ``before``."""
        if before is None:
            return self
        return Place(
            self.state_dir or before.state_dir,
            self.url or before.url,
            self.token_file or before.token_file,
            self.release or before.release,
            Access(
                self.access.kubeconfig or before.access.kubeconfig,
                self.access.context or before.access.context,
                self.access.namespace or before.access.namespace,
            ),
        )


@app.callback()
def tasks(
    ctx: typer.Context,
    state_dir: MinerDir = None,
    url: Url = None,
    token_file: TokenFile = None,
    release: ReleaseName = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
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
    place = Place(state_dir, url, token_file, release, Access(kubeconfig, context, namespace))
    if ctx.invoked_subcommand is not None:
        ctx.obj = place
        return
    given = {
        "state": state.value if state else None,
        "validator": validator,
        "task_id": task_id,
        "door": door,
    }
    with _source(place) as source:
        found = source.tasks(limit=limit, filters={k: v for k, v in given.items() if v is not None})
    if json:
        print_json(found.model_dump_json(by_alias=True))
    else:
        _show(found)


@app.command()
def explain(
    ctx: typer.Context,
    n: Number,
    state_dir: MinerDir = None,
    url: Url = None,
    token_file: TokenFile = None,
    release: ReleaseName = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    json: Json = False,
) -> None:
    """Tell a task's whole story: every step, every decision, and why."""
    place = Place(state_dir, url, token_file, release, Access(kubeconfig, context, namespace))
    with _source(place.over(ctx.obj)) as source:
        task: TaskView = source.task(n)
    if json:
        print_json(task.model_dump_json())
    else:
        new_console().print(*story(task), sep="\n")


@app.command()
def get(
    ctx: typer.Context,
    n: Number,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to; .ply and .splat are converted, .spz is as submitted; - is standard output.",
        ),
    ],
    state_dir: MinerDir = None,
    url: Url = None,
    token_file: TokenFile = None,
    release: ReleaseName = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    json: Json = False,
) -> None:
    """Write the asset that was submitted for a task. The miner keeps those of the last tasks."""
    place = Place(state_dir, url, token_file, release, Access(kubeconfig, context, namespace))
    try:
        kind = format_of(output)
        with _source(place.over(ctx.obj)) as source:
            asset = source.asset(n)
        made = save(asset, output, kind)
    except (OSError, SplatError) as error:
        say(f"sn17 tasks: {sentence(error)}", error=True)
        raise typer.Exit(Exit.CANNOT) from error
    told = {"task": n, "file": output, "format": str(kind), "bytes": made.size, "gaussians": made.gaussians}
    if json and output != STDIO:
        print_json(dumps(told))
    else:
        say(f"{output}: task {n}, {made.gaussians:,} gaussians, {made.size:,} bytes of {kind}", error=True)


def _show(found: TaskList) -> None:
    console = new_console()
    console.print(task_table(found.tasks))
    console.print(window_table(found.windows))
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.counts.items())) or "empty"
    console.print(f"Journal: {states}", highlight=False)


@contextmanager
def _source(place: Place) -> Iterator[TaskSource]:
    with cannot("tasks"), ExitStack() as stack:
        try:
            yield _opened(place, stack)
        except SourceError as error:
            say(f"sn17 tasks: {error}", error=True)
            raise typer.Exit(Exit.NO if isinstance(error, NothingThereError) else Exit.CANNOT) from error


def _opened(place: Place, stack: ExitStack) -> TaskSource:
    if place.url and place.release:
        raise SourceError("give --url or --release, not both")
    if place.release:
        release = Release(place.release, place.access)
        token, url = release.admin_token(), stack.enter_context(release.miner())
    elif place.url:
        token, url = secret_of(place.token_file) if place.token_file else "", address_of(place.url)
    else:
        return find_journal(place.state_dir, Path())
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return OpsPort(stack.enter_context(own_client(base_url=url, headers=headers, timeout=ANSWER_SECONDS)))
