"""``sn17 accept`` and ``sn17 watch``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from sn17_contract.tasks import TaskView

from sn17.accept.local import local_stack
from sn17.accept.miner_api import MinerTasks
from sn17.accept.prompts import PROMPTS
from sn17.accept.record import RENDER_SIZE, Render, dump, new_record, with_watch
from sn17.accept.run import AcceptanceRun
from sn17.accept.smoke import Smoke
from sn17.accept.stack import HttpStack, StackError
from sn17.accept.tables import check_table, passed, sample_line, verdict_json
from sn17.accept.targets import SuccessTargets, parse_targets, read_targets
from sn17.accept.verdict import Check, Criteria, Sample, judge
from sn17.accept.watch import Tally, by_validator, tally
from sn17.accept.watch import judge as judge_tasks
from sn17.cluster.access import Access, ClusterError
from sn17.cluster.release import Release
from sn17.console import new_console, say
from sn17.exits import Exit
from sn17.given import address_of, secret_of
from sn17.interrupts import Interrupted
from sn17.options import Context, Json, Kubeconfig, Namespace, ReleaseName, ReportFile, TokenFile
from sn17.report_file import ReportError, ReportTarget
from sn17.up.backends import choose

FROM_RELEASE = "the release's, else the design's"

Workers = Annotated[
    list[str] | None, typer.Option("--worker", help="Data port of a worker; may be repeated.")
]
RecordFile = Annotated[
    str | None,
    typer.Option(
        "--record", metavar="FILE", help="One JSON file on the run for others: weights, device, pictures."
    ),
]
RELEASE = "sn17"
"""Where none is named, as in the chart's documentation."""


def accept(
    worker: Workers = None,
    fixer: Annotated[str | None, typer.Option(help="Data port of the fixer; with --worker.")] = None,
    release: ReleaseName = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    generations: Annotated[int, typer.Option(min=1, help="Assets to make.")] = len(PROMPTS),
    policy: Annotated[
        str | None,
        typer.Option(help="Repair policy: measured, phase1 or none.", show_default="the release's"),
    ] = None,
    gaussians_mean: Annotated[
        float | None, typer.Option(help="Least mean number of gaussians.", show_default=FROM_RELEASE)
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
    local: Annotated[
        str | None,
        typer.Option(
            metavar="BACKEND",
            help="No cluster: start a worker (procedural or torch, set up by SN17_*) and a fixer here.",
        ),
    ] = None,
    record: RecordFile = None,
    report: ReportFile = None,
    json: Json = False,
) -> None:
    """Check a stack against its targets: fixed prompts and seeds, PASS or FAIL per target.

    Exit code 1: a check failed.
    """
    target, kept = _target(report, json), _target(record, False)
    console = new_console(error=target.stdout)
    began = datetime.now(UTC)
    asked: dict[str, Any] = {"policy": policy, "memory_ratio": memory_ratio, "opacity_std": opacity_std}
    asked |= {"gaussians_mean": gaussians_mean, "generation_seconds": generation_seconds}
    samples: list[Sample] = []
    renders: list[Render] = []
    checks: list[Check]
    with (
        _cannot_run("accept"),
        _stack(worker, fixer, local, _release(release, kubeconfig, context, namespace)) as (stack, criteria),
    ):

        def shown(sample: Sample, ply: bytes) -> None:
            samples.append(sample)
            if record is not None:
                renders.append(Render.of(sample, stack.preview(ply, RENDER_SIZE)))
            console.print(sample_line(len(samples), generations, sample), highlight=False)

        criteria = criteria.with_options(asked)
        if smoke:
            checks = list(Smoke(stack, criteria.policy, minimum_gaussians, prometheus).run())
        else:
            AcceptanceRun(stack, criteria.policy, generations, on_sample=shown).run()
            checks = judge(samples, criteria.policy, criteria.thresholds, wanted=generations)
        made_by = [] if record is None else [stack.version(url) for url in stack.workers]
    console.print(check_table(checks, "Smoke test" if smoke else f"Acceptance, policy {criteria.policy}"))
    with _cannot_run("accept"):
        target.write(verdict_json(checks, criteria=asdict(criteria), samples=[asdict(s) for s in samples]))
        if record is not None:
            kept.write(dump(new_record(made_by, criteria, checks, samples, renders, began=began)))
            console.print(f"record: {record}", highlight=False)
    raise typer.Exit(Exit.DONE if passed(checks) else Exit.NO)


def watch(
    miner: Annotated[str | None, typer.Option(help="Ops port of the miner; else by --release.")] = None,
    token_file: TokenFile = None,
    release: ReleaseName = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    submissions: Annotated[int, typer.Option(min=1, help="End after so many judged submissions.")] = 50,
    hours: Annotated[float, typer.Option(min=0.001, help="End after so many hours at the latest.")] = 6.0,
    period_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds between two polls.")] = 10.0,
    past: Annotated[bool, typer.Option("--past", help="Count tasks that ended before, too.")] = False,
    targets_file: Annotated[
        Path | None,
        typer.Option("--targets", help="JSON with targets per validator.", show_default=FROM_RELEASE),
    ] = None,
    record: RecordFile = None,
    report: ReportFile = None,
    json: Json = False,
) -> None:
    """Follow the miner's journal and judge success and yield: of all tasks, and of each validator.

    Exit code 1: a share is below its least target. Ctrl-C shows what was counted so far.
    """
    target = _target(report, json)
    console = new_console(error=target.stdout)
    began = 0.0 if past else time.time()
    deadline = time.monotonic() + hours * 3600
    counted = Tally(0, tally([], 0).outcomes)
    tasks: list[TaskView] = []
    stopped: Interrupted | None = None
    with (
        _cannot_run("watch"),
        _tasks(miner, token_file, _release(release, kubeconfig, context, namespace)) as (source, targets),
    ):
        if targets_file is not None:
            targets = read_targets(targets_file)
        last = -1
        try:
            while True:
                tasks = source.read()
                counted = tally(tasks, began)
                if counted.submissions != last:
                    last = counted.submissions
                    console.print(_progress(counted, submissions), highlight=False)
                if counted.submissions >= submissions or time.monotonic() >= deadline:
                    break
                time.sleep(period_seconds)
        except Interrupted as signal:
            stopped = signal
    each = by_validator(tasks, began)
    checks = judge_tasks(counted, each, targets)
    console.print(check_table(checks, f"{counted.submissions} submissions of {counted.pulled} tasks"))
    validators = {v.hotkey: {"uid": v.uid, "outcomes": dict(own.outcomes)} for v, own in each.items()}
    with _cannot_run("watch"):
        target.write(verdict_json(checks, outcomes=dict(counted.outcomes), validators=validators))
        if record is not None:
            kept = ReportTarget.of(record, json=False)
            kept.write(dump(with_watch(Path(record), checks, counted.outcomes, validators)))
            console.print(f"record: {record}", highlight=False)
    if stopped is not None:
        raise stopped
    raise typer.Exit(Exit.DONE if passed(checks) else Exit.NO)


def _progress(counted: Tally, wanted: int) -> str:
    outcomes = ", ".join(f"{count} {outcome.value}" for outcome, count in sorted(counted.outcomes.items()))
    shares = " ".join(
        f"{name} {'-' if share is None else f'{share:.0%}'}"
        for name, share in (("success", counted.success), ("yield", counted.yield_))
    )
    return f"{counted.submissions}/{wanted} submissions  {shares}  ({outcomes or 'nothing yet'})"


@contextlib.contextmanager
def _cannot_run(command: str) -> Iterator[None]:
    try:
        yield
    except (StackError, ClusterError, ReportError) as error:
        say(f"sn17 {command}: cannot run: {error}", error=True)
        raise typer.Exit(Exit.CANNOT) from None


def _target(report: str | None, json: bool) -> ReportTarget:
    with _cannot_run("accept"):
        return ReportTarget.of(report, json)


def _release(
    name: str | None, kubeconfig: Path | None, context: str | None, namespace: str | None
) -> Release:
    return Release(name or RELEASE, Access(kubeconfig, context, namespace))


@contextlib.contextmanager
def _stack(
    workers: list[str] | None, fixer: str | None, local: str | None, release: Release
) -> Iterator[tuple[HttpStack, Criteria]]:
    if bool(workers) != bool(fixer):
        raise StackError("give --worker and --fixer together, or neither and --release")
    if local is not None:
        if workers:
            raise StackError("give --local or --worker and --fixer, not both")
        with local_stack(choose(local)) as (found, found_fixer):
            yield HttpStack(found, found_fixer), Criteria()
        return
    if workers and fixer:
        yield HttpStack(tuple(map(address_of, workers)), address_of(fixer)), Criteria()
        return
    criteria = Criteria().with_options(release.acceptance())
    with release.workers_and_fixer() as (found, found_fixer):
        yield HttpStack(found, found_fixer), criteria


@contextlib.contextmanager
def _tasks(
    miner: str | None, token_file: Path | None, release: Release
) -> Iterator[tuple[MinerTasks, SuccessTargets]]:
    if miner:
        if token_file is None:
            raise StackError("give --miner and --token-file together, or neither and --release")
        yield MinerTasks(address_of(miner), secret_of(token_file)), SuccessTargets()
        return
    text = release.targets()
    targets = SuccessTargets() if text is None else parse_targets(text, f"values of release {release.name}")
    with release.miner() as url:
        yield MinerTasks(url, release.admin_token()), targets
