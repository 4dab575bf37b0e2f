"""``sn17 generate``."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer
from sn17_http import ProxyUnusableError, async_client_for

from sn17 import interrupts as signals
from sn17.cluster.access import Access, ClusterError
from sn17.console import print_json, say
from sn17.exits import Exit, sentence
from sn17.generate.client import GatewayClient, RefusedError
from sn17.generate.progress import Progress
from sn17.generate.run import Failed, Made, Run
from sn17.generate.under_way import Notes
from sn17.generate.where import Found, NoGatewayError, Source, find
from sn17.generate.wishes import Asked, Wish, WishError, wishes_of
from sn17.options import Context, Json, Kubeconfig, Namespace, ReleaseName, StateDir
from sn17.splat.formats import STDIO
from sn17.up.interrupts import InterruptedRunError, listening

RUNS = Path(".sn17")
ANSWER_SECONDS = 60.0


def generate(
    prompt: Annotated[str | None, typer.Argument(help="What to make, in a few words.")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture (PNG, JPEG, WebP), instead of words.")] = None,
    prompts: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file with a prompt on each line; - is standard input."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to: .ply, .spz or .splat; - is standard output; with --prompts a folder.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Default: the gateway draws one.")
    ] = None,
    spz: Annotated[bool, typer.Option("--spz", help="The subnet's SPZ, instead of PLY.")] = False,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Tasks under way at a time.")] = 2,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for one asset.")] = 900.0,
    url: Annotated[
        str | None, typer.Option(envvar="SN17_GATEWAY_URL", help="The gateway. Default: that of `sn17 up`.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="SN17_GATEWAY_KEY", help="The gateway's key; other users can see it here."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(envvar="SN17_GATEWAY_KEY_FILE", help="A file with the key.")
    ] = None,
    state_dir: StateDir = None,
    release: ReleaseName = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    json: Json = False,
) -> None:
    """Make splats of your own prompts through a gateway, and write them to files.

    A lost connection is taken up again. What was under way at a Ctrl-C goes on at the gateway, and the same
    command fetches it. With --prompts, files that are there are not made again.
    """
    try:
        wishes = wishes_of(Asked(prompt, image, prompts, seed, output, spz))
        if prompts is not None:
            wishes = _not_yet_made(wishes)
        with ExitStack() as stack:
            source = Source(url, key, key_file, state_dir, release, Access(kubeconfig, context, namespace))
            code = _make(wishes, find(source, stack, RUNS), at_once, timeout, json=json)
    except (WishError, NoGatewayError, ClusterError, RefusedError, ProxyUnusableError) as error:
        raise _stop(str(error)) from error
    except OSError as error:
        raise _stop(sentence(error)) from error
    raise typer.Exit(code)


def _make(wishes: list[Wish], found: Found, at_once: int, timeout: float, *, json: bool) -> Exit:
    """Raises RefusedError, ProxyUnusableError and OSError."""
    ends: list[Made | Failed] = []
    with Progress(len(wishes)) as progress:
        run: Run | None = None

        def ended(end: Made | Failed) -> None:
            ends.append(end)
            progress.ended(end)

        async def work() -> None:
            nonlocal run
            async with async_client_for(found.url, timeout=ANSWER_SECONDS) as client:
                run = Run(GatewayClient(client, found.key), Notes(found.name), progress.step, timeout)
                with listening() as interrupts:
                    await interrupts.unless_stopped(run.all(wishes, at_once, ended))

        stopped = False
        try:
            asyncio.run(work())
        except InterruptedRunError:
            stopped = True
    if json:
        print_json(dumps([_told(end) for end in ends]))
    else:
        _say_ends(ends, len(wishes))
    if stopped:
        _say_under_way(run, len(wishes) - len(ends))
        return Exit.INTERRUPTED
    if all(isinstance(end, Made) for end in ends):
        return Exit.DONE
    return Exit.CANNOT if len(wishes) == 1 and _refused(ends[0]) else Exit.NO


def _not_yet_made(wishes: list[Wish]) -> list[Wish]:
    left = [wish for wish in wishes if not Path(wish.output).exists()]
    if len(left) < len(wishes):
        say(f"{len(wishes) - len(left)} of {len(wishes)} are there already and not made again", error=True)
    return left


def _say_ends(ends: list[Made | Failed], wanted: int) -> None:
    piped = any(end.wish.output == STDIO for end in ends)
    for end in ends:
        if isinstance(end, Failed):
            say(f"{end.wish.output}: not made: {end.reason}", error=True)
        elif wanted == 1:
            made = end.saved
            told = (
                f"{made.gaussians:,} gaussians, {made.size:,} bytes of {end.wish.kind}, {end.seconds:.1f} s"
            )
            say(f"{end.wish.output}: {told}", error=piped)
    if wanted > 1:
        say(f"{sum(isinstance(end, Made) for end in ends)} of {wanted} made", error=piped)


def _say_under_way(run: Run | None, left: int) -> None:
    tasks = {} if run is None else run.tasks
    for output, task in tasks.items():
        say(f"{output}: task {task} is under way at the gateway", error=True)
    rest = left - len(tasks)
    begun = f"; {rest} not begun" if rest else ""
    say(f"stopped: {len(tasks)} under way{begun}; the same command goes on with them", error=True)
    signals.told()


def _told(end: Made | Failed) -> dict[str, Any]:
    about: dict[str, Any] = {
        "prompt": end.wish.prompt,
        "seed": end.wish.seed,
        "file": end.wish.output,
        "format": str(end.wish.kind),
        "task": end.task,
        "made": isinstance(end, Made),
    }
    if isinstance(end, Failed):
        return {**about, "reason": end.reason}
    return {
        **about,
        "bytes": end.saved.size,
        "gaussians": end.saved.gaussians,
        "seconds": round(end.seconds, 3),
    }


def _refused(end: Made | Failed) -> bool:
    return isinstance(end, Failed) and end.refused


def _stop(sentence: str) -> typer.Exit:
    say(f"sn17 generate: {sentence}", error=True)
    return typer.Exit(Exit.CANNOT)
