"""`sn17 status`: the tables of a run that is up, of the last one, or of a release in a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from json import dumps
from pathlib import Path

import httpx2
import typer
from sn17.cluster.access import Access, ClusterError, cannot
from sn17.cluster.release import Release
from sn17.console import new_console, print_json, say
from sn17.exits import Exit
from sn17.options import Context, Json, Kubeconfig, Namespace, ReleaseName, StateDir
from sn17.up.collect import WorkerTally, observe_worker, read_tasks, task_record
from sn17.up.gateway import gateway_line
from sn17.up.report import Report, TaskRecord, build
from sn17.up.tables import render
from sn17_contract.files import WrongShapeError
from sn17_contract.http import OPS_PORT, TRELLIS_PORT
from sn17_contract.local_network import DESCRIPTION_FILE, LocalNetwork
from sn17_contract.ready import ReadyFile
from sn17_contract.tasks import VALIDATORS, TaskList
from sn17_http import own_async_client, own_request

RUNS = Path(".sn17")
NEWEST_TASKS = 1000
"""Of a release; its miner answers with no more at a time."""
ANSWER_SECONDS = 30.0


def status(
    state_dir: StateDir = None,
    release: ReleaseName = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    json: Json = False,
) -> None:
    """Show submissions and workers of a run on this machine, or of a release in a cluster."""
    gateway: str | None = None
    if release is not None:
        with cannot("status"):
            report = _of_release(Release(release, Access(kubeconfig, context, namespace)))
        title = f"sn17: release {release}, its newest {NEWEST_TASKS:,} tasks"
    else:
        folder = state_dir or newest_run(RUNS)
        report, gateway = _of_run(folder)
        title = f"sn17: {folder}"
    if json:
        print_json(dumps(asdict(report), default=str))
        return
    console = new_console()
    console.print(render(report, title=title, width=console.width))
    if gateway is not None:
        console.print(gateway, highlight=False, soft_wrap=True)


def newest_run(parent: Path) -> Path | None:
    """The run folder that was started last; their names sort by time."""
    runs = sorted(path.parent for path in parent.glob("*/admin-token"))
    return runs[-1] if runs else None


def _of_run(folder: Path | None) -> tuple[Report, str | None]:
    try:
        if folder is None or not (folder / "validators" / DESCRIPTION_FILE).exists():
            where = RUNS.absolute() if folder is None else folder
            raise ClusterError(
                f"no run found in {where}: start one with `sn17 up`, or give --state-dir or --release"
            )
        return asyncio.run(_observe(folder))
    except (ClusterError, WrongShapeError, OSError) as error:
        say(f"sn17 status: {error}", error=True)
        raise typer.Exit(Exit.CANNOT) from None


async def _observe(folder: Path) -> tuple[Report, str | None]:
    description = folder / "validators" / DESCRIPTION_FILE
    network = LocalNetwork.parse(description.read_bytes(), description)
    addresses = []
    for file in sorted((folder / "run").glob("trellis-*.json")):
        ready = ReadyFile.parse(file.read_bytes(), file)
        ports = (f"http://127.0.0.1:{ready.port}", f"http://127.0.0.1:{ready.ops_port}")
        addresses.append((file.stem, *ports))
    report = _report(
        read_tasks(folder / "miner" / "journal.sqlite"),
        await _observe_workers(addresses),
        [each.hotkey for each in network.validators],
    )
    async with own_async_client(timeout=2.0) as client:
        return report, await gateway_line(client, folder)


def _of_release(release: Release) -> Report:
    """Raises ClusterError."""
    with ExitStack() as stack:
        headers = {"authorization": f"Bearer {release.admin_token()}"}
        url = f"{stack.enter_context(release.miner())}/v1/tasks?limit={NEWEST_TASKS}&door={VALIDATORS}"
        try:
            answer = own_request("GET", url, headers=headers, timeout=ANSWER_SECONDS).raise_for_status()
            found = TaskList.model_validate_json(answer.content)
        except (httpx2.HTTPError, ValueError) as error:
            raise ClusterError(
                f"the miner of release {release.name} gave no list of tasks: {error}"
            ) from error
        addresses = [
            (
                pod,
                stack.enter_context(release.forward(pod, TRELLIS_PORT)),
                stack.enter_context(release.forward(pod, OPS_PORT)),
            )
            for pod in release.pods("trellis")
        ]
        tallies = asyncio.run(_observe_workers(addresses))
    return _report([task_record(task, task.uid) for task in reversed(found.tasks)], tallies, [])


async def _observe_workers(addresses: Sequence[tuple[str, str, str]]) -> list[WorkerTally]:
    """``addresses``: name, data port, ops port."""
    tallies = [WorkerTally(name) for name, _, _ in addresses]
    async with own_async_client(timeout=2.0) as client:
        for tally, (_, url, ops_url) in zip(tallies, addresses, strict=True):
            await observe_worker(client, tally, url=url, ops_url=ops_url)
    return tallies


def _report(tasks: list[TaskRecord], tallies: list[WorkerTally], validators: list[str]) -> Report:
    return build(
        tasks, [tally.record(restarts=None) for tally in tallies], validators=validators, assigned={}
    )
