"""`sn17 up`: the whole stack as local processes, with a live table and a verdict at the end."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from sn17.console import new_console
from sn17.up.backends import FITS, choose
from sn17.up.health import healing, under_way
from sn17.up.process import ProcessFailedError
from sn17.up.report import Report
from sn17.up.session import REFRESH_SECONDS, EventLog, Session, running
from sn17.up.stack import StackOptions
from sn17.up.tables import render
from sn17_files import write_atomically
from sn17_splats.convention import MIN_GAUSSIANS

HEALING_SECONDS = 60.0
DEMO_PACE = {"slow_seconds": 2.0}
"""Slow enough that both workers are busy at a time, as they are with a real generator."""
DEMO_SICKNESS = {"gaussian_decay": True}


def up(
    validators: Annotated[int, typer.Option(min=1, max=32, help="Local validators.")] = 2,
    workers: Annotated[int, typer.Option(min=1, max=32, help="TRELLIS workers.")] = 2,
    tasks: Annotated[
        int | None, typer.Option(min=1, help="End after this many tasks. Default: run until Ctrl-C.")
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="procedural or torch (the bundled checkpoint). Default: torch where installed."),
    ] = None,
    time_scale: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1.0,
            help="Factor on every time constant of the subnet. Default: 0.01, with torch 0.1.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the validators' prompts.")] = 17,
    max_gaussians: Annotated[
        int | None, typer.Option(min=MIN_GAUSSIANS, help="Most gaussians of an asset (procedural backend).")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Let the last worker leak and degrade.")] = False,
    operator: Annotated[
        bool, typer.Option(help="Run the operator's policy and planner over the workers.")
    ] = True,
    state_dir: Annotated[
        Path | None, typer.Option(help="Logs, journal and keys. Default: .sn17/<time> in this folder.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the final report there as JSON.")
    ] = None,
) -> None:
    """Run validators, workers, fixer and miner on this machine and show what is accepted.

    Exit code 0: every task that a validator handed out has an outcome. 1: some have none. 2: a process
    could not be started.
    """
    chosen = choose(backend)
    fit = FITS[chosen]
    folder = state_dir or Path(".sn17") / dt.datetime.now(tz=dt.UTC).strftime("%Y%m%d-%H%M%S")
    options = StackOptions(
        state_dir=folder.resolve(),
        validators=validators,
        workers=workers,
        tasks=tasks,
        backend=chosen,
        time_scale=time_scale or fit.time_scale,
        seed=seed,
        max_gaussians=max_gaussians or fit.gaussians,
        image_ratio=fit.image_ratio,
        memory_limit_bytes=fit.memory_limit_bytes,
        faults=DEMO_PACE if demo else {},
        sick_worker_faults=DEMO_SICKNESS | {"leak_mib_per_generation": fit.leak_mib} if demo else {},
    )
    console = new_console()
    try:
        report = asyncio.run(_run(options, console, operator=operator))
    except ProcessFailedError as error:
        console.print(f"[red]{error}[/red]\nLogs: {folder / 'logs'}", highlight=False)
        raise typer.Exit(2) from error
    console.print(render(report, title="sn17: what became of every task", width=console.width))
    if json_file is not None:
        write_atomically(json_file, json.dumps(asdict(report), indent=2, default=str).encode())
    console.print(f"Logs, journal and report data: {folder}", highlight=False)
    if report.unaccounted:
        console.print(f"[red]{len(report.unaccounted)} tasks have no outcome:[/red] {report.unaccounted}")
        raise typer.Exit(1)
    console.print(f"[green]All {report.total.pulled} tasks are accounted for.[/green]")


async def _run(options: StackOptions, console: Console, *, operator: bool) -> Report:
    interactive = console.is_terminal
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)

    def print_line(line: str) -> None:
        if not interactive:
            console.print(line, highlight=False, soft_wrap=True)

    console.print(
        f"Starting {options.validators} validators, {options.workers} workers ({options.backend}), "
        "fixer and miner ..."
    )
    events = EventLog(print_line)
    async with running(options, events) as session, healing(session, enabled=operator) as healer:
        watch = _watch(session, stop, lambda: under_way(healer))
        if interactive:
            with Live(console=console, refresh_per_second=4, transient=True) as live:
                async for report in watch:
                    live.update(render(report, events.lines, width=console.width))
            for line in events.lines:
                console.print(line, highlight=False, style="dim")
        else:
            ended = -1
            async for report in watch:
                total = report.total
                if total.pulled - total.open != ended:
                    ended = total.pulled - total.open
                    print_line(f"{ended} tasks ended, {total.open} under way")
        return await session.settle()


async def _watch(
    session: Session, stop: asyncio.Event, healing_under_way: Callable[[], bool]
) -> AsyncIterator[Report]:
    """Reports until the miner has ended, or a signal came and the miner has handed in what is done.

    A worker that is being healed when the last task ends is waited for: its end belongs to the story.
    """
    process = session.stack.miner
    assert process is not None, "a session has a running miner"
    miner = asyncio.ensure_future(process.wait())
    stopping = asyncio.ensure_future(stop.wait())
    while not miner.done():
        yield await session.observe()
        await asyncio.wait({miner, stopping}, timeout=REFRESH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            session.events.say("sn17", "stopping: the miner hands in what is done")
            await process.stop(grace=30.0)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + HEALING_SECONDS
    while healing_under_way() and not stop.is_set() and loop.time() < deadline:
        yield await session.observe()
        await asyncio.wait({stopping}, timeout=REFRESH_SECONDS)
    stopping.cancel()
    yield await session.observe()
