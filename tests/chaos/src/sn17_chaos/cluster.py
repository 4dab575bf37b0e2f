"""Rounds on a cluster: releases side by side, each with a fault of its own, or one fault under all."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from sn17_chaos.cluster_bed import Bed, bed
from sn17_chaos.cluster_faults import RELEASE
from sn17_chaos.cluster_wide import WIDE
from sn17_chaos.cluster_world import ClusterWorld
from sn17_chaos.faults import CannotInjectError, Fault
from sn17_chaos.invariants import check
from sn17_chaos.results import UNDISTURBED
from sn17_chaos.runner import Trial, trial

RECOVERY_SECONDS = 150.0
REST_SECONDS = 10.0
Say = Callable[[str], None]


@contextlib.contextmanager
def releases(on: Bed, count: int) -> Iterator[list[ClusterWorld]]:
    """So many releases, installed and healthy."""
    worlds = [ClusterWorld(on, f"chaos{index}") for index in range(count)]
    try:
        for world in worlds:
            world.start()
        for world in worlds:
            world.await_first()
        yield worlds
    finally:
        for world in worlds:
            world.close()


def wide_trial(worlds: Sequence[ClusterWorld], fault: Fault[Bed], rng: Random) -> list[Trial]:
    """One fault under all releases; each is judged by itself.

    Everything that starts processes happens in the calling thread: they end with it.
    """
    on = worlds[0].bed
    marks = [world.mark() for world in worlds]
    heal = fault.inject(on, rng)
    try:
        time.sleep(rng.uniform(*fault.seconds))
    finally:
        heal()
    over = time.time()

    def judge(index: int) -> Trial:
        world = worlds[index]
        unrecovered = world.recover(over, RECOVERY_SECONDS)
        recovery = None if unrecovered else time.time() - over
        history = world.history(marks[index], over, unrecovered)
        return Trial(fault.name, [fault.name], len(history.assigned), check(history), recovery, history)

    with ThreadPoolExecutor(len(worlds)) as pool:
        return list(pool.map(judge, range(len(worlds))))


def own_trials(
    worlds: Sequence[ClusterWorld],
    faults: Sequence[Fault[ClusterWorld] | None],
    rng: Random,
    skipped: dict[str, str],
) -> list[Trial]:
    """A fault of its own for each release, at the same time; None lets it alone."""
    generators = [Random(rng.getrandbits(64)) for _ in worlds]

    def strike(index: int) -> Trial | None:
        fault = faults[index]
        try:
            return trial(
                worlds[index],
                [fault] if fault else [],
                generators[index],
                deadline=RECOVERY_SECONDS,
                rest=REST_SECONDS,
            )
        except (CannotInjectError, TimeoutError) as error:
            skipped[fault.name if fault else UNDISTURBED] = str(error)
            return None

    with ThreadPoolExecutor(len(worlds)) as pool:
        return [found for found in pool.map(strike, range(len(worlds))) if found]


def schedule(rng: Random, count: int) -> Iterator[Fault[Bed] | list[Fault[ClusterWorld] | None]]:
    """Rounds without end: every fault once in a random order, then again; the first round rests."""
    yield [None] * count
    while True:
        own: list[Fault[ClusterWorld]] = list(RELEASE)
        rng.shuffle(own)
        rounds: list[Fault[Bed] | list[Fault[ClusterWorld] | None]] = [
            list(itertools.islice(itertools.cycle(own), start, start + count))
            for start in range(0, len(own), count)
        ]
        rounds += list(WIDE)
        rng.shuffle(rounds)
        yield from rounds


def run(
    book: Callable[[Trial], None],
    *,
    seed: int,
    seconds: float,
    count: int,
    say: Say,
    only: Sequence[str] = (),
    archives: Sequence[Path] = (),
) -> dict[str, str]:
    """Break things for ``seconds``. What could not be injected, and why.

    only: these faults. archives: the images, which are built otherwise.

    Raises MissingError.
    """
    rng, skipped = Random(seed), dict[str, str]()
    with bed(archives=archives) as on, releases(on, count) as worlds:
        end = time.monotonic() + seconds
        say(f"{count} releases on {len(on.nodes)} nodes")
        for faults in schedule(rng, count):
            if time.monotonic() > end:
                break
            if isinstance(faults, list):
                chosen = [f if f is None or not only or f.name in only else None for f in faults]
                if not only or any(chosen):
                    for found in own_trials(worlds, chosen, rng, skipped):
                        book(found)
            elif not only or faults.name in only:
                try:
                    for found in wide_trial(worlds, faults, rng):
                        book(found)
                except (CannotInjectError, TimeoutError) as error:
                    skipped[faults.name] = str(error)
        for world in worlds:
            for line in world.log:
                say(line)
    return skipped
