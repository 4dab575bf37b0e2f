"""The commands. In a cluster they write a person's wish and wait for the operator to carry it out."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from sn17_contract.explain import Explanation
from sn17_contract.replay import ReplayAnswer

from sn17.cluster.access import Access, ClusterError
from sn17.console import new_console, print_json, say
from sn17.exits import Exit
from sn17.given import GivenError, address_of
from sn17.interrupts import Interrupted
from sn17.ops.cluster import Steering, SteeringError
from sn17.ops.replay import ReplayOptions, run_replay
from sn17.ops.tables import explanation, report_tables
from sn17.options import Context, Json, Kubeconfig, Namespace, ReleaseName

app = typer.Typer(name="ops", help="Steer the workers of a cluster.", no_args_is_help=True)

T = TypeVar("T")

Pod = Annotated[str, typer.Argument(help="The worker's pod.")]
Reason = Annotated[str, typer.Option(help="Shown in status and Events.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait until it is done; 0 = only ask.")]
Miner = Annotated[str | None, typer.Option("--miner", help="The SN17Miner, where there is more than one.")]


def _run(work: Coroutine[Any, Any, T]) -> T:
    with _told():
        return asyncio.run(work)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """One sentence for what a person can do something about."""
    try:
        yield
    except (SteeringError, ClusterError, GivenError) as error:
        # What libraries say of a file runs over several lines.
        say(f"sn17: {' '.join(str(error).split())}", error=True)
        raise typer.Exit(Exit.NO if isinstance(error, SteeringError) else Exit.CANNOT) from error


async def _awaited(steering: Steering, seen: Callable[[], Any], wait: float) -> bool:
    """Whether it was seen in time. Ctrl-C ends the waiting and not the wish."""
    try:
        return wait > 0 and await steering.until(seen, wait)
    except (Interrupted, asyncio.CancelledError):
        say("\nthe wish stands: the operator carries it out all the same", error=True)
        raise


@app.command()
def cordon(
    pod: Pod,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    reason: Reason = "by hand",
    wait: Wait = 60,
    json: Json = False,
) -> None:
    """Take a worker out of service until `uncordon`: it finishes its job and takes no other, also after a
    restart.
    """

    async def work() -> None:
        async with Steering.connect(Access(kubeconfig, context, namespace)) as steering:
            await steering.cordon(pod, reason)
            done = await _awaited(steering, lambda: steering.is_asserted(pod), wait)
        later = f"{pod} will be cordoned when the operator sees it"
        _tell(Told(pod, done, f"{pod} is cordoned" if done else later), wait, json=json)

    _run(work())


@app.command()
def uncordon(
    pod: Pod,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    wait: Wait = 60,
    json: Json = False,
) -> None:
    """End a cordon that you made. The operator ends its own."""

    async def work() -> None:
        async with Steering.connect(Access(kubeconfig, context, namespace)) as steering:
            if not await steering.uncordon(pod):
                raise SteeringError(f"{pod} is not cordoned by a person")
            done = await _awaited(steering, lambda: steering.is_lifted(pod), wait)
        later = f"{pod} will be back when the operator sees it"
        _tell(Told(pod, done, f"{pod} is back in service" if done else later), wait, json=json)

    _run(work())


@app.command()
def recycle(
    pod: Pod,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    reason: Reason = "by hand",
    wait: Wait = 300,
    json: Json = False,
) -> None:
    """Drain a worker and restart it, within the budget and without losing a task."""

    async def work() -> None:
        async with Steering.connect(Access(kubeconfig, context, namespace)) as steering:
            before = await steering.containers(pod)
            await steering.recycle(pod, reason)

            async def restarted() -> bool:
                return await steering.containers(pod) != before

            done = await _awaited(steering, restarted, wait)
        later = f"{pod} waits for its turn: sn17 explain {pod} says for what"
        _tell(Told(pod, done, f"{pod} has restarted" if done else later), wait, json=json)

    _run(work())


@app.command()
def pause(
    miner: Miner = None,
    release: ReleaseName = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    reason: Reason = "by hand",
    json: Json = False,
) -> None:
    """The operator starts nothing more and gives back what it has cordoned; `resume` ends it."""

    async def work() -> str:
        async with Steering.connect(Access(kubeconfig, context, namespace)) as steering:
            return await steering.pause(miner, reason, release)

    name = _run(work())
    _tell(Told(name, True, f"{name} is paused: {reason}"), 0, json=json)


@app.command()
def resume(
    miner: Miner = None,
    release: ReleaseName = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    json: Json = False,
) -> None:
    """End `pause`."""

    async def work() -> str:
        async with Steering.connect(Access(kubeconfig, context, namespace)) as steering:
            return await steering.pause(miner, None, release)

    name = _run(work())
    _tell(Told(name, True, f"{name} goes on"), 0, json=json)


@app.command()
def explain(
    pod: Pod,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    url: Annotated[str | None, typer.Option(help="The operator's ops port, instead of a cluster.")] = None,
    json: Json = False,
) -> None:
    """Show why a worker has its verdict: query, value, sample age, threshold and dwell of each rule, and what
    comes next.
    """

    async def work() -> Explanation:
        async with Steering.connect(Access(kubeconfig, context, namespace)) as steering:
            return await steering.explain(pod)

    with _told():
        address = None if url is None else f"{address_of(url)}/v1/explain/{pod}"
        found = _run(work()) if address is None else _fetch(address)
    if json:
        print_json(found.model_dump_json(by_alias=True, indent=2))
    else:
        console = new_console()
        for part in explanation(found):
            console.print(part)


def _fetch(url: str) -> Explanation:
    # A quarter of a second, for this form of the command only.
    import httpx2
    from sn17_http import own_request

    try:
        answer = own_request("GET", url, timeout=10).raise_for_status()
        return Explanation.model_validate_json(answer.content)
    except (httpx2.HTTPError, ValueError) as error:
        raise ClusterError(f"no explanation from {url}: {error}") from error


@app.command()
def replay(
    prometheus: Annotated[str | None, typer.Option(help="Base URL of a Prometheus.")] = None,
    file: Annotated[Path | None, typer.Option(help="A recording, instead of a Prometheus.")] = None,
    since: Annotated[str, typer.Option(help="How far back, e.g. 90m, 24h, 7d.")] = "24h",
    record: Annotated[Path | None, typer.Option(help="Keep what was fetched (.json or .json.gz).")] = None,
    spec: Annotated[
        list[Path] | None,
        typer.Option(
            help="YAML with the spec of an SN17Miner; give it twice to compare two. Default: the defaults."
        ),
    ] = None,
    miner: Miner = None,
    release: ReleaseName = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    selector: Annotated[str, typer.Option(help='More label matchers, e.g. namespace="sn17".')] = "",
    scrape_interval: Annotated[float, typer.Option(min=1, help="Seconds between two scrapes.")] = 15.0,
    bearer_token_file: Annotated[Path | None, typer.Option(help="Token for Prometheus.")] = None,
    json: Json = False,
) -> None:
    """Dry-run the operator over recorded metrics."""

    async def work() -> ReplayAnswer:
        settings: dict[str, Any] | None = None
        if miner is not None or release is not None:
            async with Steering.connect(Access(kubeconfig, context, namespace)) as steering:
                settings = dict(await steering.spec(miner, release))
        options = ReplayOptions(
            prometheus,
            file,
            since,
            record,
            tuple(spec or ()),
            settings,
            selector,
            scrape_interval,
            bearer_token_file,
        )
        return await run_replay(options, now=time.time())

    report = _run(work())
    if json:
        print_json(report.model_dump_json(by_alias=True, indent=2))
    else:
        new_console().print(report_tables(report))


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a wish about the pod or SN17Miner ``name``."""

    name: str
    done: bool
    message: str


def _tell(told: Told, wait: float, *, json: bool) -> None:
    if json:
        print_json(dumps(asdict(told), indent=2))
    else:
        say(told.message)
    if not told.done and wait > 0:
        say(f"not within {wait:.0f} s: is the operator running? kubectl get sn17miners", error=True)
        raise typer.Exit(Exit.NO)
