"""``sn17 accept`` and ``sn17 watch``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sn17.accept.miner_api import MinerTasks, read_token
from sn17.accept.port_forward import Release
from sn17.accept.prompts import PROMPTS
from sn17.accept.run import AcceptanceRun
from sn17.accept.smoke import Smoke
from sn17.accept.stack import HttpStack, StackError
from sn17.accept.tables import check_table, passed, sample_line, write_json
from sn17.accept.targets import SuccessTargets, read_targets
from sn17.accept.verdict import Check, Marks, Sample, judge
from sn17.accept.watch import Tally, by_validator, tally
from sn17.accept.watch import judge as judge_tasks
from sn17.console import new_console

CANNOT_RUN = 2
FROM_RELEASE = "the release's, else the design's"

Workers = Annotated[
    list[str] | None, typer.Option("--worker", help="Data port of a worker; may be repeated.")
]
ReleaseName = Annotated[str, typer.Option("--release", help="Helm release, reached by kubectl port-forward.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the release.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the verdict there as JSON.")]


def accept(
    worker: Workers = None,
    fixer: Annotated[str | None, typer.Option(help="Data port of the fixer; with --worker.")] = None,
    release: ReleaseName = "sn17",
    namespace: Namespace = "default",
    generations: Annotated[int, typer.Option(min=1, help="Assets to make.")] = len(PROMPTS),
    policy: Annotated[
        str | None,
        typer.Option(help="Repair policy: measured, phase1 or none.", show_default="the release's"),
    ] = None,
    gaussians_mean: Annotated[
        float | None, typer.Option(help="The mean must exceed it.", show_default=FROM_RELEASE)
    ] = None,
    generation_seconds: Annotated[
        float | None, typer.Option(help="Each generation must take less.", show_default=FROM_RELEASE)
    ] = None,
    memory_ratio: Annotated[
        float | None,
        typer.Option(
            min=0.05, max=1, help="Share of the memory limit never reached.", show_default=FROM_RELEASE
        ),
    ] = None,
    opacity_std: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Range of the opacity's spread after phase1.", show_default=FROM_RELEASE),
    ] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="One asset only: the test of `helm test`.")] = False,
    minimum_gaussians: Annotated[int, typer.Option(help="With --smoke: the asset has more.")] = 1000,
    prometheus: Annotated[str | None, typer.Option(help="With --smoke: it must scrape the workers.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Prove that a stack does what the design promises: fixed prompts and seeds, PASS or FAIL per mark.

    Exit code 0: no check failed. 1: one did. 2: it could not be run.
    """
    console = new_console()
    asked: dict[str, Any] = {
        "policy": policy,
        "gaussians_mean": gaussians_mean,
        "generation_seconds": generation_seconds,
        "memory_ratio": memory_ratio,
        "opacity_std": opacity_std,
    }
    samples: list[Sample] = []

    def shown(sample: Sample) -> None:
        samples.append(sample)
        console.print(sample_line(len(samples), generations, sample), highlight=False)

    checks: list[Check]
    with _cannot_run(console), _stack(worker, fixer, release, namespace) as (stack, marks):
        marks = marks.with_options(asked)
        if smoke:
            checks = list(Smoke(stack, marks.policy, minimum_gaussians, prometheus).run())
        else:
            AcceptanceRun(stack, marks.policy, generations, on_sample=shown).run()
            checks = judge(samples, marks.policy, marks.thresholds, wanted=generations)
    console.print(check_table(checks, "Smoke test" if smoke else f"Acceptance, policy {marks.policy}"))
    if json_file:
        write_json(json_file, checks, marks=asdict(marks), samples=[asdict(s) for s in samples])
    raise typer.Exit(0 if passed(checks) else 1)


def watch(
    miner: Annotated[str | None, typer.Option(help="Ops port of the miner; else by --release.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="Its admin token; with --miner.")] = None,
    release: ReleaseName = "sn17",
    namespace: Namespace = "default",
    submissions: Annotated[int, typer.Option(min=1, help="End after so many judged submissions.")] = 50,
    hours: Annotated[float, typer.Option(min=0.001, help="End after so many hours at the latest.")] = 6.0,
    period_seconds: Annotated[float, typer.Option(min=0.1, help="Between two looks.")] = 10.0,
    past: Annotated[bool, typer.Option("--past", help="Count tasks that ended before, too.")] = False,
    targets_file: Annotated[
        Path | None,
        typer.Option("--targets", help="JSON with targets per validator.", show_default=FROM_RELEASE),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Follow the miner's journal and judge success and yield: of all tasks, and of each validator.

    Exit code 0: no share is below its least target. 1: one is. 2: it could not be run.
    """
    console = new_console()
    began = 0.0 if past else time.time()
    deadline = time.monotonic() + hours * 3600
    counted = Tally(0, tally([], 0).outcomes)
    with _cannot_run(console), _tasks(miner, token_file, release, namespace) as (source, targets):
        if targets_file is not None:
            targets = read_targets(targets_file)
        last = -1
        while True:
            tasks = source.read()
            counted = tally(tasks, began)
            if counted.submissions != last:
                last = counted.submissions
                console.print(_progress(counted, submissions), highlight=False)
            if counted.submissions >= submissions or time.monotonic() >= deadline:
                break
            time.sleep(period_seconds)
    each = by_validator(tasks, began)
    checks = judge_tasks(counted, each, targets)
    console.print(check_table(checks, f"{counted.submissions} submissions of {counted.pulled} tasks"))
    if json_file:
        validators = {v.hotkey: {"uid": v.uid, "outcomes": dict(own.outcomes)} for v, own in each.items()}
        write_json(json_file, checks, outcomes=dict(counted.outcomes), validators=validators)
    raise typer.Exit(0 if passed(checks) else 1)


def _progress(counted: Tally, wanted: int) -> str:
    outcomes = ", ".join(f"{count} {outcome.value}" for outcome, count in sorted(counted.outcomes.items()))
    shares = " ".join(
        f"{name} {'-' if share is None else f'{share:.0%}'}"
        for name, share in (("success", counted.success), ("yield", counted.yield_))
    )
    return f"{counted.submissions}/{wanted} submissions  {shares}  ({outcomes or 'nothing yet'})"


@contextlib.contextmanager
def _cannot_run(console: Console) -> Iterator[None]:
    try:
        yield
    except StackError as error:
        console.print(f"cannot run: {error}", style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(CANNOT_RUN) from None


@contextlib.contextmanager
def _stack(
    workers: list[str] | None, fixer: str | None, release: str, namespace: str
) -> Iterator[tuple[HttpStack, Marks]]:
    if bool(workers) != bool(fixer):
        raise StackError("give --worker and --fixer together, or neither and --release")
    if workers and fixer:
        yield HttpStack(tuple(workers), fixer), Marks()
        return
    source = Release(release, namespace)
    marks = Marks().with_options(source.acceptance())
    with source.workers_and_fixer() as (found, found_fixer):
        yield HttpStack(found, found_fixer), marks


@contextlib.contextmanager
def _tasks(
    miner: str | None, token_file: Path | None, release: str, namespace: str
) -> Iterator[tuple[MinerTasks, SuccessTargets]]:
    if bool(miner) != bool(token_file):
        raise StackError("give --miner and --token-file together, or neither and --release")
    if miner and token_file:
        yield MinerTasks(miner, read_token(token_file)), SuccessTargets()
        return
    source = Release(release, namespace)
    with source.miner() as url:
        yield MinerTasks(url, source.admin_token()), source.targets()
