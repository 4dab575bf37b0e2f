"""`sn17 status`: the tables of a run that is up, or of the last one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from sn17.console import new_console
from sn17.up.collect import WorkerBook, observe_worker, read_tasks
from sn17.up.gateway import gateway_line
from sn17.up.report import Report, build
from sn17.up.tables import render
from sn17_contract.files import WrongShapeError
from sn17_contract.local_network import DESCRIPTION_FILE, LocalNetwork
from sn17_contract.ready import ReadyFile
from sn17_http import own_async_client

RUNS = Path(".sn17")


def status(
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: the newest below .sn17.")
    ] = None,
) -> None:
    """Show submissions and workers of a local run. In a cluster: kubectl get sn17miners."""
    console = new_console()
    folder = state_dir or newest_run(RUNS)
    if folder is None or not (folder / "validators" / DESCRIPTION_FILE).exists():
        console.print(f"No run found in {state_dir or RUNS.resolve()}: start one with `sn17 up`.")
        raise typer.Exit(2)
    try:
        report, gateway = asyncio.run(_observe(folder))
    except WrongShapeError as error:
        console.print(str(error))
        raise typer.Exit(2) from None
    console.print(render(report, title=f"sn17: {folder}", width=console.width))
    if gateway is not None:
        console.print(gateway, highlight=False, soft_wrap=True)


def newest_run(parent: Path) -> Path | None:
    """The run folder that was started last; their names sort by time."""
    runs = sorted(path.parent for path in parent.glob("*/admin-token"))
    return runs[-1] if runs else None


async def _observe(folder: Path) -> tuple[Report, str | None]:
    description = folder / "validators" / DESCRIPTION_FILE
    network = LocalNetwork.parse(description.read_bytes(), description)
    books: list[WorkerBook] = []
    async with own_async_client(timeout=2.0) as client:
        for file in sorted((folder / "run").glob("trellis-*.json")):
            ready = ReadyFile.parse(file.read_bytes(), file)
            book = WorkerBook(file.stem)
            books.append(book)
            await observe_worker(
                client,
                book,
                url=f"http://127.0.0.1:{ready.port}",
                ops_url=f"http://127.0.0.1:{ready.ops_port}",
            )
        gateway = await gateway_line(client, folder)
    report = build(
        read_tasks(folder / "miner" / "journal.sqlite"),
        [book.record(restarts=None) for book in books],
        validators=[each.hotkey for each in network.validators],
        assigned={},
    )
    return report, gateway
