"""`sn17 up`: the whole stack as local processes, with a live table and a verdict at the end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from sn17.console import live, new_console, say
from sn17.exits import Exit, sentence
from sn17.options import Json, ReportFile
from sn17.report_file import ReportError, ReportTarget
from sn17.up import folder
from sn17.up.backends import FITS, choose
from sn17.up.health import healing, under_way
from sn17.up.interrupts import InterruptedRunError, Interrupts, listening
from sn17.up.process import ProcessFailedError
from sn17.up.report import Report
from sn17.up.session import REFRESH_SECONDS, EventLog, Session, running
from sn17.up.stack import StackOptions
from sn17.up.tables import fitted, render
from sn17_contract.files import WrongShapeError
from sn17_splats.convention import MIN_GAUSSIANS

HEALING_SECONDS = 60.0
DEMO_PACE = {"slow_seconds": 2.0}
"""Slow enough that both workers are busy at a time, as they are with a real generator."""
DEMO_FAULTS = {"gaussian_decay": True}

GatewayPort = Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway; 0 picks a free one.")]


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
    gateway: Annotated[bool, typer.Option(help="Run a gateway, which takes your own prompts.")] = True,
    gateway_port: GatewayPort = 0,
    state_dir: Annotated[
        Path | None, typer.Option(help="Logs, journal and keys. Default: a new folder in .sn17.")
    ] = None,
    report: ReportFile = None,
    json: Json = False,
) -> None:
    """Run validators, workers, fixer and miner on this machine and show what is accepted.

    Ctrl-C or SIGTERM ends the run in order: the miner hands in what is done, then the report is shown. A
    second one ends it at once.

    Exit code 0: every task that a validator handed out has an outcome, also after a first Ctrl-C. 1: some
    have none, or it is not known. 130: ended at once, or before everything had started.
    """
    chosen = choose(backend)
    fit = FITS[chosen]
    try:
        target = ReportTarget.of(report, json)
        console = new_console(error=target.stdout)
        place = folder.choose(state_dir, dt.datetime.now(tz=dt.UTC))
    except (folder.FolderError, ReportError) as error:
        raise _stop(str(error)) from error
    options = StackOptions(
        state_dir=place.resolve(),
        validators=validators,
        workers=workers,
        tasks=tasks,
        backend=chosen,
        time_scale=time_scale or fit.time_scale,
        seed=seed,
        max_gaussians=max_gaussians or fit.gaussians,
        image_ratio=fit.image_ratio,
        memory_limit_bytes=fit.memory_limit_bytes,
        gateway=gateway,
        gateway_port=gateway_port,
        faults=DEMO_PACE if demo else {},
        faulty_worker_faults=DEMO_FAULTS | {"leak_mib_per_generation": fit.leak_mib} if demo else {},
    )
    try:
        with folder.kept(place):
            found, compared = asyncio.run(_run(options, console, operator=operator))
    except folder.FolderError as error:
        raise _stop(str(error)) from error
    except (ProcessFailedError, WrongShapeError, OSError) as error:
        if isinstance(error, OSError) and error.strerror and not error.filename:
            # What fails while a file is open has no name: it is one below this folder.
            error.filename = str(place)
        raise _stop(f"{sentence(error)}\nLogs: {place / 'logs'}") from error
    except InterruptedRunError as error:
        say(f"Stopped before everything had started. Logs: {place / 'logs'}", error=True)
        raise typer.Exit(Exit.INTERRUPTED) from error
    raise typer.Exit(_conclude(found, console, place, target, compared=compared))


def _stop(sentence: str) -> typer.Exit:
    say(f"sn17 up: {sentence}", error=True)
    return typer.Exit(Exit.CANNOT)


def _conclude(
    report: Report, console: Console, place: Path, target: ReportTarget, *, compared: bool | None
) -> int:
    """Show and write the report; the exit code. ``compared`` is None for a run that was ended at once."""
    console.print(render(report, title="sn17: what became of every task", width=console.width))
    try:
        target.write(dumps(asdict(report), indent=2, default=str))
    except ReportError as error:
        raise _stop(str(error)) from error
    console.print(f"Logs, journal and assets: {place}", highlight=False, soft_wrap=True)
    if compared is None:
        console.print("Ended at once: tasks that were open may have no outcome.", style="red")
        return Exit.INTERRUPTED
    if not compared:
        console.print(
            "The validators' ledger could not be read at the end: its tasks were not compared.", style="red"
        )
        return Exit.NO
    if report.unaccounted:
        console.print(f"{len(report.unaccounted)} tasks have no outcome: {report.unaccounted}", style="red")
        return Exit.NO
    console.print(f"All {report.total.pulled} tasks are accounted for.", style="green")
    return Exit.DONE


async def _run(options: StackOptions, console: Console, *, operator: bool) -> tuple[Report, bool | None]:
    def print_line(line: str) -> None:
        if not live(console):
            console.print(line, highlight=False, soft_wrap=True)

    events = EventLog(print_line)
    with listening() as interrupts:
        console.print(
            f"Starting {options.validators} validators, {options.workers} workers ({options.backend}), "
            "fixer and miner ..."
        )
        async with running(options, events, interrupts) as session:
            for line in session.stack.addresses():
                console.print(line, highlight=False, style="dim", soft_wrap=True)
            async with healing(session, enabled=operator) as healer:
                watch = _watch(session, interrupts, lambda: under_way(healer))
                await _show(watch, events, console)
                if interrupts.now.is_set():
                    return await session.observe(), None
                return await session.settle()


async def _show(watch: AsyncIterator[Report], events: EventLog, console: Console) -> None:
    """The live tables on a terminal, a line for each change elsewhere."""
    if not live(console):
        ended = -1
        async for report in watch:
            total = report.total
            if total.pulled - total.open != ended:
                ended = total.pulled - total.open
                line = f"{ended} tasks ended, {total.open} under way"
                console.print(line, highlight=False, soft_wrap=True)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as screen:
        async for report in watch:
            screen.update(fitted(report, events.lines, console))
    for line in events.lines:
        console.print(line, highlight=False, style="dim")


async def _watch(
    session: Session, interrupts: Interrupts, healing_under_way: Callable[[], bool]
) -> AsyncIterator[Report]:
    """Reports until the miner has ended, or a signal came and the miner has handed in what is done.

    A worker that is being recycled when the last task ends is waited for: its end belongs to the story.
    """
    process = session.stack.miner
    assert process is not None, "a session has a running miner"
    miner = asyncio.ensure_future(process.wait())
    stop = interrupts.stop
    stopping = asyncio.ensure_future(stop.wait())
    while not miner.done():
        yield await session.observe()
        await asyncio.wait({miner, stopping}, timeout=REFRESH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            session.events.say("sn17", "stopping: the miner hands in what is done (Ctrl-C again: at once)")
            yield await session.observe()
            with contextlib.suppress(InterruptedRunError):
                await Interrupts(stop=interrupts.now).unless_stopped(process.stop(grace=30.0))
            if interrupts.now.is_set():
                process.abandon()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + HEALING_SECONDS
    while healing_under_way() and not stop.is_set() and loop.time() < deadline:
        yield await session.observe()
        await asyncio.wait({stopping}, timeout=REFRESH_SECONDS)
    stopping.cancel()
    yield await session.observe()
